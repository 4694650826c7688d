"""A delivery is complete when its folder exists, holds images and has stopped growing."""

import os
import re
import time

import pytest
from toys import picture

from batchland.errors import MissingInputError, NoSuchImagesError, UsageError
from batchland.nightly.delivery import delivered_images
from batchland.nightly.job import load_job


@pytest.fixture
def job(tmp_path):
    (tmp_path / "toy.toml").write_text('images = "in"\nmodel = "toy.onnx"\ninclude = ["*.jpg"]\n')
    return load_job(tmp_path / "toy.toml")


def refusal(job, root):
    with pytest.raises(MissingInputError) as caught:
        delivered_images(job, root)
    assert caught.value.exit_code == 66
    return str(caught.value)


def test_the_message_says_what_is_missing(tmp_path, job):
    root = tmp_path / "in"
    wrong = f"is the delivery late, or `images` in {job.file} wrong?"
    assert refusal(job, root) == f"{root}: does not exist; {wrong}"
    root.touch()
    assert refusal(job, root) == f"{root}: is not a folder; {wrong}"
    root.unlink()
    root.mkdir()
    assert refusal(job, root) == f"{root}: holds no images to score (found: nothing at all); {wrong}"
    (root / "a.png").write_bytes(picture(kind="PNG"))
    (root / "notes.txt").touch()
    assert refusal(job, root) == f"{root}: holds no images to score (found: 1 .txt, 1 not included); {wrong}"
    (root / "a.jpg").write_bytes(picture())
    assert [ref.name for ref in delivered_images(job, root).images()] == ["a.jpg"]


def test_a_folder_that_may_not_be_read_is_no_late_delivery(nobody, job):
    (nobody.folder / "locked/in").mkdir(parents=True)
    (nobody.folder / "locked").chmod(0)
    with nobody, pytest.raises(UsageError) as caught:
        delivered_images(job, nobody.folder / "locked/in")
    assert not isinstance(caught.value, NoSuchImagesError)
    assert str(caught.value).endswith("in: cannot be opened (Permission denied); give a folder of images")


def test_a_growing_folder_is_a_missing_delivery(tmp_path, job):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.jpg").write_bytes(picture())
    patient = job.model_copy(update={"settle": load_job(job.file, ["settle=1s"]).settle})
    message = refusal(patient, tmp_path / "in")
    advice = rf"run the night again in 1 s, or shorten settle \(1 s\) in {job.file}"
    assert re.fullmatch(rf"{tmp_path}/in: is still growing, it changed \d s ago; {advice}", message)
    time.sleep(1.1)
    delivered_images(patient, tmp_path / "in")
    (tmp_path / "in" / "sub" / ".b.jpg.part").touch()  # as rsync begins a file
    assert "still growing" in refusal(patient, tmp_path / "in")


def test_a_delivery_from_the_future_names_the_clock(tmp_path, job, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    patient = job.model_copy(update={"settle": load_job(job.file, ["settle=1h"]).settle})
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7200)  # the clock was set back
    message = refusal(patient, tmp_path / "in")
    assert re.fullmatch(
        rf"{tmp_path}/in: its last change is in the future \(20[0-9T:+-]*\); is the clock of this machine or of the "
        r"storage wrong\?",
        message,
    )
    monkeypatch.setattr(time, "time", lambda: real() - 1800)
    assert refusal(patient, tmp_path / "in").partition("; ")[0].endswith("/in: is still growing, it changed 0 s ago")


def test_without_settle_no_file_status_is_read(tmp_path, job, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    real, looked_at = os.lstat, []

    def lstat(path, **settings):
        looked_at.append(os.fsdecode(path))
        return real(path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        names = [ref.name for ref in delivered_images(job, tmp_path / "in").images()]
    assert names == ["a.jpg"]
    assert [path for path in looked_at if path.endswith("a.jpg")] == []


def test_a_folder_of_nothing_but_known_images_is_a_delivery(tmp_path, job):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    listing = delivered_images(job, tmp_path / "in", lambda ref: ref.name == "a.jpg")
    assert (listing.first(), dict(listing.ignored.counts)) == (None, {"already scored": 1})


def test_an_archive_that_cannot_be_read_may_still_be_on_its_way(tmp_path):
    (tmp_path / "toy.toml").write_text('images = "in.zip"\nmodel = "toy.onnx"\n')
    path = tmp_path / "in.zip"
    path.write_bytes(b"PK\x03\x04 the beginning of an upload")
    assert refusal(load_job(tmp_path / "toy.toml"), path) == (
        f"{path}: the zip file cannot be read: the list of its members, at its end, is missing, so it was cut; deliver "
        f"it again; is the delivery still being written?"
    )

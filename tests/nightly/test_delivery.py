"""A delivery is complete when its folder exists, holds images and has stopped growing."""

import re
import time

import pytest
from toys import picture

from batchland.errors import MissingInputError
from batchland.nightly.delivery import check_delivery, listed_images
from batchland.nightly.job import load_job


@pytest.fixture
def job(tmp_path):
    (tmp_path / "toy.toml").write_text('images = "in"\nmodel = "toy.onnx"\ninclude = ["*.jpg"]\n')
    return load_job(tmp_path / "toy.toml")


def refusal(job, root):
    with pytest.raises(MissingInputError) as caught:
        check_delivery(job, root)
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
    assert refusal(job, root) == f"{root}: holds no images to score (found: nothing at all)"
    (root / "a.png").write_bytes(picture(kind="PNG"))
    (root / "notes.txt").touch()
    assert refusal(job, root) == f"{root}: holds no images to score (found: 1 .txt, 1 not included)"
    (root / "a.jpg").write_bytes(picture())
    check_delivery(job, root)
    assert [ref.name for ref in listed_images(job, root)] == ["a.jpg"]


def test_a_growing_folder_is_a_missing_delivery(tmp_path, job):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.jpg").write_bytes(picture())
    patient = job.model_copy(update={"settle": load_job(job.file, ["settle=1s"]).settle})
    message = refusal(patient, tmp_path / "in")
    assert re.fullmatch(rf"{tmp_path}/in: is still growing, it changed \d s ago; settle is 1 s", message)
    time.sleep(1.1)
    check_delivery(patient, tmp_path / "in")
    (tmp_path / "in" / "sub" / ".b.jpg.part").touch()  # as rsync begins a file
    assert "still growing" in refusal(patient, tmp_path / "in")

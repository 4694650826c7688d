"""Retries: repaired images get their scores, all other rows stay, and the output is that of a fresh run."""

import hashlib
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import tar_of, zip_of
from toys import COLOURS, Stop, contents, options, picture, toy_card, write_toy_model

from batchland import score
from batchland.errors import NoSuchImagesError, TooManyFailedError, UsageError
from batchland.images.sources import random_access
from batchland.predictions.layout import manifest_path
from batchland.predictions.schema import FIRST_COLUMNS, PREDICTIONS, Counts, Manifest
from batchland.scoring.options import FailureLimit

RED, GREEN, BLUE = COLOURS.values()


@pytest.fixture
def night(tmp_path):
    """Sixty images, every tenth broken, and six broken ones in a row."""
    root = tmp_path / "night"
    for number in range(60):
        folder = root / f"camera-{number // 20}"
        folder.mkdir(parents=True, exist_ok=True)
        data = b"" if number % 10 == 7 or 30 <= number < 36 else picture(list(COLOURS.values())[number % 3])
        (folder / f"{number:03}.jpg").write_bytes(data)
    (root / "notes.txt").touch()
    return root


def repair(root, *numbers):
    for number in numbers:
        path = root / f"camera-{number // 20}" / f"{number:03}.jpg"
        path.write_bytes(picture(list(COLOURS.values())[number % 3]))


@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_the_result_is_that_of_a_fresh_run(tmp_path, night, toy_model, name):
    out = tmp_path / "retried" / name
    assert score(night, out, options(toy_model)).manifest.counts.failed == 12
    repair(night, 7, 30, 31, 32, 33, 34, 57)
    summary = score(night, out, options(toy_model, retry_failed=True))
    assert summary.manifest.counts == Counts(listed=60, ok=55, failed=5, failed_by_code={"empty": 5})
    assert (summary.manifest.kept_images, summary.manifest.resumed_images) == (48, 0)
    assert summary.manifest.ignored == {".txt": 1}
    assert summary.manifest.config["retry_failed"] is True
    assert Manifest.model_validate_json(manifest_path(out).read_text()) == summary.manifest
    fresh = score(night, tmp_path / "fresh" / name, options(toy_model)).manifest
    assert contents(tmp_path / "retried") == contents(tmp_path / "fresh")
    assert summary.manifest.run_id == fresh.run_id
    assert summary.manifest.input_fingerprint == fresh.input_fingerprint
    assert summary.manifest.files == fresh.files


def test_only_failed_rows_are_read_again(tmp_path, night, toy_model):
    out = tmp_path / "p.parquet"
    score(night, out, options(toy_model))
    repair(night, 7)
    shutil.rmtree(night / "camera-1")  # good rows of missing images are kept; failed rows say what is wrong now
    (night / "camera-0" / "new.jpg").write_bytes(picture())
    summary = score(night, out, options(toy_model, retry_failed=True))
    assert summary.manifest.counts.failed_by_code == {"empty": 3, "vanished": 8}
    assert (summary.manifest.counts.listed, summary.manifest.kept_images) == (60, 48)


def test_without_the_folder_no_row_is_retried(tmp_path, night, toy_model):
    """A disk that is not mounted: the failed rows keep their reasons."""
    out = tmp_path / "p.parquet"
    score(night, out, options(toy_model))
    before = contents(tmp_path)
    night.rename(tmp_path / "away")
    with pytest.raises(NoSuchImagesError, match="night: does not exist; give a folder of images"):
        score(night, out, options(toy_model, retry_failed=True))
    (tmp_path / "away").rename(night)
    assert contents(tmp_path) == before


def test_without_failed_rows_the_output_stays_the_same(tmp_path, night, toy_model):
    out = tmp_path / "p.parquet"
    repair(night, 7, 17, 27, 37, 47, 57, *range(30, 36))
    score(night, out, options(toy_model))
    before = hashlib.sha256(out.read_bytes()).digest()
    summary = score(night, out, options(toy_model, retry_failed=True))
    assert (summary.manifest.kept_images, summary.manifest.counts.ok) == (60, 60)
    assert hashlib.sha256(out.read_bytes()).digest() == before


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_an_interrupted_retry_is_resumed(tmp_path, night, toy_model, batches):
    out, undisturbed = tmp_path / "a" / "p.parquet", tmp_path / "b" / "p.parquet"
    for path in (out, undisturbed):
        score(night, path, options(toy_model))
    repair(night, *range(30, 36), 57)
    score(night, undisturbed, options(toy_model, retry_failed=True))
    before = out.read_bytes()

    left = batches

    def stop(progress):
        nonlocal left
        left -= 1
        if left == 0:
            raise Stop

    with pytest.raises(Stop):
        score(night, out, options(toy_model, retry_failed=True), on_progress=stop)
    assert out.read_bytes() == before
    score(night, out, options(toy_model, retry_failed=True))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_row_of_an_unreadable_folder_is_replaced_by_the_rows_of_its_images(nobody, toy_model):
    root, out = nobody.folder / "night", nobody.folder / "out" / "p.parquet"
    for name in ("a/1.jpg", "b/2.jpg", "b/sub/3.jpg", "c/4.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(BLUE))
    (root / "b").chmod(0)
    out.parent.mkdir()
    out.parent.chmod(0o777)
    model = shutil.copy(toy_model, nobody.folder / "toy.onnx")
    with nobody:
        counts = score(root, out, options(model)).manifest.counts
    assert counts == Counts(listed=3, ok=2, failed=1, failed_by_code={"unreadable": 1})
    with pytest.raises(
        TooManyFailedError,
        match="1 of 3 rows are folders or archives that could not be read, so an unknown number of",
    ):
        FailureLimit.parse("50%").check(counts)
    (root / "b").chmod(0o755)
    score(root, out, options(model, retry_failed=True))
    assert pq.read_table(out)["image"].to_pylist() == ["a/1.jpg", "b/2.jpg", "b/sub/3.jpg", "c/4.jpg"]
    fresh = out.with_name("fresh.parquet")
    score(root, fresh, options(model))
    assert out.read_bytes() == fresh.read_bytes()


def test_an_output_of_other_options_is_rejected(tmp_path, night, toy_model):
    out = tmp_path / "p.parquet"
    score(night, out, options(toy_model))
    before = contents(tmp_path)
    other = write_toy_model(tmp_path / "other.onnx", toy_card().model_copy(update={"name": "other"}))
    copy = shutil.copytree(night, tmp_path / "copy")

    def refusal(root, **changes):
        with pytest.raises(UsageError) as caught:
            score(root, out, options(toy_model).model_copy(update={"retry_failed": True, **changes}))
        return str(caught.value).removeprefix(f"{out}: ")

    hint = ", so its good rows cannot be kept"
    assert refusal(night, top_k=2) == f"was made with top_k = 3, not 2{hint}"
    assert refusal(night, batch_size=8) == f"was made with batch_size = 4, not 8{hint}"
    assert refusal(copy) == f"was made with images = {night}, not {copy}{hint}"
    shas = [hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in (toy_model, other)]
    other_model = f"was made with model = toy (sha256 {shas[0]}), not other (sha256 {shas[1]}){hint}"
    assert refusal(night, model=other) == other_model
    assert "give one of the two" in refusal(night, overwrite=True)
    shutil.rmtree(copy)
    other.unlink()
    assert contents(tmp_path) == before


def test_files_without_predictions_are_rejected(tmp_path, night, toy_model):
    retry = options(toy_model, retry_failed=True)
    for name in ("p.parquet", "p"):
        with pytest.raises(UsageError, match="there are no predictions yet to retry"):
            score(night, tmp_path / name, retry)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        score(night, tmp_path / "p.parquet", retry)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match="has other columns than this version of batchland writes"):
        score(night, tmp_path / "p.parquet", retry)


def test_add_missing_needs_a_local_folder(tmp_path, toy_model, colour_folders):
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{path}\n" for path in sorted(colour_folders.rglob("*.jpg"))))
    score(None, tmp_path / "out", options(toy_model, image_list=str(listing)))
    with pytest.raises(UsageError, match=r": add_missing needs a local folder of images$"):
        score(None, tmp_path / "out", options(toy_model, image_list=str(listing), add_missing=True))


def test_add_missing_keeps_rows_and_scores_a_folder_that_can_be_listed_again(
    tmp_path, toy_model, colour_folders, monkeypatch
):
    """An unreadable folder has one row until it can be listed; then its images have theirs."""
    out, real, blocked = tmp_path / "out", os.scandir, {True}

    def scandir(path):
        if blocked and isinstance(path, bytes) and path.endswith(b"01.Green_Hill"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    score(colour_folders, out, options(toy_model))
    red, blue = ([f"{folder}/{number}.jpg" for number in range(3)] for folder in ("00.Red_Tower", "02.Blue_Lake"))
    assert pq.read_table(out)["image"].to_pylist() == [*red, "01.Green_Hill/", *blue]
    again = score(colour_folders, out, options(toy_model, add_missing=True)).manifest
    assert (again.counts.listed, again.kept_images) == (7, 7)  # still unreadable
    blocked.clear()
    whole = score(colour_folders, out, options(toy_model, add_missing=True)).manifest
    assert (whole.counts.listed, whole.counts.failed, whole.kept_images) == (9, 0, 6)
    score(colour_folders, tmp_path / "fresh", options(toy_model))
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "fresh"))


def test_rows_of_an_earlier_version_are_kept_without_its_missing_columns(tmp_path, night, toy_model):
    out = tmp_path / "p.parquet"
    score(night, out, options(toy_model))
    old = pq.read_table(out).select(FIRST_COLUMNS)
    pq.write_table(old, out)
    repair(night, 7)
    assert score(night, out, options(toy_model, retry_failed=True)).manifest.kept_images == 48
    table = pq.read_table(out)
    assert table.column_names == PREDICTIONS.names
    rows = table.to_pylist()
    scored_now = [row["image"] == "camera-0/007.jpg" or row["status"] == "failed" for row in rows]
    assert [row["sha256"] is not None for row in rows] == scored_now


def write_container(path: Path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        path.write_bytes(zip_of(members))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"image": list(members.values())}), path)
    else:
        path.write_bytes(tar_of(members, compression="gz" if path.suffix == ".gz" else ""))
    random_access.open_files.close()


@pytest.mark.parametrize("name", ["n.tar", "n.tar.gz", "n.zip", "n.parquet"])
def test_rows_are_not_kept_if_their_container_was_replaced(tmp_path, toy_model, name):
    """Rows of the old file beside rows of a new one would be a wrong answer; a repaired file is the remedy."""
    path, out = tmp_path / name, tmp_path / "p.parquet"
    red, green, blue = map(picture, (RED, GREEN, BLUE))
    write_container(path, {"a.jpg": red, "b.jpg": b"no picture", "c.jpg": red})
    first = score(path, out, options(toy_model)).manifest
    before = out.read_bytes()
    for other in ({"a.jpg": blue, "b.jpg": green, "c.jpg": red}, {"a.jpg": red, "b.jpg": green, "c.jpg": blue}):
        write_container(path, other)
        message = rf"p\.parquet: {name} was replaced, so the rows of its images cannot be kept; {name}.*: there is"
        with pytest.raises(UsageError, match=message):
            score(path, out, options(toy_model, retry_failed=True))
        assert out.read_bytes() == before
    write_container(path, {"a.jpg": red, "b.jpg": green, "c.jpg": red})
    again = score(path, out, options(toy_model, retry_failed=True)).manifest
    assert (first.counts.failed, again.counts.failed, again.kept_images) == (1, 0, 2)


def test_images_of_a_gzip_file_with_a_wrong_checksum_are_compared_by_content(tmp_path, toy_model):
    """gzip does not say which image is damaged, and headers and sizes are the same in the intact file."""
    path, out = tmp_path / "n.tar.gz", tmp_path / "p.parquet"
    damaged, intact = picture(RED, kind="BMP"), picture(BLUE, kind="BMP")
    assert len(damaged) == len(intact)
    data = bytearray(tar_of({"a.bmp": damaged, "b.bmp": intact}, compression="gz"))
    data[-8] ^= 1
    path.write_bytes(data)
    assert score(path, out, options(toy_model)).manifest.counts.failed_by_code == {"unreadable": 1}
    write_container(path, {"a.bmp": intact, "b.bmp": intact})
    with pytest.raises(UsageError, match=r"n\.tar\.gz was replaced"):
        score(path, out, options(toy_model, retry_failed=True))
    write_container(path, {"a.bmp": damaged, "b.bmp": intact})
    again = score(path, out, options(toy_model, retry_failed=True)).manifest
    assert (again.counts.listed, again.counts.failed, again.kept_images) == (2, 0, 2)

"""Partitions: manifest, predictions per class, images that are already scored."""

import os

import pytest
from toys import COLOURS, picture

from batchland import ScoreOptions, score
from batchland.errors import UsageError
from batchland.images.sources.folder import list_images
from batchland.nightly.known_images import KnownImages
from batchland.nightly.partitions import has_unfinished_parts, other_partitions, prediction_mix
from batchland.nightly.run_record import PredictionMix
from batchland.predictions.reader import read_manifest


@pytest.fixture
def scored(tmp_path, toy_model, colour_folders):
    """A partition of the labelled set, with one truncated image."""
    (colour_folders / "00.Red_Tower" / "bad.jpg").write_bytes(picture()[:200])
    partition = tmp_path / "out" / "date=2024-11-22"
    score(colour_folders, partition, ScoreOptions(model=toy_model, batch_size=2, part_size=4))
    return partition


def known(scored, root):
    images = KnownImages([scored], root)
    return [ref.name for ref in list_images(root) if ref in images]


def test_manifest_counts_and_siblings(scored):
    assert read_manifest(scored).counts.listed == 10
    assert read_manifest(scored.with_name("date=2024-11-23")) is None
    assert (has_unfinished_parts(scored), other_partitions(scored)) == (False, [])
    assert other_partitions(scored.with_name("date=2024-11-23")) == [scored]
    bins = [0] * 20
    bins[-1] = 9
    softmax = 1 / (1 + 2 * 2.718281828 ** -(10 * 254 / 255))  # JPEG stores the pure red as 254 of 255
    expected = PredictionMix(
        classes={"Red Tower": 3, "Green Hill": 3, "Blue Lake": 3}, confidence_histogram=bins, mean_confidence=softmax
    )
    found = prediction_mix(scored)
    assert found.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-5)
    assert found.model_copy(update={"mean_confidence": softmax}) == expected


def test_confidence_counts_at_the_upper_end_of_its_bin(tmp_path, toy_model):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "grey.png").write_bytes(picture((90, 90, 90), kind="PNG"))  # each class has probability 1/3
    score(tmp_path / "in", tmp_path / "date=2024-11-22", ScoreOptions(model=toy_model))
    histogram = prediction_mix(tmp_path / "date=2024-11-22").confidence_histogram
    assert [index for index, count in enumerate(histogram) if count] == [6]


def test_images_are_known_until_they_change(scored, colour_folders):
    everything = [ref.name for ref in list_images(colour_folders)]
    assert known(scored, colour_folders) == everything
    changed = colour_folders / "00.Red_Tower" / "0.jpg"
    before = changed.stat()
    changed.write_bytes(picture((250, 0, 0)))
    os.utime(colour_folders / "01.Green_Hill" / "1.jpg", (0, 0))
    (colour_folders / "02.Blue_Lake" / "new.jpg").write_bytes(picture(COLOURS["02.Blue_Lake"]))
    others = [name for name in everything if name not in ("00.Red_Tower/0.jpg", "01.Green_Hill/1.jpg")]
    assert known(scored, colour_folders) == others
    changed.write_bytes(picture())
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "00.Red_Tower/0.jpg" in known(scored, colour_folders)


def test_the_same_name_below_another_folder_is_another_image(scored, colour_folders):
    moved = colour_folders.rename(colour_folders.with_name("elsewhere"))
    assert known(scored, moved) == []


def test_an_unreadable_image_is_not_known(tmp_path, toy_model):
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.jpg").write_bytes(picture())
    (root / "b.jpg").write_bytes(picture())
    partition = tmp_path / "date=2024-11-22"

    def vanish(ref):
        """Remove b.jpg after it is listed and before it is read."""
        if ref.name == "b.jpg":
            os.unlink(ref.path)
        return False

    score(root, partition, ScoreOptions(model=toy_model), skip=vanish)
    assert read_manifest(partition).counts.failed_by_code == {"vanished": 1}
    (root / "b.jpg").write_bytes(picture())
    assert known(partition, root) == ["a.jpg"]


def test_a_damaged_partition_is_named(scored, colour_folders):
    (scored / "part-000001.parquet").write_text("x")
    with pytest.raises(UsageError, match=r"date=2024-11-22/part-000001\.parquet: cannot be read as Parquet \("):
        KnownImages([scored], colour_folders)
    (scored / "_manifest.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        read_manifest(scored)
    assert str(caught.value) == (
        f"{scored}/_manifest.json: not a manifest that this version of batchland can read; restore it, or delete "
        "these predictions and score again"
    )

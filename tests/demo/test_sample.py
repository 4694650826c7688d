"""The sample data set: reproducible from its seed, with all image formats, and an incoming folder with broken files."""

import hashlib
from collections import Counter
from io import BytesIO

import pytest
from commands import batchland
from PIL import Image

from batchland.demo.landmarks import LANDMARKS
from batchland.demo.sample import BROKEN_FILES, draw_sample
from batchland.errors import ImageError, UsageError
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import Ignored, read_image

SPEC = PreprocessSpec(height=32, width=32)


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_summary_counts_the_files(sample):
    assert sample.training_images == sum(1 for _ in list_images(sample.train)) == 70
    assert sample.test_images == sum(1 for _ in list_images(sample.test)) == 40
    assert sample.incoming_files == sum(1 for _ in list_images(sample.incoming)) == 25
    assert sample.broken_files == 3


def test_classes_are_numbered_folders_of_unequal_size(sample):
    assert sample.classes == tuple(f"{number:02}.{name}" for number, name in enumerate(LANDMARKS))
    for part in (sample.train, sample.test):
        assert sorted(path.name for path in part.iterdir()) == list(sample.classes)
    sizes = Counter(ref.name.split("/")[0] for ref in list_images(sample.train))
    assert min(sizes.values()) >= 4
    assert max(sizes.values()) > 1.5 * min(sizes.values())


def test_a_seed_always_draws_the_same_files_even_into_an_empty_folder(sample, small_sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert batchland("sample", "empty", "--images", "110").stdout == (
        "empty: 70 training and 40 test pictures of 10 classes; incoming/ has 25 files, 3 of them broken\n"
    )
    assert contents(tmp_path / "empty") == contents(sample.root)
    assert not set(contents(small_sample.train).values()) & set(contents(sample.train).values())


def test_pictures_have_every_format_mode_and_orientation(sample):
    kinds, orientations, sizes = set(), set(), set()
    for ref in list_images(sample.train):
        with Image.open(BytesIO(read_image(ref).data)) as image:
            kinds.add((image.format, image.mode))
            orientations.add(image.getexif().get(0x0112, 1))
            sizes.add(image.size)
    wanted = {("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"),
              ("WEBP", "RGB")}  # fmt: skip
    assert wanted <= kinds
    assert {1, 3, 6, 8} <= orientations
    assert len(sizes) > 50


def test_only_the_broken_files_of_the_delivery_fail(sample):
    ignored = Ignored()
    failed = {}
    for ref in list_images(sample.incoming, ignored=ignored):
        try:
            preprocess(read_image(ref).data, SPEC)
        except ImageError as error:
            failed[ref.name] = error.code
    assert failed == BROKEN_FILES
    assert ignored.counts == {".txt": 1}


def test_a_full_folder_is_refused(sample):
    with pytest.raises(UsageError, match="exists and is not an empty folder"):
        draw_sample(sample.root)


def test_too_few_images_and_a_negative_seed_are_refused(tmp_path):
    with pytest.raises(UsageError, match="give at least 80"):
        draw_sample(tmp_path / "few", images=79)
    with pytest.raises(UsageError, match="seed = -1: give 0 or more"):
        draw_sample(tmp_path / "seed", seed=-1)
    assert list(tmp_path.iterdir()) == []

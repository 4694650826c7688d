"""Cache of decoded pixels: reuse, keys, eviction."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from toys import picture

from batchland.errors import OutputError, UsageError
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.training import pixel_cache
from batchland.training.dataset import load_data
from batchland.training.pixel_cache import CachedPixels, PixelCache, default_folder

SPEC = PreprocessSpec(height=16, width=16)
IMAGES = 6 * 16 * 16 * 3
"""Bytes of the pixels of one set."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, name in enumerate(("a", "b")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for each in range(3):
            (tmp_path / "data" / name / f"{each}.jpg").write_bytes(picture((80 * each, 90 * number, 7), (20, 30)))
    return tmp_path / "data"


def cached(data: Path, cache: PixelCache, spec: PreprocessSpec = SPEC) -> CachedPixels:
    return load_data(data, spec, cache=cache).training.cached


def entries(cache: PixelCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.is_dir())


def test_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PixelCache(tmp_path / "cache")
    first = cached(data, cache)
    scored = [preprocess(path.read_bytes(), SPEC) for path in sorted(data.rglob("*.jpg"))]
    assert np.array_equal(first.array, scored)

    def forbidden(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixel_cache, "preprocess", forbidden)
    assert np.array_equal(cached(data, cache).array, scored)
    assert np.array_equal(pickle.loads(pickle.dumps(first)).array, scored)


def test_content_name_and_preprocessing_are_part_of_the_key(data: Path, tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "cache")
    seen = [cached(data, cache).folder, cached(data, cache, SPEC.model_copy(update={"filter": "bicubic"})).folder]
    image = data / "a" / "0.jpg"
    before = image.stat()
    image.write_bytes(picture((1, 2, 3), (20, 30)).ljust(before.st_size, b"\0"))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # a change that only the content shows
    changed = cached(data, cache)
    assert changed.array[0].max() < 8
    image.rename(image.with_name("00.jpg"))
    seen += [changed.folder, cached(data, cache).folder]
    assert entries(cache) == sorted(path.name for path in seen)
    assert len(set(seen)) == 4


def test_failures_are_cached(data: Path, tmp_path: Path) -> None:
    (data / "b" / "1.jpg").write_text("no picture")
    cache = PixelCache(tmp_path / "cache")
    for _ in range(2):
        loaded = load_data(data, SPEC, cache=cache)
        assert loaded.training.cached.failures == {
            4: ("not_an_image", "the content is not that of an image file"),
        }
        assert [each.name for each in loaded.skipped] == ["b/1.jpg"]


def test_least_recently_used_entries_are_evicted_unless_in_use(data: Path, tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "cache", limit=2 * IMAGES + 500)
    specs = [SPEC.model_copy(update={"max_pixels": number}) for number in (1000, 2000, 3000)]
    first, second = (cached(data, cache, spec).folder for spec in specs[:2])
    os.utime(second, (1, 1))  # used long before the first one
    third = cached(data, cache, specs[2])
    assert entries(cache) == sorted([first.name, third.folder.name])
    os.utime(third.folder, (1, 1))
    again = cached(data, cache, specs[1])
    assert entries(cache) == sorted([third.folder.name, again.folder.name])
    assert third.array.shape == (6, 16, 16, 3)


def test_unfinished_entry_of_a_killed_run_is_removed(data: Path, tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "cache")
    (cache.folder / ".half").mkdir(parents=True)
    (cache.folder / ".half" / "pixels.npy").write_bytes(b"half")
    assert entries(cache) == [".half"]
    entry = cached(data, cache).folder
    assert entries(cache) == [entry.name]


def test_pixels_beyond_the_limit_are_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_data(data, PreprocessSpec(height=1000, width=1000), cache=PixelCache(tmp_path / "cache", limit=10**7))
    assert str(caught.value) == (
        f"the decoded images take 0.02 GB in the pixel cache {tmp_path}/cache, more than its limit of 0.01 GB"
    )
    assert entries(PixelCache(tmp_path / "cache")) == []


def test_unwritable_cache_is_an_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        load_data(data, SPEC, cache=PixelCache(tmp_path / "file"))
    assert str(caught.value) == (f"{tmp_path}/file: the pixel cache cannot be written (File exists)")


def test_default_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/batchland/pixels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_folder() == Path("/home/ann/.cache/batchland/pixels")

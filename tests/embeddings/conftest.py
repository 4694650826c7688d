"""Predictions of a few photos, some of them copies."""

from pathlib import Path

import numpy as np
import pytest
from photo_like import as_jpeg, photo
from toys import options, write_toy_model

from batchland import score


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `one` with 6 photos, and `two` with 5: a smaller copy, a mirrored one, the same file, two others."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(11)
    pictures = [photo(rng, 160) for _ in range(8)]
    write(folder / "one", {f"{number}.jpg": pixels for number, pixels in enumerate(pictures[:6])})
    two = {"small.jpg": pictures[1][::2, ::2], "turned.jpg": pictures[2][:, ::-1], "same.jpg": pictures[3]}
    write(folder / "two", {**two, "6.jpg": pictures[6], "7.jpg": pictures[7]})
    (folder / "two" / "broken.jpg").write_text("no photo")
    return folder


def write(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, pixels in pictures.items():
        (folder / name).write_bytes(as_jpeg(pixels))


@pytest.fixture(scope="session")
def scored(photos: Path) -> Path:
    """The folder with one.parquet and two.parquet, scored by toy.onnx."""
    folder = photos.parent / "scored"
    folder.mkdir(exist_ok=True)
    model = write_toy_model(folder / "toy.onnx")
    for name in ("one", "two"):
        score(photos / name, folder / f"{name}.parquet", options(model, overwrite=True))
    return folder

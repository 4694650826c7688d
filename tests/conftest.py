"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
from toys import COLOURS, picture, write_toy_model


@pytest.fixture
def toy_model(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "toy.onnx")


@pytest.fixture
def colour_folders(tmp_path: Path) -> Path:
    """A labelled set: per class folder three pictures of its colour."""
    root = tmp_path / "labelled"
    for folder, colour in COLOURS.items():
        (root / folder).mkdir(parents=True)
        for number in range(3):
            (root / folder / f"{number}.jpg").write_bytes(picture(colour))
    return root

"""Fixtures that several test modules share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import COLOURS, picture, write_toy_model

import batchland.retries
from batchland import source


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchland.retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(source, "_retries", batchland.retries.Retries())


class Nobody:
    """Context in which this process may not read what it has no permission for, even as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        if os.getuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *exc: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield Nobody(folder)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty images in folders, of colours that say their labels, some of them broken."""
    root = tmp_path / "photos"
    for number in range(60):
        folder = root / f"camera-{number // 20}"
        folder.mkdir(parents=True, exist_ok=True)
        data = picture(list(COLOURS.values())[number % 3])
        if number % 10 == 7:
            data = data[: len(data) // 2]
        (folder / f"{number:03}.jpg").write_bytes(data)
    return root

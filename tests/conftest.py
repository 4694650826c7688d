"""Fixtures that several test modules share."""

import os

# Several workers share the cores. With more threads, OpenBLAS waits busily after each product of matrices: 20 times the
# CPU seconds. Before numpy and torch are imported.
os.environ["OMP_NUM_THREADS"] = "1"

import gc
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from s3_server import _paused_s3_server, bucket, own_s3_server, s3_server
from toys import COLOURS, picture, write_photos, write_toy_model
from trained_models import colour_photos, exported, fp16, trained, written

from batchland.images.sources import refs
from batchland.system.cores import usable_cores
from batchland.training import openmp as openmp  # before a test imports torch

__all__ = [  # fixtures of other modules
    "_paused_s3_server", "bucket", "colour_photos", "exported", "fp16", "own_s3_server", "s3_server", "trained",
    "written",
]  # fmt: skip


# Not in the working directory, as by default.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{tempfile.gettempdir()}/hypothesis-{os.getuid()}")


gc.set_threshold(10_000)  # as in the command: each worker imports thousands of modules


def pytest_collection_finish() -> None:
    """Python need not look for garbage among what was imported and collected."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At the end Python must find it, or extensions print that their objects are left."""
    gc.unfreeze()


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores, because tests often wait: for servers, other processes and timeouts."""
    return usable_cores() + 1


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes do not name a test: they may hold the time, and every worker must find the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test of this process survives a power cut, so none needs to wait until its files are on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_curves_of_training() -> Iterator[None]:
    """Matplotlib takes a second to draw them, most of a small training; test_metrics.py draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchland.training.metrics.draw_curves", lambda reports, file: None)
        yield


@pytest.fixture(autouse=True)
def _short_waits() -> None:
    refs.retries.reset(first_wait=0.001)


class Unprivileged:
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
def nobody() -> Iterator["Unprivileged"]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield Unprivileged(folder)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pixels and notes of runs go to a temporary folder, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


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
def web_server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that it was asked for.

    It does not know those with `missing` in them; it redirects those with `moved` to a page.
    """
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            moved = "moved" in self.path
            self.send_response(404 if "missing" in self.path else 302 if moved else 200)
            if moved:
                self.send_header("Location", "/page")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", heard
        running.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")

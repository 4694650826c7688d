"""Fixtures that several test modules share."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture
def web_server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that it was asked for; those with `missing` in them it does not know."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", heard
        running.shutdown()

"""Thumbnails as data URIs, within a limit of bytes."""

import base64
import os
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec, decode
from batchland.system.names import file_name

QUALITY = 72
"""JPEG quality, 0 to 95."""


class Thumbnail(NamedTuple):
    """A picture for the page, or why there is none."""

    uri: str | None
    width: int = 0
    height: int = 0
    missing: str = ""


class Thumbnails:
    """Makes thumbnails of the images below `root` until their data URIs reach `budget` bytes.

    Leaves out files that have another size than when they were scored, and files outside `root`, because readers of the
    page might not be allowed to see them.
    """

    def __init__(self, root: Path, side: int, budget: int) -> None:
        self._root = root
        self._side = side
        self.left = budget
        """Bytes that are still free."""

    def make(self, name: str, file_size: int | None) -> Thumbnail:
        """The thumbnail of one image."""
        if name.startswith("/") or ".." in name.split("/"):
            return Thumbnail(None, missing="outside the scored folder")
        if self.left <= 0:
            return Thumbnail(None, missing="left out to keep the page small")
        try:
            data = (self._root / os.fsdecode(file_name(name))).read_bytes()
            if file_size is not None and len(data) != file_size:
                return Thumbnail(None, missing="changed after scoring")
            jpeg, size = small_jpeg(data, self._side)
        except OSError:
            return Thumbnail(None, missing="no longer there")
        except ImageError as error:
            return Thumbnail(None, missing=error.code)
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        if len(uri) > self.left:
            self.left = 0
            return Thumbnail(None, missing="left out to keep the page small")
        self.left -= len(uri)
        return Thumbnail(uri, *size)


def small_jpeg(data: bytes, side: int) -> tuple[bytes, tuple[int, int]]:
    """An image file as a JPEG of at most `side` pixels a side, with its width and height. Raises ImageError."""
    image = Image.fromarray(decode(data, PreprocessSpec(height=side, width=side, jpeg_scale="auto")).pixels)
    image.thumbnail((side, side))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue(), image.size

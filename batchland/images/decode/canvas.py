"""Memory for pictures that a thread decodes and resizes one after the other.

Each thread keeps a few canvases by size. So most pictures need no new memory, no new view of it and no new object of
Pillow: each of these holds the GIL for some microseconds.
"""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_MAX_BYTES: Final = 4 << 20
"""A larger canvas is not kept: the time for a new one is small beside that for the picture."""
_MAX_KEPT: Final = 8
"""Canvases that each thread keeps."""

_Key = tuple[str, int, int]


@dataclass(eq=False)
class Canvas:
    """Memory of one picture in several forms."""

    pixels: Pixels
    """uint8 [H, W, 4]. The fourth channel is not used."""
    colours: Pixels = field(init=False)
    """RGB uint8 [H, W, 3]: the first three channels of `pixels`."""

    def __post_init__(self) -> None:
        self.colours = self.pixels[..., :3]

    @cached_property
    def image(self) -> Image.Image:
        """In mode CMYK, because cykooz-resizer would weight RGBA by its fourth channel."""
        height, width = self.pixels.shape[:2]
        return Image.frombuffer("CMYK", (width, height), self.pixels, "raw", "CMYK", 0, 1)

    @cached_property
    def wrapped(self) -> Any:
        """The image for cykooz-resizer."""
        from cykooz_resizer.rust_lib import PilImageWrapper

        return PilImageWrapper(self.image)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.canvases: dict[_Key, Canvas] = {}


_thread: Final = _Thread()


def own_canvas(use: str, height: int, width: int) -> Canvas:
    """This thread's canvas for a use and a size. Its content is valid until the next call with both."""
    if 4 * height * width > _MAX_BYTES:
        return _new_canvas(height, width)
    kept = _thread.canvases
    key = (use, height, width)
    canvas = kept.get(key)
    if canvas is None:
        if len(kept) >= _MAX_KEPT:
            del kept[next(iter(kept))]
        canvas = kept[key] = _new_canvas(height, width)
    return canvas


def _new_canvas(height: int, width: int) -> Canvas:
    return Canvas(np.empty((height, width, 4), np.uint8))


def picture_canvas(pixels: Pixels) -> Canvas | None:
    """The canvas of this thread that has `pixels` as its `colours`; None if there is none."""
    canvas = _thread.canvases.get(("picture", *pixels.shape[:2]))
    return canvas if canvas is not None and canvas.colours is pixels else None

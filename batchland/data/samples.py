"""Draw some photos of each class on a contact sheet, with one row per class."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from batchland.images.preprocess import Pixels
from batchland.system.files import Replaceable, check_new_file
from batchland.system.text import one_line

_TILE: Final = 96
_GAP: Final = 6
_LABEL_WIDTH: Final = 200
_LINE: Final = 26
"""Characters of a line of a label."""
_FONT_SIZE: Final = 14
_INK: Final = "#1f2328"
_PAPER: Final = "white"
_SOFTWARE: Final = "batchland data check"
"""Text in the PNG file, by which an earlier sheet is recognised."""


class ClassSamples(NamedTuple):
    """A class and some of its photos, uint8 [height, width, 3] each."""

    label: str
    photos: list[Pixels]


def contact_sheet(classes: Sequence[ClassSamples]) -> Image.Image:
    """A row for each class: its label, then its photos as a model sees them (resized to one size)."""
    most = max((len(one.photos) for one in classes), default=0)
    width = _LABEL_WIDTH + most * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(classes) * (_TILE + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for row, one in enumerate(classes):
        top = _GAP + row * (_TILE + _GAP)
        lines = textwrap.wrap(one_line(one.label, 100), _LINE, break_long_words=False)
        for line, text in enumerate(lines[: _TILE // (_FONT_SIZE + 4)]):
            draw.text((_GAP, top + line * (_FONT_SIZE + 4)), text, _INK, font)
        for column, pixels in enumerate(one.photos):
            tile = Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (_LABEL_WIDTH + column * (_TILE + _GAP), top))
    return sheet


def check_new_sheet(path: Path) -> None:
    """Raise UsageError unless a sheet can become the file `path`, which replaces only an earlier sheet."""
    check_new_file(path, ".png", replaces=Replaceable("an earlier sheet of samples", _is_sheet))


def save_sheet(sheet: Image.Image, file: BinaryIO) -> None:
    """Write a sheet as PNG."""
    text = PngInfo()
    text.add_text("Software", _SOFTWARE)
    sheet.save(file, "PNG", pnginfo=text)


def _is_sheet(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except OSError:
        return False

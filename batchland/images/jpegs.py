"""JPEGs that stay encoded until a GPU decodes them: which may, and whether they are whole. Knows nothing of GPUs.

Wherever there is any doubt, the CPU decodes: it knows all kinds, and it says what is wrong with a file.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final, NamedTuple

from PIL import Image

from batchland.images.preprocess import Pixels, PreprocessSpec, check_claims, decode_jpeg, orientation_of

_START: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"
_RGB: Final = (82, 71, 66)
"""Names of the components, R, G and B in ASCII, by which libjpeg tells that they are no luminance and chrominances."""
_LONGEST: Final = 8
"""Times the shorter side that the longer one may be: a GPU resizes a strip as a whole, however little is cut out."""
_SMALLEST: Final = 8
"""Divisor of the sides at which libjpeg decodes all of the data, but computes next to no pixels."""


class Encoded(NamedTuple):
    """A JPEG that has not been decoded."""

    data: bytes
    width: int
    height: int
    """Pixels, as stored: before the orientation is applied."""
    orientation: int
    """EXIF's, 1 to 8."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class JpegRows(NamedTuple):
    """Rows of a batch whose pixels are not there yet."""

    encoded: Mapping[int, Encoded]
    """By row."""
    decode_here: Callable[[int], Pixels | None]
    """Gives a row's pixels, uint8 [height, width, 3], where the GPU's decoder gives none; None if it fails as well."""

    def between(self, start: int, stop: int) -> "JpegRows":
        """Those of rows `start` to `stop`, counted from there."""
        part = {row - start: jpeg for row, jpeg in self.encoded.items() if start <= row < stop}
        return JpegRows(part, lambda row: self.decode_here(start + row))


NO_JPEGS: Final = JpegRows({}, lambda _: None)


def left_encoded(data: bytes, spec: PreprocessSpec, *, checked: bool) -> Encoded | None:
    """A JPEG that a GPU may decode; None for what the CPU has to.

    checked: read all of its data as well, for a decoder that takes damaged files for good ones. That costs about a
    quarter of what decoding costs on the CPU (benchmarks/results/jpegs.md).
    """
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            check_claims(image, data, spec)
            if image.format != "JPEG" or not _has_usual_colours(image):  # MPO holds several pictures
                return None
            if max(width, height) > _LONGEST * min(width, height):
                return None
            if checked and decode_jpeg(data, width, height, _SMALLEST) is None:
                return None
            return Encoded(data, width, height, orientation_of(image))
    except Exception:  # as in preprocess.decode, which will say it
        return None


def _has_usual_colours(image: Image.Image) -> bool:
    """Grey, or luminance and two chrominances."""
    if image.mode != "RGB":
        return image.mode == "L"
    components = tuple(component[0] for component in image.layer)  # type: ignore[attr-defined]
    return image.info.get("adobe_transform") != 0 and components != _RGB

"""JPEGs that stay encoded until a GPU decodes them: which ones may, and whether they are complete.

In any doubt the CPU decodes: it reads all kinds, and reports what is wrong with a file.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final, NamedTuple

from PIL import Image

from batchland.images.preprocess import Pixels, PreprocessSpec, check_claims, decode_jpeg, orientation_of

_START: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"
_RGB: Final = (82, 71, 66)
"""Component ids, R, G and B in ASCII, by which libjpeg recognises components that are not YCbCr."""
_MAX_ASPECT: Final = 8
"""Longest allowed side in shorter sides: a GPU resizes a long strip as a whole, even if little of it is used."""
_CHECK_DIVISOR: Final = 8
"""Divisor of the sides at which libjpeg reads all data, but computes few pixels."""


class Encoded(NamedTuple):
    """A JPEG that is not decoded yet."""

    data: bytes
    width: int
    height: int
    """Pixels as stored, before the orientation is applied."""
    orientation: int
    """EXIF orientation, 1 to 8."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class JpegRows(NamedTuple):
    """Rows of a batch that are not decoded yet."""

    encoded: Mapping[int, Encoded]
    """JPEGs by row."""
    decode_on_cpu: Callable[[int], Pixels | None]
    """Decodes a row, uint8 [height, width, 3], if the GPU's decoder fails; gives None if that fails, too."""

    def between(self, start: int, stop: int) -> "JpegRows":
        """Rows `start` to `stop`, renumbered from 0."""
        part = {row - start: jpeg for row, jpeg in self.encoded.items() if start <= row < stop}
        return JpegRows(part, lambda row: self.decode_on_cpu(start + row))


NO_JPEGS: Final = JpegRows({}, lambda _: None)


def keep_encoded(data: bytes, spec: PreprocessSpec, *, checked: bool) -> Encoded | None:
    """The JPEG, if a GPU may decode it; None if the CPU has to.

    checked: also check all of its data, for a GPU decoder that does not detect damage. That takes about a quarter of
    the time of decoding on the CPU (benchmarks/results/jpegs.md).
    """
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            check_claims(image, data, spec)
            if image.format != "JPEG" or not _has_usual_colours(image):  # MPO holds several pictures
                return None
            if max(width, height) > _MAX_ASPECT * min(width, height):
                return None
            if checked and decode_jpeg(data, width, height, _CHECK_DIVISOR) is None:
                return None
            return Encoded(data, width, height, orientation_of(image))
    except Exception:  # preprocess.decode reports it
        return None


def _has_usual_colours(image: Image.Image) -> bool:
    """Grey, or luminance and two chrominances."""
    if image.mode != "RGB":
        return image.mode == "L"
    components = tuple(component[0] for component in image.layer)  # type: ignore[attr-defined]
    return image.info.get("adobe_transform") != 0 and components != _RGB

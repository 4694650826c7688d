"""Choose and check JPEGs that stay encoded until a GPU decodes them.

In case of doubt the CPU decodes: it reads all kinds, and reports the errors of a file.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from batchland.errors import ImageError
from batchland.images.decode.colour import check_profile, is_srgb
from batchland.images.decode.jpeg import JpegHeader, check_claims, decode_pixels, read_header
from batchland.images.decode.picture import Pixels
from batchland.images.preprocess import PreprocessSpec

_START: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"
_RGB_IDS: Final = b"RGB"
"""Component ids by which libjpeg recognises components that are not YCbCr."""
_MAX_ASPECT: Final = 8
"""Largest ratio of the sides: a GPU resizes a long strip as a whole, even if little of it is used."""
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
        header = read_header(data)
        check_claims(header, data, spec.max_pixels)
        check_profile(header.profile)
        if header.several_pictures or not _has_usual_pixels(header, spec):
            return None
        if checked:
            decode_pixels(data, header, _CHECK_DIVISOR)
    except (ImageError, ValueError):  # preprocess.decode reports it
        return None
    return Encoded(data, header.width, header.height, header.orientation)


def _has_usual_pixels(header: JpegHeader, spec: PreprocessSpec) -> bool:
    """Whether it is grey, or luminance and two chrominances, in a usual coding and shape, and needs no profile."""
    ids, width, height = header.component_ids, header.width, header.height
    return (
        (len(ids) == 1 or (len(ids) == 3 and ids != _RGB_IDS and header.adobe_transform in (None, 1)))
        and max(width, height) <= _MAX_ASPECT * min(width, height)
        and (spec.colour == "as_stored" or is_srgb(header.profile))
    )

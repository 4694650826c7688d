"""Decode JPEG files by libjpeg-turbo. A file with missing or damaged pixels is refused."""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.canvas import own_canvas
from batchland.images.decode.orientation import find_orientation
from batchland.images.decode.picture import Picture, Pixels, check_size, damage, rgb_pixels

_MAX_SEGMENTS: Final = 10_000
"""Largest number of segments of a picture. 100 MB of metadata takes fewer."""
_MAX_SCANS: Final = 100
"""Encoders write about ten scans of a progressive JPEG; a crafted file of a few kilobytes can hold thousands."""
_OPEN: Final = b"\xff"
"""For a coefficient of which no bit is known yet."""
_MAX_PADDING: Final = 64
"""Bytes. Up to this number of zeros before the end marker may be padding; more have replaced a part of the picture."""
_MAX_ZEROS: Final = 24
"""Bytes. More zeros within a scan have replaced a part of the picture. The longest run in 3,846 photos has 7, in 31,321
drawn and random pictures 12."""
_SOI, _EOI, _SOS, _DHT, _COM = 0xD8, 0xD9, 0xDA, 0xC4, 0xFE
_NOT_READ: Final = frozenset((_COM, 0xDB))
"""Comments and quantisation tables."""
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_FRAMES: Final = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC: Final = (0xC9, 0xCA, 0xCB)
"""Extended, progressive, lossless; all with arithmetic coding. libjpeg does not report missing data there: encoders may
leave out zeros at the end."""
_FRAMES_READ: Final = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, with Huffman coding."""
_PROGRESSIVE: Final = 0xC2
_HUFFMAN_SEQUENTIAL: Final = (0xC0, 0xC1)
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_SCAN: Final = re.compile(rb"\xff\xda")
_MARKER_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITHOUT_CONTENT: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_WITH_CONTENT: Final = frozenset(range(0xFFC0, 0xFFFF)) - {0xFF00 | marker for marker in (*_WITHOUT_CONTENT, _EOI)}
"""0xFF and a marker that is followed by a length."""
_unpack_segment: Final = struct.Struct(">HH").unpack_from
_HEADER_WARNINGS: Final = ("unknown JFIF revision number", "Unknown Adobe color transform code", "bad ICC marker")
"""Warnings of libjpeg about metadata. All others mean that pixels are missing or wrong."""
_LEFT_OVER: Final = re.compile("([0-9]+) extraneous bytes before marker 0xd9")


class JpegHeader(NamedTuple):
    """The content of the segments before the first scan."""

    width: int
    height: int
    """Pixels, as stored."""
    frame: int
    """Marker of the frame, 0xC0 to 0xCF: the kind of coding."""
    component_ids: bytes
    samplings: tuple[int, ...]
    """Sampling factors of each component: horizontal times 16 plus vertical."""
    adobe_transform: int | None
    """0: as stored, 1: YCbCr, 2: YCCK, of three components YCbCr as any other number; None without Adobe's segment."""
    jfif: bool
    exif: bytes | None
    icc: tuple[bytes, ...]
    """Numbered parts of the ICC profile."""
    several_pictures: bool
    """Whether the file holds further pictures behind the first."""
    huffman_tables: tuple[bytes, ...]
    """Content of the segments with Huffman tables."""
    first_scan: int
    """Byte position of the first scan's content."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""
        return find_orientation(self.exif)

    @property
    def profile(self) -> bytes | None:
        """ICC profile. None if a part is missing, and for CMYK, which is converted to RGB without a profile."""
        parts = sorted(self.icc)
        is_whole = bool(parts) and parts[0][1] == len(parts) and len(self.component_ids) != 4
        return b"".join(part[2:] for part in parts) if is_whole else None


def read_header(data: bytes) -> JpegHeader:
    """Read the segments before the first scan. Raises ImageError (`truncated`, `corrupt`)."""
    frame: tuple[int, bytes] | None = None
    facts: dict[str, Any] = {"adobe_transform": None, "jfif": False}
    exif: list[bytes] = []
    icc: list[bytes] = []
    huffman: list[bytes] = []
    several = gain_map = False
    for marker, begin, end in _segments(data, len(b"\xff\xd8")):
        if marker in _NOT_READ:
            continue
        if marker in (_SOS, _EOI):
            break
        content = data[begin:end]
        if marker in _FRAMES:
            if frame is not None:
                raise ImageError("corrupt", "its header gives more than one size")
            frame = marker, content
        elif marker == _DHT:
            huffman.append(content)
        elif marker == _APP0:
            facts["jfif"] |= content.startswith(b"JFIF\0") and len(content) >= 14
        elif marker == _APP1 and content.startswith(b"Exif\0\0"):
            exif.append(content[6:] if exif else content)
        elif marker == _APP1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            gain_map |= b' hdrgm:Version="' in content
        elif marker == _APP2 and content.startswith(b"ICC_PROFILE\0") and len(content) >= 14:
            icc.append(content[12:])
        elif marker == _APP2 and content.startswith(b"MPF\0"):
            several = True
        elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
            facts["adobe_transform"] = content[11]
    if marker == _EOI:
        raise ImageError("truncated", "the file ends before its picture")
    if frame is None:
        raise ImageError("corrupt", "its header has no picture")
    if end <= begin:
        raise ImageError("corrupt", "its header is damaged")
    return JpegHeader(
        **_frame_facts(*frame),
        **facts,
        exif=b"".join(exif) or None,
        icc=tuple(icc),
        several_pictures=several and not gain_map,
        huffman_tables=tuple(huffman),
        first_scan=begin,
    )


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of the content of each segment, up to the end marker. Raises ImageError."""
    pattern = _MARKER
    last = len(data) - 4
    for _ in range(_MAX_SEGMENTS):
        if position <= last and pattern is _MARKER:  # a pattern takes longer
            marker, length = _unpack_segment(data, position)
            if marker in _WITH_CONTENT:
                begin, position = position + 4, position + 2 + length
                if position > len(data):
                    break
                yield marker & 0xFF, begin, position
                if marker == 0xFFDA:
                    pattern = _MARKER_AFTER_SCAN
                continue
        found = pattern.search(data, position)
        if not found:
            break
        begin = found.end()
        marker = data[begin - 1]
        pattern = _MARKER
        if marker < _SOS and marker in _WITHOUT_CONTENT:
            position = begin
            continue
        if marker < 0xC0:
            raise ImageError("corrupt", f"it has an unknown marker {marker:#x}")
        if marker == _EOI:
            yield marker, begin, begin
            return
        position = begin + int.from_bytes(data[begin : begin + 2])
        if position > len(data) or begin + 2 > len(data):
            break
        yield marker, begin + 2, position
        if marker == _SOS:
            pattern = _MARKER_AFTER_SCAN
    else:
        raise ImageError("corrupt", f"more than {_MAX_SEGMENTS} segments, which no encoder writes")
    raise ImageError("truncated", "the file ends before its end marker")


@lru_cache(maxsize=64)
def _frame_facts(marker: int, content: bytes) -> Mapping[str, Any]:
    """Size and components of a frame. Raises ImageError for a kind that is not read."""
    if marker in _ARITHMETIC:
        raise ImageError("unsupported_format", "a JPEG with arithmetic coding, in which missing pixels go unnoticed")
    if marker not in _FRAMES_READ:
        raise ImageError("unsupported_format", f"a JPEG of a kind that is not read (frame type {marker:#x})")
    if len(content) < 6 or len(content) < 6 + 3 * content[5]:
        raise ImageError("corrupt", "its header is damaged")
    if content[0] != 8:
        raise ImageError("unsupported_format", f"a JPEG with {content[0]} bits per sample; only 8 are read")
    height, width, count = int.from_bytes(content[1:3]), int.from_bytes(content[3:5]), content[5]
    if height == 0:
        raise ImageError("unsupported_format", "a JPEG without a height in its header")
    if count not in (1, 3, 4):
        raise ImageError("unsupported_format", f"a JPEG with {count} components; only 1, 3 and 4 are read")
    components = content[6 : 6 + 3 * count]
    return {
        "width": width,
        "height": height,
        "frame": marker,
        "component_ids": components[::3],
        "samplings": tuple(components[1::3]),
    }


def check_claims(header: JpegHeader, data: bytes, max_pixels: int) -> None:
    """Refuse, by the headers alone, a file that would take too long or might be decoded wrongly.

    Raises ImageError (`too_many_pixels`, `unsupported_format`, `corrupt`, `truncated`).
    """
    check_size(header.width, header.height, max_pixels)
    if len(header.component_ids) == 4 and header.adobe_transform not in (0, 2):
        raise ImageError("unsupported_format", "a CMYK JPEG that does not say whether its colours are inverted")
    progressive = header.frame == _PROGRESSIVE
    if not progressive and data[header.first_scan] == len(header.component_ids):
        return  # one scan has all
    find_problem = _progressive_problem if progressive else _sequential_problem
    if find_problem(data, header.component_ids, _likely_scans(data, header.first_scan)):
        segments = _segments(data, len(b"\xff\xd8"))
        scans = (begin for marker, begin, _ in segments if marker == _SOS)
        if problem := find_problem(data, header.component_ids, scans):
            raise problem


def _likely_scans(data: bytes, first: int) -> Iterator[int]:
    """Where scans may begin. Fast, but misled by bytes in metadata that look like a scan or an end marker."""
    yield first
    end = data.find(b"\xff\xd9", first)
    for found in _SCAN.finditer(data, first, max(end, first)):
        yield found.end() + 2


def _sequential_problem(data: bytes, components: bytes, scans: Iterable[int]) -> ImageError | None:
    """Every component must be in a scan: libjpeg takes others as grey, without a warning."""
    found: set[int] = set()
    for begin in scans:
        if begin < len(data):
            found.update(data[begin + 1 : begin + 1 + 2 * data[begin] : 2])
    if found.issuperset(components):
        return None
    return ImageError("truncated", "scans of the JPEG are missing: the file ends before the last component")


def _progressive_problem(data: bytes, components: bytes, scans: Iterable[int]) -> ImageError | None:
    """Every scan must add the next bit to what earlier scans have left open, and the last ones must leave nothing open.

    libjpeg decodes the first scans alone, as a blurred picture, without a warning. Encoders always write all of them.
    """
    bits: dict[int, bytearray] = {}
    for number, begin in enumerate(scans):
        if number >= _MAX_SCANS:
            return ImageError("corrupt", f"more than {_MAX_SCANS} scans of a progressive JPEG, which no encoder writes")
        end = begin + 1 + 2 * data[begin] if begin < len(data) else begin
        if end + 3 > len(data):
            return ImageError("truncated", "the file ends within the header of a scan")
        first, last, shifts = data[end : end + 3]
        for component in data[begin + 1 : end : 2]:
            known = bits.setdefault(component, bytearray(_OPEN * 64))
            if known[first : last + 1].replace(_OPEN, b"\0") != bytes([shifts >> 4]) * (last + 1 - first):
                return ImageError(
                    "corrupt", "the scans of a progressive JPEG do not follow each other, as no encoder writes"
                )
            known[first : last + 1] = bytes([shifts & 15]) * (last + 1 - first)
    if all(component in bits and not any(bits[component]) for component in components):
        return None
    return ImageError("truncated", "the last scans of a progressive JPEG are missing")


def decode_jpeg(
    data: bytes,
    max_pixels: int,
    choose_divisor: Callable[[int, int], int],
    *,
    four_channels: bool = False,
    reuse: bool = False,
) -> Picture:
    """Decode a JPEG. Of several pictures in a file, the first counts.

    - choose_divisor: 1, 2, 4 or 8, by which the sides may be divided, for a width and height.
    - four_channels: store the pixels with a fourth channel, if that takes no further copy.
    - reuse: and in memory that this thread uses again for the next picture.

    Raises ImageError.
    """
    header = read_header(data)
    check_claims(header, data, max_pixels)
    divisor = choose_divisor(header.width, header.height)
    pixels = decode_pixels(data, header, divisor, four_channels=four_channels, reuse=reuse)
    return Picture(pixels, header.width, header.height, header.orientation, header.profile)


def decode_pixels(
    data: bytes, header: JpegHeader, divisor: int, *, four_channels: bool = False, reuse: bool = False
) -> Pixels:
    """RGB uint8 of a JPEG with a checked header, with sides divided by 1, 2, 4 or 8. Raises ImageError.

    four_channels, reuse: as for `decode_jpeg`.
    """
    if len(header.component_ids) == 4:
        inks = decode_samples(data, header)
        np.invert(inks, out=inks)  # Adobe's are the other way round
        return rgb_pixels(Image.frombuffer("CMYK", (header.width, header.height), inks, "raw", "CMYK", 0, 1))
    _check_zeros(data, header)
    height, width = -(-header.height // divisor), -(-header.width // divisor)
    options = {"min_factor": divisor, "min_height": height, "min_width": width}
    if not (four_channels and reuse):
        return _decode_strictly(data, header, colorspace="RGBX" if four_channels else "RGB", **options)[..., :3]
    canvas = own_canvas("picture", height, width)
    pixels = _decode_strictly(data, header, colorspace="RGBX", buffer=canvas.pixels, **options)
    return canvas.colours if pixels.shape == canvas.pixels.shape else pixels[..., :3]


def decode_samples(data: bytes, header: JpegHeader) -> Pixels:
    """Grey, RGB or, as stored, CMYK of a JPEG with a checked header: uint8 [H, W, 1, 3 or 4]. Raises ImageError."""
    _check_zeros(data, header)
    return _decode_strictly(data, header, colorspace={1: "GRAY", 3: "RGB", 4: "CMYK"}[len(header.component_ids)])


def _decode_strictly(data: bytes, header: JpegHeader, **options: Any) -> Pixels:
    """Decode by libjpeg-turbo. Any warning is an error, unless it certainly affects no pixel."""
    try:
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (header.height, header.width):
            raise ImageError("corrupt", "its header gives more than one size")
        pixels: Pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        message = str(error)
    except KeyError:  # simplejpeg has no name for 4:4:1
        message = "unknown subsampling"
    else:
        return pixels
    if "subsampling" in message or "color conversion" in message:
        raise ImageError("unsupported_format", f"a JPEG of a kind that is not read ({message})")
    if any(warning in message for warning in _HEADER_WARNINGS) and (plain := without_metadata(data, header)) != data:
        return _decode_strictly(plain, header, **options)
    left_over = _LEFT_OVER.search(message)
    padding = _padding(data) if left_over else 0
    if not left_over or not int(left_over[1]) <= padding <= _MAX_PADDING:
        raise damage(ValueError(message))
    return simplejpeg.decode_jpeg(data, strict=False, **options)  # the padding was its only warning


def _padding(data: bytes) -> int:
    """Number of bytes 0 and 255 before the end marker."""
    picture = data[: _end(data)]
    return len(picture) - len(picture.rstrip(b"\0\xff"))


def without_metadata(data: bytes, header: JpegHeader) -> bytes:
    """The same JPEG without metadata, except for what its colours depend on, in a form that libjpeg reads."""
    kept = [b"\xff\xd8"]
    if header.jfif:
        kept.append(b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0")
    if header.adobe_transform is not None:
        transform = header.adobe_transform
        if transform != 0 and len(header.component_ids) < 4:  # libjpeg reads unknown ones as YCbCr, with a warning
            transform = 1
        kept.append(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]))
    for marker, begin, end in _segments(data, len(b"\xff\xd8")):
        if marker == _SOS:
            kept.append(data[begin - 4 :])
            break
        if not 0xE0 <= marker <= 0xEF:
            kept.append(data[begin - 4 : end])
    return b"".join(kept)


def _check_zeros(data: bytes, header: JpegHeader) -> None:
    """Refuse long runs of zeros, unless they are the code of flat blocks: no encoder writes them. Raises ImageError."""
    if header.frame not in _HUFFMAN_SEQUENTIAL:
        return
    start = header.first_scan & ~7  # aligned
    words = np.frombuffer(data, np.uint64, (len(data) - start) // 8, start)
    if np.count_nonzero(words) == len(words):  # a long run of zeros has such words; `find` would hold the GIL
        return
    zeros = -1 if _zeros_are_flat(data, header) else data.find(bytes(_MAX_ZEROS + 1), header.first_scan)
    if 0 <= zeros < _end(data) - min(_padding(data), _MAX_PADDING):
        raise ImageError("corrupt", "a part of the picture is replaced by zeros")


def _zeros_are_flat(data: bytes, header: JpegHeader) -> bool:
    """Whether zero bytes in the first scan may be blocks without detail, because the code of all zeros means that."""
    begin, components = header.first_scan, len(header.component_ids)
    if data[begin] != components:  # tables of other scans may follow
        return True
    first: dict[int, int] = {}  # symbol (with the code of all zeros) of each table, by class and number
    for tables in header.huffman_tables:
        while len(tables) > 17:
            first[tables[0]] = tables[17]
            tables = tables[17 + sum(tables[1:17]) :]
    return all(first.get(0x10 | number & 15) == 0 for number in data[begin + 2 : begin + 2 + 2 * components : 2])


def _end(data: bytes) -> int:
    """Position of the end marker."""
    return next(begin - 2 for marker, begin, _ in _segments(data, len(b"\xff\xd8")) if marker == _EOI)

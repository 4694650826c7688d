"""Decode PNG files. Only the chunks that make up the picture reach the decoder, with their checksums verified."""

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin  # noqa: F401 - the plugin registers the format

from batchland.errors import ImageError
from batchland.images.decode.orientation import find_orientation
from batchland.images.decode.picture import (
    Picture,
    Pixels,
    check_size,
    check_transfer,
    grey_to_rgb,
    open_with_pillow,
    rgb_pixels,
)

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS: Final = 100_000
"""A file of the largest size that is read, 512 MiB, has fewer chunks of the usual 8 KiB."""
_MAX_PROFILE: Final = 16 * 1024**2
"""Bytes of an unpacked colour profile."""
_KINDS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits per sample that are allowed for each colour type."""
_GREY, _RGB, _PALETTE = 0, 2, 3
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel for each colour type."""
_PASSES: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""First column, first row, and steps to the next ones, of each pass of an interlaced picture."""
_UNPACKED_AT_ONCE: Final = 1024**2
_USED: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"iCCP", b"cICP"))
_NEEDED: Final = frozenset((b"tRNS", b"eXIf", b"cICP"))
"""Optional chunks that change how the picture looks."""


class _Chunk(NamedTuple):
    kind: bytes
    begin: int
    """Byte position of the content."""
    content: bytes


class _Contents(NamedTuple):
    """The chunks of a PNG that are used."""

    header: bytes
    palette: bytes
    transparency: bytes | None
    pixels: bytes
    """All chunks with pixels, as they are in the file."""
    exif: bytes | None
    profile: bytes | None

    @property
    def width(self) -> int:
        return int.from_bytes(self.header[:4])

    @property
    def height(self) -> int:
        return int.from_bytes(self.header[4:8])

    @property
    def bits(self) -> int:
        """Bits per sample."""
        return self.header[8]

    @property
    def colour_type(self) -> int:
        return self.header[9]

    @property
    def interlaced(self) -> bool:
        return bool(self.header[12])

    @property
    def unpacked_size(self) -> int:
        """Bytes of all rows before compression, each with the number of its filter."""
        pixel_bits = self.bits * _SAMPLES[self.colour_type]
        return sum(
            rows * (1 + -(-columns * pixel_bits // 8))
            for x, y, right, down in (_PASSES if self.interlaced else ((0, 0, 1, 1),))
            if (columns := -(-(self.width - x) // right)) > 0 and (rows := -(-(self.height - y) // down)) > 0
        )


def decode_png(data: bytes, max_pixels: int) -> Picture:
    """Decode a PNG; of an animation, the default image. Raises ImageError."""
    png = _read(data, max_pixels)
    pixels = _rgb(png)
    return Picture(pixels, png.width, png.height, find_orientation(png.exif), png.profile)


def _read(data: bytes, max_pixels: int) -> _Contents:
    found: dict[bytes, bytes] = {}
    exif: bytes | None = None
    pixels_begin = pixels_end = 0
    for chunk in _chunks(data):
        kind, content = chunk.kind, chunk.content
        if not found:
            _check_header(chunk, max_pixels)
        if kind == b"IDAT":
            if pixels_begin and chunk.begin - 8 != pixels_end:
                raise ImageError("corrupt", "its pixels are not in consecutive chunks")
            pixels_begin = pixels_begin or chunk.begin - 8
            pixels_end = chunk.begin + len(content) + 4
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"iCCP"):
            if kind in (b"IHDR", b"PLTE") and kind in found:
                raise ImageError("corrupt", f"it has two chunks {kind.decode()}")
            palette_is_late = kind == b"PLTE" and found[b"IHDR"][9] == _PALETTE and (pixels_begin or b"tRNS" in found)
            if palette_is_late or (kind == b"tRNS" and pixels_begin):
                raise ImageError("corrupt", "its chunks PLTE, tRNS and IDAT are not in this order")
            found.setdefault(kind, content)
        elif kind == b"cICP" and len(content) == 4:
            check_transfer(content[1])
        elif kind == b"eXIf":
            exif = exif or content
    if not pixels_begin:
        raise ImageError("truncated", "the file ends before its pixels")
    profile = found.get(b"iCCP")
    return _Contents(
        found[b"IHDR"],
        found.get(b"PLTE", b""),
        found.get(b"tRNS"),
        data[pixels_begin:pixels_end],
        exif,
        _unpack(profile.partition(b"\0")[2][1:]) if profile else None,
    )


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The used chunks of a file, in order. Raises ImageError for damage that concerns the picture."""
    position = len(_SIGNATURE)
    number = 0
    picture_ends = False
    while position + 12 <= len(data):
        number += 1
        if number > _MAX_CHUNKS:
            raise ImageError("corrupt", f"more than {_MAX_CHUNKS} chunks, which no encoder writes")
        begin = position + 8
        kind, end = data[position + 4 : begin], begin + int.from_bytes(data[position : position + 4])
        position = end + 4
        optional = bool(kind[0] & 0x20)
        if not kind.isalpha():
            if picture_ends:
                return
            raise ImageError("corrupt", "its chunks are damaged")
        if position > len(data) and not (picture_ends and optional and kind not in _NEEDED):
            raise ImageError("truncated", f"the file ends within its chunk {kind.decode('latin-1')}")
        if kind not in _USED and number > 1:
            if not optional:
                raise ImageError("unsupported_format", f"a PNG with an unknown chunk {kind.decode('latin-1')}")
            continue
        content = data[begin:end]
        intact = zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(data[end:position])
        if intact:
            picture_ends |= kind == b"IDAT"
            yield _Chunk(kind, begin, content)
        elif not optional or kind in _NEEDED:
            raise ImageError("corrupt", f"the checksum of its chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IEND":
            return


def _check_header(chunk: _Chunk, max_pixels: int) -> None:
    if chunk.kind == b"CgBI":
        raise ImageError("unsupported_format", "a PNG made for iOS (CgBI), not a format that is read here")
    if chunk.kind != b"IHDR" or len(chunk.content) != 13:
        raise ImageError("corrupt", "starts like a PNG file, but its header is damaged")
    width, height = int.from_bytes(chunk.content[:4]), int.from_bytes(chunk.content[4:8])
    bits, colour_type, compression, filtering, interlace = chunk.content[8:]
    check_size(width, height, max_pixels)
    if bits not in _KINDS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise ImageError("corrupt", f"its header gives an impossible kind of pixels ({bits} bits, type {colour_type})")


def _unpack(packed: bytes) -> bytes | None:
    try:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(packed, _MAX_PROFILE)
    except zlib.error:
        return None
    return unpacked if unpacker.eof else None


def _rgb(png: _Contents) -> Pixels:
    transparency = png.transparency
    if png.colour_type == _PALETTE and (not png.palette or len(png.palette) % 3):
        raise ImageError("corrupt", "it has no palette")
    if png.colour_type == _PALETTE and len(transparency or b"") > len(png.palette) // 3:
        raise ImageError("corrupt", "its palette has fewer colours than transparencies")
    if png.colour_type in (_GREY, _RGB) and png.bits == 16 and transparency is not None:  # Pillow drops the lower bytes
        raise ImageError("unsupported_format", "a PNG with a transparent colour of 16 bits, which is not read here")
    with open_with_pillow(_plain(png), "PNG") as image:
        image.load()
        _require_all_rows(png, image)
        if png.colour_type == _PALETTE:
            if np.asarray(image).max() >= len(png.palette) // 3:
                raise ImageError("corrupt", "its pixels have colours that its palette lacks")
            return rgb_pixels(image)
        if transparency is None or png.colour_type not in (_GREY, _RGB):
            return grey_to_rgb(np.asarray(image) >> 8) if image.mode.startswith("I") else rgb_pixels(image)
        pixels = rgb_pixels(image).copy()
    if len(transparency) != (2 if png.colour_type == _GREY else 6):
        raise ImageError("corrupt", "its transparent colour is damaged")
    largest = (1 << png.bits) - 1
    key = (np.frombuffer(transparency, ">u2") & largest) * (255 // largest)  # Pillow scales samples of fewer bits
    pixels[(pixels == key).all(axis=2)] = 255
    return pixels


def _require_all_rows(png: _Contents, image: Image.Image) -> None:
    """Raise ImageError if rows are missing: Pillow leaves those at 0, without an error, if the compressed data ends
    with a row."""
    last_row = image.crop((0, png.height - 1, png.width, png.height))
    if not png.interlaced and np.asarray(last_row).any():
        return  # rows are in order, so all of them are there
    unpacker, size = zlib.decompressobj(), 0
    position = 0
    while position < len(png.pixels):
        end = position + 8 + int.from_bytes(png.pixels[position : position + 4])
        packed = png.pixels[position + 8 : end]
        while packed:
            size += len(unpacker.decompress(packed, _UNPACKED_AT_ONCE))
            packed = unpacker.unconsumed_tail
        position = end + 4
    size += len(unpacker.flush())
    if size < png.unpacked_size:
        raise ImageError("truncated", f"it has {size} of {png.unpacked_size} bytes of pixels")


def _plain(png: _Contents) -> bytes:
    """A PNG that contains only the picture."""
    palette = png.palette if png.colour_type == _PALETTE else b""
    transparency = png.transparency if palette else None
    chunks = [(b"IHDR", png.header), (b"PLTE", palette), (b"tRNS", transparency)]
    return b"".join(
        (_SIGNATURE, *(_chunk(kind, content) for kind, content in chunks if content), png.pixels, _chunk(b"IEND"))
    )


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)

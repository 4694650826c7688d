"""Decode BMP files: every depth, palettes, bit fields. Run-length coding is not read."""

import struct
from typing import Final, NamedTuple

import numpy as np

from batchland.errors import ImageError
from batchland.images.decode.picture import Picture, Pixels, Samples, check_size, over_white, palette_to_rgb

_HEADER_SIZES: Final = (12, 40, 52, 56, 64, 108, 124)
_RAW, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 3, 6
_DEFAULT_MASKS: Final = {16: (0x7C00, 0x03E0, 0x001F, 0), 32: (0xFF0000, 0x00FF00, 0x0000FF, 0)}
_BYTES: Final = (1, 1 << 8, 1 << 16, 1 << 24)


class _Header(NamedTuple):
    width: int
    height: int
    bits: int
    compression: int
    top_down: bool
    masks: tuple[int, int, int, int]
    """Bits of red, green, blue and alpha in a pixel of 16 or 32 bits."""
    palette: Pixels
    """RGB uint8 [colours, 3]."""
    begin: int
    """Byte position of the pixels."""


def decode_bmp(data: bytes, max_pixels: int) -> Picture:
    """Decode a BMP. Raises ImageError."""
    header = _read_header(data, max_pixels)
    if header.bits <= 8:
        pixels = palette_to_rgb(_indices(_rows(data, header), header), header.palette)
    elif header.bits == 24:
        pixels = _rows(data, header)[:, : header.width * 3].reshape(header.height, header.width, 3)[:, :, ::-1]
    else:
        pixels = _fields(_rows(data, header), header)
    pixels = pixels if header.top_down else pixels[::-1]
    return Picture(np.ascontiguousarray(pixels), header.width, header.height)


def _read_header(data: bytes, max_pixels: int) -> _Header:
    if len(data) < 26 or len(data) < 14 + (size := struct.unpack_from("<I", data, 14)[0]):
        raise ImageError("truncated", "the file ends within its header")
    if size not in _HEADER_SIZES:
        raise ImageError("unsupported_format", f"a BMP with a header of {size} bytes, not a kind that is read here")
    (begin,) = struct.unpack_from("<I", data, 10)
    colours = compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", data, 18)
    check_size(width, abs(height), max_pixels)
    _check_kind(size, bits, compression)
    after = 14 + size
    masks = _DEFAULT_MASKS.get(bits, (0, 0, 0, 0))
    if compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS):
        count = 4 if size >= 56 or compression == _ALPHA_BIT_FIELDS else 3
        if size == 40:
            after += 4 * count
        if len(data) < 54 + 4 * count:
            raise ImageError("truncated", "the file ends within its header")
        masks = (*struct.unpack_from(f"<{count}I", data, 54), 0)[:4]
        _check_masks(masks, bits)
    entry = 3 if size == 12 else 4
    largest = 1 << bits if bits <= 8 else 0
    colours = colours or largest
    if begin == 0 or (begin == 14 + size and bits <= 8):  # some writers give no position, or forget the palette
        begin = after + entry * colours if colours <= largest else 0
    if begin < after:
        raise ImageError("unsupported_format", "a BMP with pixels that begin within its header")
    stored = np.frombuffer(data[after : min(begin, after + entry * min(colours, largest))], np.uint8)
    palette = stored[: len(stored) // entry * entry].reshape(-1, entry)[:, 2::-1]
    return _Header(width, abs(height), bits, compression, height < 0, masks, palette, begin)


def _check_kind(size: int, bits: int, compression: int) -> None:
    raw = compression == _RAW and bits in (1, 2, 4, 8, 16, 24, 32)
    fields = compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) and bits in (16, 32) and size != 64
    if not (raw or fields):
        raise ImageError(
            "unsupported_format", f"a BMP of {bits} bits with compression {compression}, which is not read here"
        )


def _check_masks(masks: tuple[int, ...], bits: int) -> None:
    """Masks must be of consecutive bits inside a pixel and must not overlap; alpha may be absent."""
    together = 0
    for mask in masks:
        lowest = mask & -mask
        if mask & together or mask >> bits or (mask and (mask // lowest) & (mask // lowest + 1)):
            raise ImageError("unsupported_format", "a BMP with bit fields that overlap or have gaps")
        together |= mask
    if not all(masks[:3]):
        raise ImageError("unsupported_format", "a BMP without a bit field for each of red, green and blue")


def _rows(data: bytes, header: _Header) -> Pixels:
    """Bytes of the rows, as stored: uint8 [height, bytes of a row]."""
    stride = (header.width * header.bits + 31) // 32 * 4
    missing = header.begin + stride * header.height - len(data)
    used = (header.width * header.bits + 7) // 8
    if missing > stride - used:  # the padding of the last row may be missing
        raise ImageError("truncated", f"the file ends {missing} bytes too early")
    if missing > 0:
        data += bytes(missing)
    return np.frombuffer(data, np.uint8, stride * header.height, header.begin).reshape(header.height, stride)


def _indices(rows: Pixels, header: _Header) -> Pixels:
    """Colour numbers [height, width] of pixels of 1, 2, 4 or 8 bits."""
    if header.bits == 8:
        return rows[:, : header.width]
    used = rows[:, : -(-header.width * header.bits // 8)]
    if header.bits == 1:
        return np.unpackbits(used, axis=1)[:, : header.width]
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    unpacked = used[:, :, None] >> shifts & np.uint8((1 << header.bits) - 1)
    return unpacked.reshape(header.height, -1)[:, : header.width]


def _fields(rows: Pixels, header: _Header) -> Pixels:
    """RGB of pixels of 16 or 32 bits. Alpha counts unless it is 0 everywhere, as some writers leave it."""
    words = rows.view("<u2" if header.bits == 16 else "<u4")[:, : header.width]
    pixels = np.empty((header.height, header.width, 3), np.uint8)
    for channel, mask in enumerate(header.masks[:3]):
        pixels[:, :, channel] = _scaled(words, mask)
    if not header.masks[3]:
        return pixels
    alpha = _scaled(words, header.masks[3])
    return over_white(pixels, alpha) if alpha.any() else pixels


def _scaled(words: Samples, mask: int) -> Pixels:
    """The bits of a mask, scaled to 0 to 255."""
    lowest = mask & -mask
    if mask // lowest == 255 and lowest in _BYTES:
        return words.view(np.uint8).reshape(*words.shape, -1)[:, :, _BYTES.index(lowest)]
    largest = mask // lowest
    values = (words & words.dtype.type(mask)) // words.dtype.type(lowest)
    return (values.astype(np.uint64) * np.uint64(255) // np.uint64(largest)).astype(np.uint8)

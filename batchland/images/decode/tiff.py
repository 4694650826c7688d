"""Decode the first page of TIFF files: every depth, byte order, strips and tiles, chunky and planar.

libtiff, called through Pillow, only unpacks compressed bytes. The bytes are interpreted here, so that pixels are read
in the same way with every compression.
"""

import struct
import zlib
from io import BytesIO
from itertools import accumulate
from typing import Final

import numpy as np
from PIL import Image, TiffImagePlugin

from batchland.errors import ImageError
from batchland.images.decode import jpeg
from batchland.images.decode import tiff_page as tiff
from batchland.images.decode.picture import (
    Picture,
    Pixels,
    Samples,
    check_zeros,
    grey_to_rgb,
    over_white,
    palette_to_rgb,
    rgb_pixels,
)
from batchland.images.decode.tiff_page import Page, read_page

_MAX_ZERO_RUN: Final = 130
"""Longest run of zero bytes in PackBits: a literal of black, and the next count and value."""
_GROUP_BYTES: Final = 16 * 1024**2
"""Blocks are unpacked in groups of about this size, so that no second copy of the picture is needed."""
_CHUNK_SAMPLES: Final = 4_000_000
"""Samples of unusual depths that are unpacked at a time, one byte for each bit."""


def decode_tiff(data: bytes, max_pixels: int) -> Picture:
    """Decode the first page of a TIFF. Raises ImageError."""
    page = read_page(data, max_pixels)
    pixels = _rgb(data, page)
    return Picture(pixels, page.width, page.height, page.directory.orientation(), page.directory.content("profile"))


def _rgb(data: bytes, page: Page) -> Pixels:
    if page.photometric == tiff.YCBCR:
        return np.ascontiguousarray(_decode_jpegs(data, page))
    samples = _decode_jpegs(data, page) if page.compression == tiff.JPEG else _samples(_rows(data, page), page)
    return _colours(samples, page)


def _colours(samples: Samples, page: Page) -> Pixels:
    """RGB of samples [H, W, samples] scaled to 0 to 255, or of colour numbers."""
    alpha = samples[:, :, page.alpha] if page.alpha >= 0 else None
    if page.alpha == tiff.UNDECLARED and (samples[:, :, tiff.CHANNELS[page.photometric] :] != 255).any():
        raise ImageError(
            "unsupported_format", "a TIFF with a further sample that may be alpha, which its header does not say"
        )
    if page.photometric == tiff.PALETTE:
        colours = palette_to_rgb(samples[:, :, 0].astype(np.uint8), _palette(page))
    elif page.photometric == tiff.CMYK:
        inks = np.ascontiguousarray(samples[:, :, :4])
        colours = rgb_pixels(Image.frombuffer("CMYK", (page.width, page.height), inks, "raw", "CMYK", 0, 1))
    elif page.photometric == tiff.RGB:
        colours = np.ascontiguousarray(samples[:, :, :3])
    else:
        grey = samples[:, :, 0]
        colours = grey_to_rgb(grey if page.photometric == tiff.BLACK_IS_ZERO else 255 - grey)
    if alpha is None:
        return colours
    if not page.premultiplied:
        return over_white(colours, alpha.astype(np.uint8))
    rgba = np.dstack((colours, alpha))
    return rgb_pixels(Image.frombuffer("RGBA", (page.width, page.height), rgba, "raw", "RGBa", 0, 1))


def _palette(page: Page) -> Pixels:
    """RGB uint8 [colours, 3]. Some old writers give 8-bit values where 16-bit ones are due."""
    size = 1 << page.bits
    values = page.directory.numbers("colour_map", (), 3 * size)
    if len(values) < 3 * size:
        raise ImageError("corrupt", "its palette is incomplete")
    palette = np.array(values, np.uint16).reshape(3, size).T
    return (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)


def _rows(data: bytes, page: Page) -> list[Pixels]:
    """Unpacked bytes of the rows of each plane: uint8 [H, bytes of a row]."""
    row = -(-page.samples_per_block_row * page.bits // 8)
    count = page.across * page.down
    planes = []
    for first in range(0, len(page.offsets), count):
        blocks = list(zip(page.offsets, page.sizes or page.offsets, strict=True))[first : first + count]
        rows = _unpack(data, page, blocks, row)
        if page.predictor:
            rows = _add_up(rows, page)
        planes.append(rows[: page.height])
    return planes


def _unpack(data: bytes, page: Page, blocks: list[tuple[int, int]], row: int) -> Pixels:
    """The bytes of all blocks of a plane, side by side as in the picture. row: bytes of a block's row."""
    height = page.down * page.block_height if page.tiled else page.height
    rows = np.empty((height, page.across * row), np.uint8)
    step = max(1, _GROUP_BYTES // max(1, page.block_height * page.across * row))
    for first in range(0, page.down, step):
        top = first * page.block_height
        bottom = min(top + step * page.block_height, height)
        group = blocks[first * page.across : (first + step) * page.across]
        if page.compression in (tiff.NONE, tiff.DEFLATE, tiff.OLD_DEFLATE):
            _unpack_here(data, page, group, row, rows[top:bottom])
        else:
            rows[top:bottom] = _unpack_by_libtiff(data, page, group, (page.across * row, bottom - top), row)
    return rows


def _unpack_here(data: bytes, page: Page, blocks: list[tuple[int, int]], row: int, rows: Pixels) -> None:
    """Uncompressed blocks, and blocks compressed by zlib; verifies their checksums."""
    for index, (offset, size) in enumerate(blocks):
        down, across = divmod(index, page.across)
        part = rows[down * page.block_height : (down + 1) * page.block_height, across * row : (across + 1) * row]
        if page.compression == tiff.NONE:
            content = data[offset : offset + part.size]
        else:
            content = _inflate(_block(data, offset, size), part.size, page.block_height * row)
        if len(content) < part.size:
            raise ImageError("truncated", f"a strip or tile has {len(content)} of {part.size} bytes")
        part[:] = np.frombuffer(content, np.uint8).reshape(part.shape)


def _block(data: bytes, offset: int, size: int) -> bytes:
    content = data[offset : offset + size]
    if len(content) < size or not size:
        raise ImageError("truncated", f"a strip or tile has {len(content)} of {size or 'no'} bytes")
    return content


def _inflate(packed: bytes, size: int, whole: int) -> bytes:
    """`size` bytes, of the `whole` block that the last strip may hold as well. Verifies the checksum at the end."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, size)
    rest = unpacker.decompress(unpacker.unconsumed_tail, whole - len(content) + 1) if len(content) == size else b""
    if len(content) + len(rest) > whole or (len(content) == size and not unpacker.eof and unpacker.unconsumed_tail):
        raise ImageError("corrupt", "a strip or tile holds more than its size")
    return content


def _unpack_by_libtiff(
    data: bytes, page: Page, blocks: list[tuple[int, int]], size: tuple[int, int], block_width: int
) -> Pixels:
    """Blocks in any compression, as a grey picture of that width and height: a TIFF of its own, opened by Pillow."""
    tags = [(256, [size[0]]), (257, [size[1]]), (258, [8]), (259, [page.compression]), (262, [1]), (277, [1])]
    contents = [_block(data, offset, size) for offset, size in blocks]
    if page.compression == tiff.PACK_BITS:
        for content in contents:
            check_zeros(content, _MAX_ZERO_RUN)
    offsets = [8 + offset for offset in accumulate(map(len, contents), initial=0)][:-1]
    sizes = [len(content) for content in contents]
    if page.tiled:
        tags += [(322, [block_width]), (323, [page.block_height]), (324, offsets), (325, sizes)]
    else:
        tags += [(273, offsets), (278, [page.block_height]), (279, sizes)]
    body = b"".join(contents)
    values = b""
    entries = []
    start = 8 + len(body) + len(body) % 2
    for number, numbers in sorted(tags):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        position = struct.pack("<I", start + len(values)) if len(numbers) > 1 else packed
        values += packed if len(numbers) > 1 else b""
        entries.append(struct.pack("<HHI", number, 4, len(numbers)) + position)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    file = struct.pack("<2sHI", b"II", 42, start + len(values)) + body + bytes(len(body) % 2) + values + directory
    # Image.open would count bytes as pixels, and refuse too many.
    with TiffImagePlugin.TiffImageFile(BytesIO(file)) as image:
        image.load()
        return np.asarray(image)


def _add_up(rows: Pixels, page: Page) -> Pixels:
    """Undo the predictor: samples become sums of the differences to their left, in each block by itself."""
    each = 1 if page.planar else page.samples
    if page.bits == 8:
        return np.cumsum(rows.reshape(len(rows), page.across, -1, each), axis=2, dtype=np.uint8).reshape(rows.shape)
    order = ">u2" if page.big_endian else "<u2"
    words = rows.view(order).reshape(len(rows), page.across, -1, each)
    return np.cumsum(words, axis=2, dtype=np.uint16).astype(order).view(np.uint8).reshape(rows.shape)


def _samples(planes: list[Pixels], page: Page) -> Samples:
    """Samples [H, W, samples] scaled to 0 to 255; colour numbers of a palette as they are."""
    each = 1 if page.planar else page.samples
    samples = [_scaled(rows, page.width * each, page).reshape(page.height, page.width, each) for rows in planes]
    return samples[0] if len(samples) == 1 else np.concatenate(samples, axis=2)


def _scaled(rows: Pixels, count: int, page: Page) -> Samples:
    """The first `count` samples of each row."""
    if page.bits == 8:
        return rows[:, :count]
    if page.bits == 16:
        return rows[:, 0 if page.big_endian else 1 :: 2][:, :count]
    scaled = np.empty((len(rows), count), np.uint8)
    step = max(1, _CHUNK_SAMPLES // count)
    for top in range(0, len(rows), step):
        bits = np.unpackbits(rows[top : top + step], axis=1)[:, : count * page.bits].reshape(-1, count, page.bits)
        upper = np.packbits(bits[:, :, :8], axis=2)[:, :, 0]
        values = upper >> np.uint8(max(0, 8 - page.bits))
        if page.photometric != tiff.PALETTE and page.bits < 8:
            values = values.astype(np.uint16) * 255 // ((1 << page.bits) - 1)
        scaled[top : top + step] = values
    return scaled


def _decode_jpegs(data: bytes, page: Page) -> Pixels:
    """Samples [H, W, samples] of strips or tiles that are JPEGs; RGB, if they are YCbCr."""
    height = page.down * page.block_height if page.tiled else page.height
    samples = np.empty((height, page.across * page.block_width, page.samples), np.uint8)
    tables = (page.directory.content("jpeg_tables") or b"").removesuffix(b"\xff\xd9")
    transform = {tiff.RGB: 0, tiff.YCBCR: 1}.get(page.photometric)
    for index, (offset, size) in enumerate(zip(page.offsets, page.sizes, strict=True)):
        block = _block(data, offset, size)
        stream = tables + block[2:] if tables else block
        header = jpeg.read_header(stream)
        if len(header.component_ids) != page.samples or (
            (header.jfif and transform == 0) or header.adobe_transform not in (None, transform)
        ):
            raise ImageError(
                "unsupported_format", "a TIFF with JPEG strips or tiles of other colours than its header says"
            )
        down, across = divmod(index, page.across)
        part = samples[down * page.block_height :][: page.block_height, across * page.block_width :][
            :, : page.block_width
        ]
        if header.width != page.block_width or not len(part) <= header.height <= page.block_height:
            raise ImageError("corrupt", "a strip or tile has another size than the header says")
        jpeg.check_claims(header, stream, page.block_width * page.block_height)
        if transform is not None and header.adobe_transform is None:
            header = header._replace(adobe_transform=transform)
            stream = jpeg.without_metadata(stream, header)
        part[:] = jpeg.decode_samples(stream, header)[: len(part)]
    return samples[: page.height, : page.width]

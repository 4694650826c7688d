"""Small picture files of all formats, depths, layouts and byte orders, with the pixels that they hold.

Written by tifffile, libvips, OpenCV, imagecodecs, Pillow or by hand. The expected pixels are the array that was
written, or else what a reader gives that shares no code with the decoder under test.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pyvips
import tifffile
from PIL import Image

WIDTH, HEIGHT = 37, 29
"""Odd, so that nothing is a multiple of a byte, a tile or a chroma block."""


class PictureFile(NamedTuple):
    """A file, and the RGB uint8 [H, W, 3] that it holds, within `tolerance` on average."""

    name: str
    data: bytes
    pixels: np.ndarray
    tolerance: float = 1.0


def samples(bits: int, channels: int = 1, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth values that use the whole range, [H, W] or [H, W, channels]."""
    rng = np.random.default_rng(bits * 10 + channels)
    small = rng.random((5, 6, channels), np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    low, high = large.min(), large.max()
    values = np.rint((large - low) / (high - low) * ((1 << bits) - 1))
    return values.astype(np.uint8 if bits <= 8 else np.uint16).reshape((height, width, channels)[: 2 + (channels > 1)])


def eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of 0 to 2**bits - 1 as 0 to 255."""
    return np.floor(values * (255 / ((1 << bits) - 1)) + 0.5).astype(np.uint8)


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def cmyk_rgb(inks: np.ndarray) -> np.ndarray:
    return np.rint((255.0 - inks[:, :, :3]) * (255.0 - inks[:, :, 3:]) / 255).astype(np.uint8)


def tifffile_pixels(data: bytes) -> np.ndarray:
    """By tifffile, from the raw samples of the first page."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        values, bits = page.asarray(), page.bitspersample
        if page.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, 2)
        photometric = page.photometric.name
        extra = page.extrasamples
        colour_map = page.colormap
    if photometric == "PALETTE":
        return (colour_map >> 8).astype(np.uint8).T[values]
    values = eight_bits(values.astype(float), bits)
    channels = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "SEPARATED": 4, "YCBCR": 3}[photometric]
    values = values.reshape(*values.shape[:2], -1)
    colours = values[:, :, :channels]
    if photometric == "MINISWHITE":
        colours = 255 - colours
    if photometric == "SEPARATED":
        return cmyk_rgb(colours)
    if channels == 1:
        colours = grey_rgb(colours[:, :, 0])
    return over_white(colours, values[:, :, channels]) if extra and extra[0] == 2 else colours


def vips_pixels(data: bytes) -> np.ndarray:
    """By libvips, with transparency over white."""
    image = pyvips.Image.new_from_buffer(data, "")
    if image.hasalpha():
        white = 65535 if image.format == "ushort" else 255
        image = image.flatten(background=white)
    image = image.colourspace("srgb")
    pixels = np.asarray(image.cast("uchar"))
    return grey_rgb(pixels.reshape(pixels.shape[:2])) if pixels.ndim == 2 or pixels.shape[2] == 1 else pixels[:, :, :3]


def opencv_pixels(data: bytes) -> np.ndarray:
    """By OpenCV, with transparency over white."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        return grey_rgb(pixels)
    colours = pixels[:, :, 2::-1]
    return over_white(colours, pixels[:, :, 3]) if pixels.shape[2] == 4 else colours


def by_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_tifffile(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    byte_order = options.pop("byteorder", "<")
    with tifffile.TiffWriter(buffer, byteorder=byte_order, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(values, metadata=None, **options)
    return buffer.getvalue()


LAYOUTS: dict[str, dict[str, Any]] = {
    "strip": {"rowsperstrip": HEIGHT},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 32)},
}


def tiffs_of_whole_bytes() -> Iterator[PictureFile]:
    """Every kind of pixels of 8 and 16 bits, in all layouts, byte orders and compressions."""
    kinds: dict[str, tuple[str, int, dict[str, Any]]] = {
        "grey": ("minisblack", 1, {}),
        "white-is-zero": ("miniswhite", 1, {}),
        "grey-alpha": ("minisblack", 2, {"extrasamples": ["unassalpha"]}),
        "rgb": ("rgb", 3, {}),
        "rgba": ("rgb", 4, {"extrasamples": ["unassalpha"]}),
        "rgbx": ("rgb", 4, {"extrasamples": ["unspecified"]}),
        "cmyk": ("separated", 4, {}),
    }
    compressions: dict[str, dict[str, Any]] = {
        "none": {},
        "lzw": {"compression": "lzw"},
        "deflate-predictor": {"compression": "zlib", "predictor": True},
        "packbits": {"compression": "packbits"},
        "zstd-predictor": {"compression": "zstd", "predictor": True},
    }
    for kind, bits, order, layout, compression in itertools.product(kinds, (8, 16), "<>", LAYOUTS, compressions):
        photometric, channels, extra = kinds[kind]
        for planar in ("contig", "separate") if channels > 1 else ("contig",):
            values = samples(bits, channels)
            stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
            options = {**extra, **LAYOUTS[layout], **compressions[compression], "photometric": photometric}
            if channels > 1:
                options["planarconfig"] = planar
            data = by_tifffile(np.ascontiguousarray(stored), byteorder=order, **options)
            name = f"tiff {kind} {bits} {'little' if order == '<' else 'big'} {layout} {planar} {compression}"
            yield PictureFile(name, data, _meaning(kind, eight_bits(values.astype(float), bits)))


def _meaning(kind: str, values: np.ndarray) -> np.ndarray:
    """RGB of samples of 8 bits."""
    if kind in ("grey", "white-is-zero"):
        return grey_rgb(values if kind == "grey" else 255 - values)
    if kind == "cmyk":
        return cmyk_rgb(values)
    if kind == "grey-alpha":
        return over_white(grey_rgb(values[:, :, 0]), values[:, :, 1])
    return over_white(values[:, :, :3], values[:, :, 3]) if kind == "rgba" else values[:, :, :3]


def tiff(order: str, tags: dict[int, Any], strips: list[bytes], following: bytes = b"") -> bytes:
    """A TIFF of one page. tags: numbers, or a type, a count and bytes. strips: contents, for tags 273 and 279."""
    offsets, position = [], 8
    for strip in strips:
        offsets.append(position)
        position += len(strip)
    body = b"".join(strips)
    tags = {**tags, 273: offsets, 279: [len(strip) for strip in strips]}
    values, entries = b"", b""
    for number, value in sorted(tags.items()):
        kind, count, packed = value if isinstance(value, tuple) else _packed_numbers(order, value)
        if len(packed) > 4:
            entry = struct.pack(f"{order}I", 8 + len(body) + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            entry = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", number, kind, count) + entry
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    start = 8 + len(body) + len(values)
    return (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", start)
        + body
        + values
        + directory
        + following
    )


def _packed_numbers(order: str, value: int | list[int]) -> tuple[int, int, bytes]:
    numbers = value if isinstance(value, list) else [value]
    long = max(numbers) > 0xFFFF
    return 4 if long else 3, len(numbers), struct.pack(f"{order}{len(numbers)}{'I' if long else 'H'}", *numbers)


def tiffs_by_hand() -> Iterator[PictureFile]:
    """Samples of 1 to 15 bits, packed; palettes."""
    kinds = {"white-is-zero": 0, "grey": 1, "rgb": 2}
    for bits, order, (kind, photometric) in itertools.product(
        (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15), "<>", kinds.items()
    ):
        channels = 3 if kind == "rgb" else 1
        values = samples(bits, channels)
        rows = packed_rows(values, bits)
        tags = {256: WIDTH, 257: HEIGHT, 258: [bits] * channels, 259: 1, 262: photometric, 277: channels, 278: 10}
        data = tiff(order, tags, [rows[top : top + 10].tobytes() for top in range(0, HEIGHT, 10)])
        name = f"tiff by hand {kind} {bits} {'little' if order == '<' else 'big'}"
        yield PictureFile(name, data, _meaning(kind, eight_bits(values.astype(float), bits)))
    for bits, order in itertools.product((1, 2, 4, 8), "<>"):
        palette = np.random.default_rng(bits).integers(0, 65536, (3, 1 << bits), dtype=np.uint16)
        values = samples(bits)
        tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 3, 277: 1, 278: HEIGHT}
        data = tiff(order, {**tags, 320: palette.ravel().tolist()}, [packed_rows(values, bits).tobytes()])
        name = f"tiff by hand palette {bits} {'little' if order == '<' else 'big'}"
        yield PictureFile(name, data, (palette >> 8).astype(np.uint8).T[values])


def tiffs_of_other_kinds() -> Iterator[PictureFile]:
    """Palettes, BigTIFF, premultiplied alpha, further samples, LZMA, JPEG."""
    for bits, order in ((8, "<"), (8, ">")):
        colours = np.random.default_rng(bits).integers(0, 65536, (3, 1 << bits), dtype=np.uint16)
        values = samples(bits)
        data = by_tifffile(values, byteorder=order, photometric="palette", colormap=colours)
        yield PictureFile(f"tiff palette {bits} {order}", data, (colours >> 8).astype(np.uint8).T[values])
    rgb = samples(8, 3)
    for order, layout, bits in itertools.product("<>", LAYOUTS, (8, 16)):
        values = samples(bits, 3)
        data = by_tifffile(values, byteorder=order, bigtiff=True, photometric="rgb", **LAYOUTS[layout])
        yield PictureFile(f"bigtiff rgb {bits} {order} {layout}", data, eight_bits(values.astype(float), bits))
    alpha = samples(8)
    premultiplied = np.rint(rgb * (alpha[:, :, None] / 255)).astype(np.uint8)
    data = by_tifffile(np.dstack((premultiplied, alpha)), photometric="rgb", extrasamples=["assocalpha"])
    yield PictureFile("tiff premultiplied", data, over_white(rgb, alpha), 2.0)
    data = by_tifffile(np.dstack((rgb, alpha, alpha)), photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    yield PictureFile("tiff alpha after another sample", data, over_white(rgb, alpha))
    data = by_tifffile(rgb, photometric="rgb", compression="lzma", rowsperstrip=7)
    yield PictureFile("tiff lzma", data, rgb)
    for layout, photometric in itertools.product(LAYOUTS, ("rgb", "ycbcr", "minisblack")):
        values = samples(8) if photometric == "minisblack" else rgb
        layout_options = {"tile": (16, 32)} if layout == "tiles" else {"rowsperstrip": 16 if layout == "strips" else 32}
        data = by_tifffile(values, photometric=photometric, compression="jpeg", **layout_options)
        yield PictureFile(f"tiff jpeg {photometric} {layout}", data, vips_pixels(data))
    bilevel = Image.fromarray(samples(1) * np.uint8(255)).convert("1")
    data = by_pillow(bilevel, "TIFF", compression="packbits")
    yield PictureFile("pillow tiff packbits", data, np.asarray(bilevel.convert("RGB")))


def by_vips(values: np.ndarray, suffix: str, **options: Any) -> bytes:
    image = pyvips.Image.new_from_array(values, interpretation=options.pop("interpretation", None))
    return image.write_to_buffer(suffix, **options)


def tiffs_by_vips() -> Iterator[PictureFile]:
    bilevel = samples(1) * np.uint8(255)
    for compression, white in itertools.product(("none", "lzw", "deflate", "packbits"), (False, True)):
        data = by_vips(bilevel, ".tif", bitdepth=1, compression=compression, miniswhite=white, predictor="none")
        yield PictureFile(f"vips tiff 1 {compression} {white}", data, grey_rgb(bilevel))
    for bits, compression in itertools.product((2, 4), ("none", "lzw")):
        data = by_vips(samples(8), ".tif", bitdepth=bits, compression=compression, predictor="none")
        yield PictureFile(f"vips tiff {bits} {compression}", data, tifffile_pixels(data))
    for kind, channels in {"b-w": 1, "srgb": 3, "cmyk": 4}.items():
        for compression, tile, big in itertools.product(("none", "lzw", "deflate"), (False, True), (False, True)):
            values = samples(8, channels)
            options = {"tile": tile, "tile_width": 16, "tile_height": 16, "bigtiff": big, "interpretation": kind}
            predictor = "none" if compression == "none" else "horizontal"
            data = by_vips(values, ".tif", compression=compression, predictor=predictor, **options)
            yield PictureFile(f"vips tiff {kind} {compression} {tile} {big}", data, tifffile_pixels(data))
    for quality, tile in itertools.product((75, 95), (False, True)):
        data = by_vips(samples(8, 3), ".tif", compression="jpeg", Q=quality, tile=tile, tile_width=16, tile_height=16)
        yield PictureFile(f"vips tiff jpeg {quality} {tile}", data, vips_pixels(data), 2.0)
    large = samples(8, 3, 140, 90)
    data = by_vips(large, ".tif", pyramid=True, tile=True, tile_width=32, tile_height=32, subifd=True)
    yield PictureFile("vips tiff pyramid in subpages", data, large)
    data = by_vips(large, ".tif", pyramid=True, tile=True, tile_width=32, tile_height=32)
    yield PictureFile("vips tiff pyramid in pages", data, large)


def png(
    width: int, height: int, bits: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes], interlace: int = 0
) -> bytes:
    """A PNG of filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlace)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND",)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed_rows(values: np.ndarray, bits: int) -> np.ndarray:
    """Samples [H, W, channels] as rows of bytes, the first sample in the highest bits."""
    flat = values.reshape(len(values), -1)
    if bits == 16:
        return flat.astype(">u2").view(np.uint8).reshape(len(values), -1)
    if bits == 8:
        return flat.astype(np.uint8)
    unpacked = np.unpackbits(flat.astype(">u2").view(np.uint8).reshape(*flat.shape, 2), axis=2)[:, :, 16 - bits :]
    return np.packbits(unpacked.reshape(len(values), -1), axis=1)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_rows(values: np.ndarray, bits: int, interlace: int, filtering: int) -> bytes:
    """All rows of a PNG with one filter, 0 none, 1 left, 2 above."""
    values = values.reshape(*values.shape[:2], -1)
    passes = [values[y::down, x::across] for x, y, across, down in ADAM7] if interlace else [values]
    parts = []
    for part in passes:
        if not part.size:
            continue
        rows = packed_rows(part, bits).astype(np.int16)
        step = max(1, bits * part.shape[2] // 8)
        filtered = rows.copy()
        if filtering == 1:
            filtered[:, step:] -= rows[:, :-step]
        elif filtering == 2:
            filtered[1:] -= rows[:-1]
        body = (filtered % 256).astype(np.uint8)
        parts.append(np.hstack((np.full((len(rows), 1), filtering, np.uint8), body)).tobytes())
    return b"".join(parts)


def pngs_by_hand() -> Iterator[PictureFile]:
    """All colour types and depths, interlaced or not, with and without a transparent colour."""
    for (colour_type, depths), interlace in itertools.product(
        {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items(), (0, 1)
    ):
        for bits in depths:
            channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
            values = samples(bits, channels)
            for filtering, transparent in itertools.product(
                (0, 1, 2), (False, True) if colour_type in (0, 3) or (colour_type, bits) == (2, 8) else (False,)
            ):
                rows = png_rows(values, bits, interlace, filtering)
                pixels, chunks = _png_pixels(values, bits, colour_type, transparent)
                data = png(WIDTH, HEIGHT, bits, colour_type, rows, *chunks, interlace=interlace)
                name = f"png {colour_type} {bits} {interlace} {filtering} {transparent}"
                yield PictureFile(name, data, pixels)


def _png_pixels(
    values: np.ndarray, bits: int, colour_type: int, transparent: bool
) -> tuple[np.ndarray, list[tuple[bytes, bytes]]]:
    if colour_type == 3:
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        chunks = [(b"PLTE", palette.tobytes())]
        pixels = palette[values]
        if transparent:
            alpha = np.array([0, 100], np.uint8)
            chunks.append((b"tRNS", alpha.tobytes()))
            whole = np.append(alpha, np.full(254, 255, np.uint8))
            pixels = over_white(pixels, whole[values])
        return pixels, chunks
    scaled = eight_bits(values.astype(float), bits)
    if colour_type == 4:
        return over_white(grey_rgb(scaled[:, :, 0]), scaled[:, :, 1]), []
    if colour_type == 6:
        return over_white(scaled[:, :, :3], scaled[:, :, 3]), []
    pixels = grey_rgb(scaled) if colour_type == 0 else scaled.copy()
    if not transparent:
        return pixels, []
    key = np.atleast_1d(values[HEIGHT // 2, WIDTH // 2])
    pixels[(values.reshape(HEIGHT, WIDTH, -1) == key).all(axis=2)] = 255
    return pixels, [(b"tRNS", key.astype(">u2").tobytes())]


def pngs_by_others() -> Iterator[PictureFile]:
    for bits, channels in itertools.product((8, 16), (1, 3, 4)):
        values = samples(bits, channels)
        data = cv2.imencode(".png", values)[1].tobytes()
        yield PictureFile(f"opencv png {bits} {channels}", data, vips_pixels(data))
        data = imagecodecs.png_encode(values)
        yield PictureFile(f"imagecodecs png {bits} {channels}", data, opencv_pixels(data))
    for bits, interlace in itertools.product((1, 2, 4, 8), (False, True)):
        data = by_vips(samples(8), ".png", bitdepth=bits, interlace=interlace)
        yield PictureFile(f"vips png {bits} {interlace}", data, opencv_pixels(data))
        data = by_vips(samples(8, 3), ".png", palette=True, bitdepth=bits, interlace=interlace)
        yield PictureFile(f"vips png palette {bits} {interlace}", data, opencv_pixels(data))


def bmp(
    values: np.ndarray,
    bits: int,
    *,
    size: int = 40,
    masks: tuple[int, ...] = (),
    palette: np.ndarray | None = None,
    top_down: bool = False,
) -> bytes:
    """An uncompressed BMP. values: pixels as stored, [H, W] or blue, green, red [H, W, 3]."""
    height, width = values.shape[:2]
    if bits >= 16:
        rows = values.astype({16: "<u2", 24: np.uint8, 32: "<u4"}[bits]).view(np.uint8).reshape(height, -1)
    else:
        rows = packed_rows(values, bits)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    rows = rows if top_down else rows[::-1]
    table = b""
    if palette is not None:
        table = np.pad(palette[:, ::-1], ((0, 0), (0, 0 if size == 12 else 1))).tobytes()
    compression = 3 if masks else 0
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        colours = 0 if palette is None else len(palette)
        header = struct.pack(
            "<IiiHHIIiiII",
            size,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            rows.size,
            2835,
            2835,
            colours,
            0,
        )
        after = b"".join(struct.pack("<I", mask) for mask in masks)
        header += after if size == 40 else after.ljust(size - 40, b"\0")
    begin = 14 + len(header) + len(table)
    return struct.pack("<2sIHHI", b"BM", begin + rows.size, 0, 0, begin) + header + table + rows.tobytes()


def bmps() -> Iterator[PictureFile]:
    for bits, size, top_down in itertools.product((1, 2, 4, 8), (12, 40, 64, 108, 124), (False, True)):
        if (size, top_down) == (12, True):
            continue
        colours = min(1 << bits, 200)
        palette = np.random.default_rng(bits).integers(0, 256, (colours, 3), dtype=np.uint8)
        if size == 12 and colours != 1 << bits:
            palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        values = samples(bits) % np.uint8(colours) if colours < 256 else samples(bits)
        yield PictureFile(
            f"bmp {bits} {size} {top_down}",
            bmp(values, bits, size=size, palette=palette, top_down=top_down),
            palette[values],
        )
    rgb = samples(8, 3)
    for size, top_down in itertools.product((12, 40, 52, 56, 108, 124), (False, True)):
        if (size, top_down) == (12, True):
            continue
        yield PictureFile(f"bmp 24 {size} {top_down}", bmp(rgb[:, :, ::-1], 24, size=size, top_down=top_down), rgb)
    layouts = {
        "555": (16, (5, 5, 5, 0), ()), "565": (16, (5, 6, 5, 0), (0xF800, 0x7E0, 0x1F)),
        "555 masks": (16, (5, 5, 5, 0), (0x7C00, 0x3E0, 0x1F)), "444": (16, (4, 4, 4, 0), (0xF00, 0xF0, 0xF)),
        "bgr565": (16, (5, 6, 5, 0), (0x1F, 0x7E0, 0xF800)), "332": (16, (3, 3, 2, 0), (0xE0, 0x1C, 0x3)),
        "4444": (16, (4, 4, 4, 4), (0xF00, 0xF0, 0xF, 0xF000)),
        "5551": (16, (5, 5, 5, 1), (0x7C00, 0x3E0, 0x1F, 0x8000)),
        "888": (32, (8, 8, 8, 0), ()), "888 masks": (32, (8, 8, 8, 0), (0xFF0000, 0xFF00, 0xFF)),
        "888 rgbx": (32, (8, 8, 8, 0), (0xFF000000, 0xFF0000, 0xFF00)),
        "888 bgr": (32, (8, 8, 8, 0), (0xFF, 0xFF00, 0xFF0000)),
        "8888": (32, (8, 8, 8, 8), (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        "8888 rgba": (32, (8, 8, 8, 8), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        "1010102": (32, (10, 10, 10, 2), (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
        "111110": (32, (11, 11, 10, 0), (0xFFE00000, 0x1FFC00, 0x3FF)),
        "7187": (32, (7, 18, 7, 0), (0xFE000000, 0x1FFFF80, 0x7F)),
    }  # fmt: skip
    for (name, (bits, depths, masks)), size, top_down in itertools.product(
        layouts.items(), (40, 56, 108, 124), (False, True)
    ):
        if size == 40 and len(masks) == 4:
            continue
        stored = masks or ((0x7C00, 0x3E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF))
        words = np.zeros((HEIGHT, WIDTH), np.uint64)
        channels = []
        for channel, (depth, mask) in enumerate(zip(depths, stored, strict=False)):
            values = np.rint(samples(8, 4)[:, :, channel].astype(float) / 255 * ((1 << depth) - 1)).astype(np.uint64)
            words |= values << np.uint64((mask & -mask).bit_length() - 1)
            channels.append(np.rint(values.astype(float) * 255 / ((1 << depth) - 1)).astype(np.uint8))
        colours = np.dstack(channels[:3])
        pixels = over_white(colours, channels[3]) if len(channels) == 4 else colours
        yield PictureFile(
            f"bmp {name} {size} {top_down}", bmp(words, bits, size=size, masks=masks, top_down=top_down), pixels
        )


def bmps_by_others() -> Iterator[PictureFile]:
    for channels in (1, 3, 4):
        data = cv2.imencode(".bmp", samples(8, channels))[1].tobytes()
        values = samples(8, channels)
        pixels = grey_rgb(values) if channels == 1 else values[:, :, 2::-1]
        yield PictureFile(
            f"opencv bmp {channels}", data, over_white(pixels, values[:, :, 3]) if channels == 4 else pixels
        )
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = Image.fromarray(samples(8, 3)).convert(mode)
        data = by_pillow(image, "BMP")
        yield PictureFile(f"pillow bmp {mode}", data, np.asarray(image.convert("RGB")))


def jpegs() -> Iterator[PictureFile]:
    for size, subsampling, progressive, quality in itertools.product(
        (1, 3), ("444", "422", "420", "440", "411"), (0, 1), (30, 95)
    ):
        values = samples(8, size, 61, 47)
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{subsampling}")]
        data = cv2.imencode(".jpg", values, flags)[1].tobytes()
        yield PictureFile(f"opencv jpeg {size} {subsampling} {progressive} {quality}", data, opencv_pixels(data), 2.0)
    for interlace, subsample, optimize in itertools.product((False, True), ("on", "off"), (False, True)):
        data = by_vips(samples(8, 3), ".jpg", interlace=interlace, subsample_mode=subsample, optimize_coding=optimize)
        yield PictureFile(f"vips jpeg {interlace} {subsample} {optimize}", data, opencv_pixels(data), 2.0)
    for channels in (1, 3):
        data = imagecodecs.jpeg8_encode(samples(8, channels), lossless=True)
        yield PictureFile(f"lossless jpeg {channels}", data, _channels_rgb(samples(8, channels)))
    for progressive in (False, True):
        inks = Image.fromarray(samples(8, 4), "CMYK")
        data = by_pillow(inks, "JPEG", quality=95, progressive=progressive)
        yield PictureFile(f"pillow jpeg cmyk {progressive}", data, cmyk_rgb(samples(8, 4)), 4.0)
    for restarts in (1, 3):
        data = by_pillow(Image.fromarray(samples(8, 3)), "JPEG", restart_marker_blocks=restarts)
        yield PictureFile(f"pillow jpeg restarts {restarts}", data, opencv_pixels(data), 2.0)
    data = by_pillow(Image.fromarray(samples(8, 3)), "JPEG", quality=95, keep_rgb=True, subsampling=0)
    yield PictureFile("pillow jpeg rgb", data, samples(8, 3), 4.0)


_ZIGZAG = sorted(range(64), key=lambda k: (k // 8 + k % 8, (k // 8 if (k // 8 + k % 8) % 2 else k % 8)))
_DC_LENGTHS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
_DC_CODES = ("00", "010", "011", "100", "101", "110", "1110", "11110", "111110", "1111110", "11111110", "111111110")


def jpeg(planes: list[np.ndarray], samplings: list[tuple[int, int]]) -> bytes:
    """A baseline JPEG of YCbCr planes of full size, with any sampling factors (across, down) of the components.

    AC coefficients have codes of 8 bits, which the standard allows: run and size as they are.
    """
    height, width = planes[0].shape
    across, down = (max(factors) for factors in zip(*samplings, strict=True))
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    scaled = []
    for plane, (h, v) in zip(planes, samplings, strict=True):
        size = (columns * 8 * h, rows * 8 * v)
        padded = np.pad(plane, ((0, rows * 8 * down - height), (0, columns * 8 * across - width)), "edge")
        scaled.append(cv2.resize(padded, size, interpolation=cv2.INTER_AREA).astype(np.float32) - 128)
    ac_symbols = [0x00, 0xF0] + [run << 4 | size for run in range(16) for size in range(1, 11)]
    bits: list[str] = []
    predictions = [0] * len(planes)
    for row, column in itertools.product(range(rows), range(columns)):
        for index, (plane, (h, v)) in enumerate(zip(scaled, samplings, strict=True)):
            for y, x in itertools.product(range(v), range(h)):
                top, left = (row * v + y) * 8, (column * h + x) * 8
                block = np.rint(cv2.dct(plane[top : top + 8, left : left + 8]) / 4).astype(int).ravel()[_ZIGZAG]
                bits += _block_bits(block, predictions[index], ac_symbols)
                predictions[index] = int(block[0])
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    body = int(stream, 2).to_bytes(len(stream) // 8).replace(b"\xff", b"\xff\0")

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content

    ids = range(1, len(planes) + 1)
    components = b"".join(bytes([number, h << 4 | v, 0]) for number, (h, v) in zip(ids, samplings, strict=True))
    lengths = bytes(7) + bytes([len(ac_symbols)]) + bytes(8)
    return (
        b"\xff\xd8"
        + segment(0xDB, bytes([0]) + bytes([4]) * 64)
        + segment(0xC0, struct.pack(">BHHB", 8, height, width, len(planes)) + components)
        + segment(0xC4, b"\0" + bytes(_DC_LENGTHS) + bytes(range(12)) + b"\x10" + lengths + bytes(ac_symbols))
        + segment(0xDA, bytes([len(planes)]) + b"".join(bytes([number, 0]) for number in ids) + b"\0\x3f\0")
        + body
        + b"\xff\xd9"
    )


def _amplitude(value: int) -> tuple[int, str]:
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def _block_bits(block: np.ndarray, prediction: int, ac_symbols: list[int]) -> list[str]:
    size, amplitude = _amplitude(int(block[0]) - prediction)
    bits = [_DC_CODES[size] + amplitude]
    run = 0
    last = int(np.flatnonzero(block).max(initial=0))
    for value in block[1 : last + 1]:
        if value == 0:
            run += 1
            continue
        while run > 15:
            bits.append(f"{ac_symbols.index(0xF0):08b}")
            run -= 16
        size, amplitude = _amplitude(int(value))
        bits.append(f"{ac_symbols.index(run << 4 | size):08b}" + amplitude)
        run = 0
    return bits if last == 63 else [*bits, f"{ac_symbols.index(0):08b}"]


def jpegs_by_hand() -> Iterator[PictureFile]:
    """Subsamplings that few encoders write."""
    ycbcr = cv2.cvtColor(samples(8, 3, 61, 47), cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
    planes = [ycbcr[:, :, channel] for channel in range(3)]
    factors = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (1, 4), (2, 4), (3, 1), (1, 3)]
    for luma in factors:
        data = jpeg(planes, [luma, (1, 1), (1, 1)])
        yield PictureFile(f"jpeg by hand {luma}", data, opencv_pixels(data), 2.0)
    for chroma in ((2, 1), (1, 2)):
        data = jpeg(planes, [(2, 2), chroma, (1, 1)])
        yield PictureFile(f"jpeg by hand, chroma {chroma}", data, opencv_pixels(data), 2.0)
    data = jpeg(planes[:1], [(2, 2)])
    yield PictureFile("jpeg by hand, grey (2, 2)", data, opencv_pixels(data))


def _channels_rgb(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 3 else grey_rgb(values)


def webps_gifs_and_others() -> Iterator[PictureFile]:
    for lossless, channels in itertools.product((False, True), (3, 4)):
        data = imagecodecs.webp_encode(samples(8, channels), lossless=lossless, level=90)
        yield PictureFile(f"imagecodecs webp {lossless} {channels}", data, opencv_pixels(data), 2.0)
        data = by_vips(samples(8, channels), ".webp", lossless=lossless, Q=90)
        yield PictureFile(f"vips webp {lossless} {channels}", data, opencv_pixels(data), 2.0)
    for bits, interlace in itertools.product((1, 2, 4, 8), (False, True)):
        data = by_vips(samples(8, 3), ".gif", bitdepth=bits, interlace=interlace)
        yield PictureFile(f"vips gif {bits} {interlace}", data, opencv_pixels(data))
    for mode in ("1", "L", "P"):
        image = Image.fromarray(samples(8, 3)).convert(mode)
        data = by_pillow(image, "GIF")
        yield PictureFile(f"pillow gif {mode}", data, vips_pixels(data))
    for bits, order in itertools.product((8, 10), range(1, 3)):
        values = samples(bits, 3, 64, 48)
        data = imagecodecs.avif_encode(values, bitspersample=bits, level=95 if order == 1 else 100)
        decoded = imagecodecs.avif_decode(data)
        yield PictureFile(f"imagecodecs avif {bits} bits {order}", data, (decoded >> (bits - 8)).astype(np.uint8), 3.0)
    for channels, quality, subsampling in itertools.product((3, 4), (60, 95), ("444", "420")):
        values = samples(8, channels, 64, 48)
        data = imagecodecs.avif_encode(values, level=quality, pixelformat=subsampling)
        yield PictureFile(
            f"imagecodecs avif {channels} {quality} {subsampling}", data, _alpha_rgb(imagecodecs.avif_decode(data)), 3.0
        )


def heifs_and_jpeg_xls() -> Iterator[PictureFile]:
    """HEIF, of which no second reader exists as a wheel: what was written is expected. JPEG XL."""
    for channels, quality, size in itertools.product((3, 4), (80, 100), ((64, 48), (61, 47))):
        values = samples(8, channels, *size)
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(values)).save(buffer, quality=quality, chroma=444)
        yield PictureFile(f"heif {channels} {quality} {size}", buffer.getvalue(), _alpha_rgb(values), 4.0)
    for channels, bits, lossless in itertools.product((1, 3, 4), (8, 16), (False, True)):
        values = samples(bits, channels)
        data = imagecodecs.jpegxl_encode(values, lossless=lossless, distance=None if lossless else 1)
        decoded = eight_bits(imagecodecs.jpegxl_decode(data).astype(float), bits)
        name = f"jpeg xl {channels} {bits} {lossless}"
        yield PictureFile(
            name, data, grey_rgb(decoded.reshape(HEIGHT, WIDTH)) if channels == 1 else _alpha_rgb(decoded)
        )
    packed = by_pillow(Image.fromarray(samples(8, 3)), "JPEG")
    yield PictureFile("jpeg xl of a jpeg", imagecodecs.jpegxl_encode_jpeg(packed), opencv_pixels(packed), 2.0)


def _alpha_rgb(values: np.ndarray) -> np.ndarray:
    return over_white(values[:, :, :3], values[:, :, 3]) if values.shape[2] == 4 else values


WRITERS: tuple[Callable[[], Iterator[PictureFile]], ...] = (
    tiffs_of_whole_bytes,
    tiffs_by_hand,
    tiffs_of_other_kinds,
    tiffs_by_vips,
    pngs_by_hand,
    pngs_by_others,
    bmps,
    bmps_by_others,
    jpegs,
    jpegs_by_hand,
    webps_gifs_and_others,
    heifs_and_jpeg_xls,
)

"""Read the header of a TIFF file, and accept only kinds of pixels that are certain to be read right.

Tags and their meaning: TIFF 6.0 (Adobe, 1992), its supplements, and BigTIFF.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from batchland.errors import ImageError
from batchland.images.decode.picture import check_size

_TYPES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Codes of `struct` by type of a tag; fractions and floating-point numbers are not needed."""
_MAX_BLOCKS: Final = 100_000
"""Largest number of strips or tiles of a picture. Each takes several microseconds in Python."""
_HEADER_BYTES: Final = 8
_MAX_SAMPLES: Final = 32
_MAX_BITS_PER_PIXEL: Final = 64
"""For the largest pictures that are allowed: four samples of 16 bits. Smaller ones may have more."""
_MAX_PADDING: Final = 4
"""Pixels of all tiles together, in units of the largest number of pixels that is allowed."""
_MAX_PAGES: Final = 100
"""Largest number of further pages and subpages that are examined."""
_PREVIEW_RATIO: Final = 16
"""If another page has at least this many times the pixels of the first one, the first may be its preview."""

NONE, LZW, JPEG, DEFLATE, PACK_BITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
_COMPRESSIONS: Final = (NONE, LZW, JPEG, DEFLATE, PACK_BITS, OLD_DEFLATE, LZMA, ZSTD)
_WITH_PREDICTOR: Final = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
CHANNELS: Final = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_CAMERA_RAW: Final = (32803, 34892)
"""Photometric interpretations of a sensor's pixels."""
_UNSPECIFIED, PREMULTIPLIED_ALPHA, ALPHA = 0, 1, 2
NO_ALPHA, UNDECLARED = -1, -2
"""For `Page.alpha`: no sample is alpha; the file has a further sample, and does not say whether it is alpha."""

_TAGS: Final = {
    "subfile": 254, "old_subfile": 255, "width": 256, "height": 257, "bits": 258, "compression": 259,
    "photometric": 262, "fill_order": 266, "strip_offsets": 273, "orientation": 274, "samples": 277,
    "rows_per_strip": 278, "strip_sizes": 279, "planar": 284, "predictor": 317,
    "colour_map": 320, "tile_width": 322, "tile_height": 323, "tile_offsets": 324, "tile_sizes": 325,
    "subpages": 330, "ink_set": 332, "dot_range": 336, "extra_samples": 338, "sample_format": 339, "indexed": 346,
    "jpeg_tables": 347, "image_depth": 32997, "profile": 34675, "dng_version": 50706, "windows_media_photo": 0xBC01,
}  # fmt: skip


class Tag(NamedTuple):
    """Where a tag's value is."""

    kind: int
    length: int
    """Number of values."""
    position: int


class Directory:
    """The tags of one page, by name. Values are read when they are asked for."""

    def __init__(self, data: bytes, order: str, tags: dict[int, Tag], following: int) -> None:
        self.data = data
        self.order = order
        self._tags = tags
        self.following = following
        """Byte position of the next page's directory; 0 after the last page."""

    def __contains__(self, name: str) -> bool:
        return _TAGS[name] in self._tags

    def numbers(self, name: str, default: Sequence[int] = (), limit: int = 1 << 20) -> tuple[int, ...]:
        """The first `limit` whole numbers of a tag. Raises ImageError (`truncated`, `corrupt`)."""
        tag = self._tags.get(_TAGS[name])
        if tag is None:
            return tuple(default)
        if tag.kind not in _TYPES:
            raise ImageError("corrupt", f"its tag {_TAGS[name]} holds no whole numbers")
        count = min(tag.length, limit)
        form = f"{self.order}{count}{_TYPES[tag.kind]}"
        if tag.position + struct.calcsize(form) > len(self.data):
            raise ImageError("truncated", f"the file ends within its tag {_TAGS[name]}")
        return struct.unpack_from(form, self.data, tag.position)

    def number(self, name: str, default: int) -> int:
        """The only, or first, number of a tag."""
        values = self.numbers(name, (default,), 1)
        return values[0] if values else default

    def orientation(self) -> int:
        """EXIF orientation, 1 to 8. A value that is not a whole number is ignored, as by libtiff."""
        tag = self._tags.get(_TAGS["orientation"])
        is_number = tag is not None and tag.kind in _TYPES and tag.kind not in (2, 7)
        found = self.number("orientation", 1) if is_number else 1
        return found if 1 <= found <= 8 else 1

    def content(self, name: str) -> bytes | None:
        """The bytes of a tag."""
        tag = self._tags.get(_TAGS[name])
        if tag is None or tag.kind not in (1, 2, 7):
            return None
        return self.data[tag.position : tag.position + tag.length]


class Page(NamedTuple):
    """A page with a kind of pixels that is certainly read correctly."""

    width: int
    height: int
    bits: int
    """Per sample."""
    samples: int
    """Per pixel."""
    photometric: int
    compression: int
    planar: bool
    """Whether the samples of a pixel are in separate blocks."""
    big_endian: bool
    predictor: bool
    """Whether samples are differences from the sample to the left."""
    alpha: int
    """Index of the sample that is alpha, NO_ALPHA or UNDECLARED."""
    premultiplied: bool
    block_width: int
    block_height: int
    """Pixels of a tile, or of a strip."""
    tiled: bool
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    """Byte position and number of bytes of each block, planes one after the other."""
    directory: Directory

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        """Blocks one below the other."""
        return -(-self.height // self.block_height)

    @property
    def samples_per_block_row(self) -> int:
        """Samples in one row of a block."""
        return self.block_width * (1 if self.planar else self.samples)


def read_page(data: bytes, max_pixels: int) -> Page:
    """Read the first page's header. Raises ImageError (`unsupported_format` for kinds that are not read)."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    if data[8:10] == b"CR" or data[8:12] in (b"IIII", b"MMMM"):
        raise _unsupported("a camera raw file")
    start = _unpack(data, order, "Q" if big else "I", 8 if big else 4)
    directory = read_directory(data, order, big, start)
    width, height = directory.number("width", 0), directory.number("height", 0)
    check_size(width, height, max_pixels)
    _check_first_page(directory, big)
    photometric, bits, samples = _pixel_kind(directory)
    if width * height * samples * bits > _MAX_BITS_PER_PIXEL * max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels of {samples} samples of {bits} bits")
    compression = directory.number("compression", NONE)
    alpha, premultiplied = _alpha(directory, samples, CHANNELS[photometric])
    page = Page(
        width,
        height,
        bits,
        samples,
        photometric,
        compression,
        planar=samples > 1 and directory.number("planar", 1) == 2,
        big_endian=order == ">",
        predictor=directory.number("predictor", 1) == 2 and compression in _WITH_PREDICTOR,
        alpha=alpha,
        premultiplied=premultiplied,
        block_width=width,
        block_height=height,
        tiled=False,
        offsets=(),
        sizes=(),
        directory=directory,
    )
    _check_compression(page)
    return _with_blocks(page, max_pixels)


def read_directory(data: bytes, order: str, big: bool, start: int) -> Directory:
    """Read the directory of tags at a byte position. Raises ImageError (`truncated`, `corrupt`)."""
    entry, head = ("HHQ", "Q") if big else ("HHI", "H")
    count = _unpack(data, order, head, start)
    first, size = start + struct.calcsize(order + head), struct.calcsize(order + entry) + (8 if big else 4)
    if start < 8 or count == 0:
        raise ImageError("corrupt", "starts like a TIFF file, but its header is damaged")
    if first + count * size > len(data):
        raise ImageError("truncated", "the file ends within its header")
    tags: dict[int, Tag] = {}
    wanted = frozenset(_TAGS.values())
    inline = size - struct.calcsize(order + entry)
    for position in range(first, first + count * size, size):
        number, kind, length = struct.unpack_from(order + entry, data, position)
        if number not in wanted:
            continue
        if number in tags:
            raise ImageError("corrupt", f"its header gives tag {number} twice")
        value = position + size - inline
        width = struct.calcsize(order + _TYPES[kind]) if kind in _TYPES else 8
        if (kind in _TYPES and width * length > inline) or kind not in _TYPES:
            value = _unpack(data, order, "Q" if big else "I", value)
        tags[number] = Tag(kind, length, value)
    end = first + count * size
    following = _unpack(data, order, "Q" if big else "I", end) if end + inline <= len(data) else 0
    return Directory(data, order, tags, following)


def _unpack(data: bytes, order: str, form: str, position: int) -> int:
    if position + struct.calcsize(order + form) > len(data):
        raise ImageError("truncated", "the file ends within its header")
    return struct.unpack_from(order + form, data, position)[0]


def _unsupported(kind: str) -> ImageError:
    return ImageError("unsupported_format", f"{kind}, not a kind of TIFF that is read here")


def _check_first_page(first: Directory, big: bool) -> None:
    """The first page must be the picture, and not a preview of a page or subpage that follows."""
    if first.number("subfile", 0) & 0b101 or first.number("old_subfile", 1) == 2:
        raise _unsupported("a preview or mask on the first page")
    if "dng_version" in first:
        raise _unsupported("a camera raw file (DNG)")
    pixels = first.number("width", 0) * first.number("height", 0)
    for start in first.numbers("subpages", limit=_MAX_PAGES):
        subpage = _look(first, big, start)
        if subpage and (_size(subpage) > pixels or subpage.number("photometric", 1) in _CAMERA_RAW):
            raise _unsupported("a first page that is the preview of a larger subpage")
    page: Directory | None = first
    for _ in range(_MAX_PAGES):
        page = _look(first, big, page.following) if page and page.following else None
        if page and (_size(page) >= _PREVIEW_RATIO * pixels or page.number("photometric", 1) in _CAMERA_RAW):
            raise _unsupported("a first page that may be the preview of a much larger one")


def _look(first: Directory, big: bool, start: int) -> Directory | None:
    """Another page; None if it is damaged, which does not affect the first one."""
    try:
        return read_directory(first.data, first.order, big, start)
    except ImageError:
        return None


def _size(page: Directory) -> int:
    try:
        return page.number("width", 0) * page.number("height", 0)
    except ImageError:
        return 0


def _pixel_kind(directory: Directory) -> tuple[int, int, int]:
    """Photometric interpretation, bits per sample and samples per pixel, if they are certain."""
    photometric, samples = directory.number("photometric", -1), directory.number("samples", 1)
    if photometric in _CAMERA_RAW:
        raise _unsupported("a camera raw file")
    if photometric not in CHANNELS:
        raise _unsupported(
            f"pixels of photometric interpretation {photometric}" if photometric >= 0 else "undefined colours"
        )
    if not CHANNELS[photometric] <= samples <= _MAX_SAMPLES:
        raise _unsupported(f"{samples} samples per pixel of photometric interpretation {photometric}")
    depths = set(directory.numbers("bits", (1,), _MAX_SAMPLES)[:samples]) or {1}
    formats = set(directory.numbers("sample_format", (1,), _MAX_SAMPLES)[:samples]) or {1}
    if formats != {1}:
        raise _unsupported("samples that are not unsigned whole numbers")
    bits = max(depths)
    if depths != {bits} or not 1 <= bits <= 16:
        raise _unsupported(f"samples of {', '.join(map(str, sorted(depths)))} bits")
    if photometric == PALETTE and samples > 1 and bits != 8:
        raise _unsupported(f"a palette of {bits} bits with further samples")
    allowed = {PALETTE: (1, 2, 4, 8), CMYK: (8, 16), YCBCR: (8,)}.get(photometric, range(1, 17))
    if bits not in allowed:
        raise _unsupported(f"samples of {bits} bits with photometric interpretation {photometric}")
    if directory.number("image_depth", 1) != 1 or directory.number("indexed", 0) or "windows_media_photo" in directory:
        raise _unsupported("a volume, or colours of an index")
    if photometric == CMYK and directory.number("ink_set", 1) != 1:
        raise _unsupported("inks other than cyan, magenta, yellow and black")
    dots = directory.numbers("dot_range", (0, (1 << bits) - 1))
    if photometric == CMYK and (set(dots[::2]), set(dots[1::2])) != ({0}, {(1 << bits) - 1}):
        raise _unsupported("inks with a dot range other than the usual one")
    if directory.number("planar", 1) not in (1, 2):
        raise ImageError("corrupt", "its header is damaged")
    if directory.number("fill_order", 1) != 1:
        raise _unsupported("bytes with reversed bits")
    return photometric, bits, samples


def _alpha(directory: Directory, samples: int, channels: int) -> tuple[int, bool]:
    """Index of the alpha sample, and whether colours are multiplied by it."""
    further = samples - channels
    kinds = directory.numbers("extra_samples", (), _MAX_SAMPLES)
    if not further:
        return NO_ALPHA, False
    if not kinds:
        return UNDECLARED, False
    kinds = tuple(ALPHA if kind == 999 else kind for kind in kinds[:further])  # as Corel Draw 10 writes it
    if len(kinds) != further or not set(kinds) <= {_UNSPECIFIED, PREMULTIPLIED_ALPHA, ALPHA}:
        raise _unsupported("further samples of unknown meaning")
    alphas = [channels + index for index, kind in enumerate(kinds) if kind != _UNSPECIFIED]
    if len(alphas) > 1:
        raise _unsupported("more than one alpha sample")
    return (alphas[0], kinds[alphas[0] - channels] == PREMULTIPLIED_ALPHA) if alphas else (NO_ALPHA, False)


def _check_compression(page: Page) -> None:
    directory = page.directory
    if page.compression not in _COMPRESSIONS:
        raise _unsupported(f"compression {page.compression}")
    predictor = directory.number("predictor", 1)
    if predictor != 1 and not (
        (page.predictor and page.bits in (8, 16)) or (predictor == 2 and page.compression in (JPEG, PACK_BITS))
    ):
        raise _unsupported(f"predictor {predictor} with samples of {page.bits} bits and compression {page.compression}")
    if page.compression == JPEG and (
        page.bits != 8 or page.planar or page.samples not in (1, 3, 4) or page.alpha != NO_ALPHA
    ):
        raise _unsupported("JPEG compression of this kind of pixels")
    if page.photometric == YCBCR and (page.compression != JPEG or page.samples != 3):
        raise _unsupported("YCbCr without JPEG compression, or with further samples")


def _with_blocks(page: Page, max_pixels: int) -> Page:
    """The page with the sizes and positions of its strips or tiles."""
    directory = page.directory
    tiled = "tile_width" in directory
    if tiled:
        block_width, block_height = directory.number("tile_width", 0), directory.number("tile_height", 0)
        check_size(block_width, block_height, max_pixels)
        if block_width * page.bits * (1 if page.planar else page.samples) % 8:
            raise _unsupported(f"tiles of {block_width} pixels of {page.bits} bits")
    else:
        block_width, block_height = page.width, min(directory.number("rows_per_strip", page.height), page.height)
        if block_height < 1:
            raise ImageError("corrupt", "its strips have no rows")
    page = page._replace(block_width=block_width, block_height=block_height, tiled=tiled)
    if page.across * block_width * page.down * block_height > _MAX_PADDING * max_pixels:
        raise ImageError("too_many_pixels", f"tiles of {block_width} x {block_height} pixels for a smaller picture")
    count = page.across * page.down * (page.samples if page.planar else 1)
    if count > _MAX_BLOCKS:
        raise _unsupported(f"a picture in {count} pieces, more than {_MAX_BLOCKS}")
    kind = "tile" if "tile_offsets" in directory else "strip"  # some writers list tiles as strips
    offsets, sizes = (directory.numbers(f"{kind}_{fact}", (), count) for fact in ("offsets", "sizes"))
    if len(offsets) < count or (len(sizes) < count and page.compression != NONE):
        raise ImageError("corrupt", f"its header lists {min(len(offsets), len(sizes))} of {count} {kind}s")
    if 0 in offsets:
        raise _unsupported(f"a picture that leaves out {kind}s")
    if min(offsets) < _HEADER_BYTES:
        raise ImageError("corrupt", f"a {kind} overlaps the header")
    return page._replace(offsets=offsets, sizes=sizes)

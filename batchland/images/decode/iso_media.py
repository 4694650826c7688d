"""Find the compressed pictures in HEIF and AVIF files, and the damage that their decoders do not report.

Boxes and their fields: ISO/IEC 14496-12, `meta`, `iinf` and `iloc`.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Final, NamedTuple

from batchland.errors import ImageError
from batchland.images.decode import av1, hevc
from batchland.images.decode.picture import check_size, check_transfer, check_zeros

_HEVC: Final = (b"hvc1", b"hev1")
_CODED: Final = (*_HEVC, b"av01")
"""Types of items that are compressed pictures. Other items are metadata or combinations of pictures."""
_IN_FILE, _IN_META = 0, 1
"""Origins of positions: the beginning of the file, or of the data in `meta`."""
_AVIF_PROPERTIES: Final = frozenset(
    (b"av1C", b"ispe", b"pixi", b"colr", b"pasp", b"clap", b"irot", b"imir", b"auxC", b"a1op", b"lsel", b"a1lx")
)
"""Properties that libavif knows."""
_MAX_BOXES: Final = 10_000
"""Largest number of boxes in a box, and of pieces of all items. A picture of 100 megapixels has some hundred tiles."""
_MAX_CONFIGURATIONS: Final = 100
"""Largest number of descriptions of compressed data. The tiles of a picture share one."""
_TIMES_READ: Final = 2
"""Pieces may overlap; their total size is at most this many times that of the file."""
_MAX_ZERO_RUN: Final = 64
"""Zero bytes in a row. HEVC forbids three; encoders of AV1 write fewer than 16, even for a single colour."""


def check_pictures(data: bytes) -> None:
    """Raise ImageError (`corrupt`) if compressed pictures are divided wrongly, or zeros replace a part of them.

    Leaves files with damaged boxes to the decoder.
    """
    left = _TIMES_READ * len(data)
    try:
        for picture in _pictures(data)[1].values():
            for begin, end in picture.pieces:
                left -= end - begin
                if left < 0:
                    return
                check_zeros(data[begin:end], _MAX_ZERO_RUN)
            if picture.kind in _HEVC and len(picture.pieces) == 1 and end <= len(data):
                hevc.check_units(data, begin, end)
    except (struct.error, KeyError, IndexError):
        return


def without_end_of_picture(data: bytes, spare: int) -> bytes | None:
    """An AVIF with `spare` bytes less in the picture that is shown. None if it consists of several pieces."""
    try:
        shown, pictures = _pictures(data)
        ((begin, end),) = pictures[shown].pieces
    except (struct.error, KeyError, ValueError, IndexError):
        return None
    return av1.without_last_bytes(data, begin, min(end, len(data)), spare)


def check_colours(data: bytes) -> None:
    """Raise ImageError (`unsupported_format`) for HDR.

    Reads what the container says about the picture that is shown; if it says nothing about colours, reads the
    compressed data. Leaves files with damaged boxes to the decoder.
    """
    with suppress(struct.error, KeyError, IndexError):
        for number in _transfers(data):
            check_transfer(number)


def _transfers(data: bytes) -> Iterator[int]:
    """Transfer characteristics (ITU-T H.273). Of a picture of several pieces, those of each."""
    shown, by_item, properties = _properties(data)
    colours = [each.begin for each in by_item.get(shown, ()) if each.kind == b"colr"]
    if colours:
        for begin in colours:
            yield from _of_colr(data, begin)
        return
    configurations = [each for each in properties if each.kind == b"hvcC"]
    if len(configurations) > _MAX_CONFIGURATIONS:
        raise ImageError(
            "corrupt", f"more than {_MAX_CONFIGURATIONS} kinds of compressed data, which no encoder writes"
        )
    for each in configurations:
        yield hevc.transfer_of(data[each.begin : each.end])
    for _, content in _av1_items(data):
        yield av1.read_sequence(content).transfer


def _of_colr(data: bytes, begin: int) -> list[int]:
    """The transfer characteristics in a `colr` box; none in one with an ICC profile."""
    return [int.from_bytes(data[begin + 6 : begin + 8])] if data[begin : begin + 4] == b"nclx" else []


def _av1_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each compressed picture of an AVIF."""
    left = _TIMES_READ * len(data)
    for item, picture in _pictures(data)[1].items():
        if picture.kind == b"av01":
            left -= sum(end - begin for begin, end in picture.pieces)
            if left < 0:
                raise ImageError("corrupt", "its compressed pictures overlap")
            yield item, b"".join(data[begin:end] for begin, end in picture.pieces)


def check_avif_sizes(data: bytes, max_pixels: int) -> None:
    """Raise ImageError unless all compressed pictures of an AVIF have the sizes that the container gives.

    libavif decodes them at their own size, and then resizes them.
    """
    try:
        by_item = _properties(data)[1]
        for item, content in _av1_items(data):
            own, at = av1.read_sequence(content).size, [each.begin for each in by_item[item] if each.kind == b"ispe"]
            check_size(*own, max_pixels)
            if own != struct.unpack_from(">II", data, at[0] + 4):
                raise ImageError("corrupt", "its header gives more than one size")
    except (struct.error, KeyError, IndexError) as error:
        raise ImageError("corrupt", "its boxes are damaged") from error


def check_avif_properties(data: bytes) -> None:
    """Raise ImageError (`unsupported_format`) for animations, and what libavif does not read or reads differently."""
    try:
        if b"moov" in _children(data, 0, len(data)):
            raise ImageError("unsupported_format", "an AVIF animation, not a kind that is read here")
        shown, by_item, _ = _properties(data)
    except (struct.error, KeyError, IndexError):
        return
    of_shown = by_item.get(shown, [])
    for each in of_shown:
        if each.is_essential and each.kind not in _AVIF_PROPERTIES:
            name = each.kind.decode("latin-1")
            raise ImageError("unsupported_format", f"an AVIF with a property {name}, which is not read here")
    turns = [each.kind for each in of_shown if each.kind in (b"irot", b"imir")]
    if len(turns) > 1 and turns != [b"irot", b"imir"]:
        raise ImageError(
            "unsupported_format", "an AVIF that turns its picture in an unusual order, not a kind that is read here"
        )


class _Property(NamedTuple):
    kind: bytes
    begin: int
    end: int
    is_essential: bool = False
    """Whether a reader that does not know it must not show the picture."""


def _properties(data: bytes) -> tuple[int, dict[int, list[_Property]], list[_Property]]:
    """The item that is shown, the properties of each item in the order in which they apply, and all properties."""
    begin, end = _children(data, 0, len(data))[b"meta"]
    meta = _children(data, begin + 4, end)
    begin, end = meta[b"pitm"]
    shown = int.from_bytes(data[begin + 4 : end])
    parts = _children(data, *meta[b"iprp"])
    properties = [_Property(*box) for box in boxes(data, *parts[b"ipco"])]
    by_item = {
        item: [properties[number - 1]._replace(is_essential=is_essential) for number, is_essential in links if number]
        for item, links in _associations(data, parts[b"ipma"][0])
    }
    return shown, by_item, properties


def _associations(data: bytes, position: int) -> Iterator[tuple[int, list[tuple[int, bool]]]]:
    """Items, each with the number, from 1, of each property, and whether it is essential."""
    version_and_flags, number = struct.unpack_from(">II", data, position)
    _check_count(number)
    item_form = ">HB" if version_and_flags >> 24 == 0 else ">IB"
    width, first_bit = (2, 0x8000) if version_and_flags & 1 else (1, 0x80)
    position += 8
    for _ in range(number):
        item, links = struct.unpack_from(item_form, data, position)
        position += struct.calcsize(item_form)
        packed = struct.unpack_from(f">{links}{'H' if width == 2 else 'B'}", data, position)
        yield item, [(each & first_bit - 1, bool(each & first_bit)) for each in packed]
        position += links * width


def _check_count(count: int) -> None:
    if count > _MAX_BOXES:
        raise ImageError("corrupt", f"more than {_MAX_BOXES} boxes, which no encoder writes")


def _children(data: bytes, begin: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Begin and end of the content of the boxes in a part of a file, by type."""
    return {kind: (first, last) for kind, first, last in boxes(data, begin, end)}


def boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, and begin and end of the content, of the boxes in a part of a file. Raises ImageError for too many."""
    for number in count():
        if begin + 8 > end:
            return
        _check_count(number)
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            if begin + 16 > end:
                return
            (size,) = struct.unpack_from(">Q", data, begin + 8)
            head = 16
        following = begin + size if size else end
        if following < begin + head:
            return
        yield kind, begin + head, min(following, end)
        begin = following


class _Compressed(NamedTuple):
    kind: bytes
    pieces: list[tuple[int, int]]
    """Begin and end of each."""


def _pictures(data: bytes) -> tuple[int, dict[int, _Compressed]]:
    """The item that is shown, and the compressed pictures by item."""
    begin, end = _children(data, 0, len(data))[b"meta"]
    meta = _children(data, begin + 4, end)
    pictures = {item: _Compressed(kind, []) for item, kind in _coded_items(data, *meta[b"iinf"])}
    own_data = meta.get(b"idat", (0, 0))[0]
    for item, method, first, last in _locations(data, meta[b"iloc"][0]):
        if item in pictures and method in (_IN_FILE, _IN_META):
            start = own_data if method == _IN_META else 0
            pictures[item].pieces.append((start + first, start + last))
    begin, end = meta.get(b"pitm", (0, 0))
    return int.from_bytes(data[begin + 4 : end]), pictures


def _coded_items(data: bytes, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number and type of each item that is a compressed picture."""
    for kind, start, _ in boxes(data, begin + (6 if data[begin] == 0 else 8), end):
        if kind == b"infe" and data[start] >= 2:
            item, _, item_kind = struct.unpack_from(">HH4s" if data[start] == 2 else ">IH4s", data, start + 4)
            if item_kind in _CODED:
                yield item, item_kind


def _locations(data: bytes, position: int) -> Iterator[tuple[int, int, int, int]]:
    """Item, how its positions are meant, and begin and end, of each piece of an item."""

    def take(size: int) -> int:
        nonlocal position
        if position + size > len(data):
            raise struct.error("the file ends within its header")
        position += size
        return int.from_bytes(data[position - size : position])

    version, _, sizes = take(1), take(3), take(2)
    pieces = 0
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(take(2 if version < 2 else 4)):
        item = take(2 if version < 2 else 4)
        method = take(2) & 15 if version else _IN_FILE
        take(2)
        base = take(base_size)
        for _ in range(take(2)):
            pieces += 1
            _check_count(pieces)
            take(index_size if version else 0)
            first = base + take(offset_size)
            length = take(length_size)
            yield item, method, first, first + length if length else len(data)

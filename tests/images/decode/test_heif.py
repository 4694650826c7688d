"""HEIF and AVIF: orientation of the container, the missing package, cut files."""

import builtins
import io
import struct
import time

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from damage import encoded, photo
from picture_files import samples
from PIL import Image, ImageCms

from batchland.errors import ImageError
from batchland.images.decode.iso_media import _pictures, check_avif_sizes, check_colours, check_pictures
from batchland.images.preprocess import PreprocessSpec, decode

SPEC = PreprocessSpec()
VALUES = samples(8, 3, 64, 48)
UPRIGHT = {
    1: VALUES, 2: VALUES[:, ::-1], 3: VALUES[::-1, ::-1], 4: VALUES[::-1], 5: VALUES.swapaxes(0, 1),
    6: np.rot90(VALUES, -1), 7: VALUES[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(VALUES),
}  # fmt: skip
"""By EXIF orientation."""


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def heif(**options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(VALUES)).save(buffer, quality=95, **{"chroma": 444, **options})
    return buffer.getvalue()


def close(pixels: np.ndarray, expected: np.ndarray) -> bool:
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_as_its_container_says(orientation):
    data = encoded(Image.fromarray(VALUES), "AVIF", exif=exif(orientation), quality=95)
    assert (b"irot" in data or b"imir" in data) == (orientation != 1)
    decoded = decode(data, SPEC)
    assert close(decoded.pixels, UPRIGHT[orientation])
    assert decoded[1:] == UPRIGHT[orientation].shape[1::-1]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (13, None), (1, None)])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_hdr_is_refused(kind, transfer, name):
    data = encoded(Image.fromarray(VALUES), "AVIF", quality=95) if kind == "AVIF" else heif()
    at = data.index(b"colrnclx") + 10
    data = data[:at] + struct.pack(">H", transfer) + data[at + 2 :]
    if name is None:
        assert close(decode(data, SPEC).pixels, VALUES)
        return
    with pytest.raises(ImageError) as caught:
        decode(data, SPEC)
    assert str(caught.value) == f"an HDR picture ({name}), not a kind that is read here"
    assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("transfer", [1, 13, 16, 18])
@pytest.mark.parametrize("options", [{}, {"chroma": 420}, {"enc_params": {"x265:scaling-list": "default"}}], ids=str)
def test_hdr_in_the_compressed_data_alone_is_refused(transfer, options):
    """Without a property of the container the values in the parameters of the sequence count (ISO/IEC 23008-12)."""
    data = heif(
        save_nclx_profile=True, color_primaries=9, transfer_characteristics=transfer, matrix_coefficients=9,
        full_range_flag=1, **options,
    )  # fmt: skip
    assert_refused_if_hdr(data.replace(b"colrnclx", b"freenclx"), transfer)


@pytest.mark.parametrize("transfer", [1, 13, 16, 18])
@pytest.mark.parametrize("bits", [8, 10])
def test_hdr_in_the_compressed_data_of_an_avif_is_refused(transfer, bits):
    data = imagecodecs.avif_encode(
        samples(bits, 3, 64, 48), bitspersample=bits, primaries=9, transfer=transfer, matrix=9
    )
    assert b"colrnclx" in data
    assert_refused_if_hdr(data.replace(b"colrnclx", b"freenclx"), transfer)


def assert_refused_if_hdr(data: bytes, transfer: int) -> None:
    if transfer not in (16, 18):
        assert decode(data, SPEC).pixels.shape == (48, 64, 3)
        return
    with pytest.raises(ImageError) as caught:
        decode(data, SPEC)
    name = {16: "PQ", 18: "HLG"}[transfer]
    assert str(caught.value) == f"an HDR picture ({name}), not a kind that is read here"


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_profile_in_the_container_counts_more_than_the_compressed_data(kind):
    """Phones give a profile, and nothing else."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "HEIF":
        data = heif(icc_profile=profile)
    else:
        data = encoded(Image.fromarray(VALUES), "AVIF", icc_profile=profile)
    assert b"colrprof" in data
    assert decode(data, SPEC).pixels.shape == VALUES.shape


def with_properties(data: bytes, *properties: bytes) -> bytes:
    """An AVIF by Pillow with further properties of its first picture, which the decoder must know."""
    meta, parts, links = (data.index(kind) - 4 for kind in (b"meta", b"ipco", b"ipma"))
    first = links + 8 + 8  # of the associations of the first picture, after version, flags and their number
    assert data[first : first + 2] == b"\0\1"
    known = data[parts:links].count(b"ispe") + data[parts:links].count(b"pixi") + data[parts:links].count(b"colr") + 1
    added = bytes(0x80 | known + number for number in range(1, len(properties) + 1))
    count = data[first + 2]
    end = first + 3 + count
    links_box = data[links:first] + b"\0\1" + bytes([count + len(added)]) + data[first + 3 : end] + added
    after_links = data[end:]
    size = len(added) + len(b"".join(properties))
    changed = bytearray(data[:links] + b"".join(properties) + links_box + after_links)

    def enlarge(position: int, by: int) -> None:
        changed[position : position + 4] = (int.from_bytes(changed[position : position + 4]) + by).to_bytes(4)

    enlarge(meta, size)
    enlarge(data.index(b"iprp") - 4, size)
    enlarge(parts, size - len(added))
    enlarge(links + size - len(added), len(added))
    ((begin, _),) = _pictures(data)[1][1].pieces
    place = data.index(begin.to_bytes(4), data.index(b"iloc"))
    enlarge(place, size)
    return bytes(changed)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


TURN, MIRROR = box(b"irot", b"\1"), box(b"imir", b"\0")


def test_an_avif_is_turned_and_then_mirrored():
    data = encoded(Image.fromarray(VALUES), "AVIF", quality=95)
    turned = np.rot90(VALUES)
    for properties, expected in (
        ((), VALUES), ((TURN,), turned), ((MIRROR,), VALUES[::-1]), ((TURN, MIRROR), turned[::-1]),
    ):  # fmt: skip
        assert close(decode(with_properties(data, *properties), SPEC).pixels, expected)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ((MIRROR, TURN), "an AVIF that turns its picture in an unusual order, not a kind that is read here"),
        ((TURN, TURN), "an AVIF that turns its picture in an unusual order, not a kind that is read here"),
        ((MIRROR, MIRROR), "an AVIF that turns its picture in an unusual order, not a kind that is read here"),
        ((box(b"abcd", b"1234"),), "an AVIF with a property abcd, which is not read here"),
        ((box(b"clap", struct.pack(">8I", 8, 1, 8, 1, 0, 1, 0, 1)),),
         "an AVIF that crops its picture, not a kind that is read here"),
    ],
    ids=["mirror turn", "turn turn", "mirror mirror", "unknown", "crop"],
)  # fmt: skip
def test_avifs_of_other_properties_are_unsupported(properties, message):
    """libavif turns before it mirrors, whatever the order, and each once."""
    data = with_properties(encoded(Image.fromarray(VALUES), "AVIF"), *properties)
    with pytest.raises(ImageError) as caught:
        decode(data, SPEC)
    assert (caught.value.code, str(caught.value)) == ("unsupported_format", message)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heif_is_turned_as_its_container_says_and_only_once(orientation):
    """Writers put the orientation into the EXIF block as well, which does not count."""
    data = heif(exif=exif(orientation).tobytes())
    assert (b"irot" in data or b"imir" in data) == (orientation != 1)
    entry = struct.pack(">HHIH", 0x0112, 3, 1, orientation)
    for other in (orientation, 1, 5):
        decoded = decode(data.replace(entry, entry[:-2] + struct.pack(">H", other)), SPEC)
        assert close(decoded.pixels, UPRIGHT[orientation])
        assert decoded[1:] == UPRIGHT[orientation].shape[1::-1]


def test_size_is_checked_before_decoding():
    for data in (heif(), encoded(Image.fromarray(VALUES), "AVIF")):
        with pytest.raises(ImageError) as caught:
            decode(data, PreprocessSpec(max_pixels=3000))
        assert (caught.value.code, str(caught.value)) == (
            "too_many_pixels", "64 x 48 pixels, more than max_pixels = 3000",
        )  # fmt: skip


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (32, 24), (8, 8)], ids=str)
def test_avifs_of_another_size_than_their_container_says_are_corrupt(size):
    """libavif decodes the compressed picture at its own size, which may be larger than is allowed, and resizes it."""
    picture = encoded(Image.fromarray(VALUES), "AVIF")
    alpha = encoded(Image.fromarray(VALUES).convert("RGBA"), "AVIF")
    own, claimed = (struct.pack(">II", *each) for each in ((64, 48), size))
    for whole, data in ((picture, picture.replace(own, claimed)), (alpha, alpha.replace(own, claimed))):
        assert decode(whole, SPEC).pixels.shape == (48, 64, 3)
        for max_pixels, error in (
            (64 * 48, ("corrupt", "its header gives more than one size")),
            (64 * 48 - 1, ("too_many_pixels", "64 x 48 pixels, more than max_pixels = 3071")),
        ):
            if size[0] * size[1] <= max_pixels:
                with pytest.raises(ImageError) as caught:
                    decode(data, PreprocessSpec(max_pixels=max_pixels))
                assert (caught.value.code, str(caught.value)) == error


@pytest.mark.parametrize("gap", [0, 5000])
def test_a_second_header_in_an_avif_does_not_hide_the_size(gap):
    """In the middle of the compressed data, which decoders follow."""
    data = encoded(Image.fromarray(VALUES), "AVIF")
    ((begin, end),) = _pictures(data)[1][1].pieces
    content = data[begin:end]
    kind, size = content[2], content[3]  # after a temporal delimiter, which is empty
    assert (content[:2], kind >> 3) == (b"\x12\0", 1)
    header = content[2 : 4 + size]
    small = header[:3] + bytes([header[3] & 0xE0 | 0x10]) + header[4:]
    padding = bytes([15 << 3 | 2, 0x80 | gap & 0x7F, gap >> 7]) + bytes(gap) if gap else b""
    longer = content[:2] + small + padding + content[2:]
    place = data.index(struct.pack(">II", begin, end - begin))
    moved = data[:place] + struct.pack(">II", begin, len(longer)) + data[place + 8 : begin] + longer
    with pytest.raises(ImageError) as caught:
        check_avif_sizes(moved, 64 * 48)
    assert (caught.value.code, str(caught.value)) == ("corrupt", "its compressed data has 2 headers")


def test_an_animation_is_refused():
    data = encoded(Image.fromarray(VALUES), "AVIF", save_all=True, append_images=[Image.fromarray(VALUES[::-1])])
    with pytest.raises(ImageError) as caught:
        decode(data, SPEC)
    assert (caught.value.code, str(caught.value)) == (
        "unsupported_format", "an AVIF animation, not a kind that is read here",
    )  # fmt: skip


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_files_fail(share):
    for data in (heif(), encoded(Image.fromarray(VALUES), "AVIF")):
        with pytest.raises(ImageError) as caught:
            decode(data[: int(len(data) * share)], SPEC)
        assert caught.value.code in ("corrupt", "truncated")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("container", [False, True], ids=["codestream", "container"])
def test_cut_jpeg_xl_files_fail_in_words(share, container):
    """Only a container says how long the file is."""
    pillow_jxl = pytest.importorskip("pillow_jxl")
    data = pillow_jxl.Encoder("RGB")(VALUES.tobytes(), VALUES.shape[1], VALUES.shape[0], jpeg_encode=False)
    if container:
        box = (len(data) + 8).to_bytes(4) + b"jxlc"
        data = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl " + box + data
    assert decode(data, SPEC).pixels.shape
    with pytest.raises(ImageError) as caught:
        decode(data[: int(len(data) * share)], SPEC)
    assert (caught.value.code, str(caught.value)) in (
        [("truncated", "the file ends before its last pixel"), ("truncated", "the file ends before its picture")]
        if container
        else [("corrupt", "its compressed data cannot be decoded")]
    )


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        ("pillow_heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
         "a HEIF file, which the package pillow-heif reads: pip install 'batchland[heic]'"),
        ("pillow_jxl", b"\xff\x0a\x41\x00" + bytes(40),
         "a JPEG XL file, which the package pillow-jxl-plugin reads: pip install 'batchland[jxl]'"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named(monkeypatch, module, data, message):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(module):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageError) as caught:
        decode(data, SPEC)
    assert (caught.value.code, str(caught.value)) == ("unsupported_format", message)


def test_a_heif_of_wrongly_divided_data_is_corrupt():
    """libde265 skips units that it cannot read."""
    data = heif()
    ((begin, _),) = _pictures(data)[1][1].pieces
    for damaged in (
        data[:begin] + bytes([0, 0, 0, 9]) + data[begin + 4 :],
        data[: begin + 4] + bytes([0xFF]) + data[begin + 5 :],
        data[: begin + 4] + bytes([33 << 1]) + data[begin + 5 :],
    ):
        with pytest.raises(ImageError) as caught:
            decode(damaged, SPEC)
        assert (caught.value.code, str(caught.value)) == ("corrupt", "its compressed data is divided wrongly")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_zeros_in_the_picture_are_damage_and_zeros_in_metadata_are_not(kind):
    """As an interrupted download leaves them. The decoders take zeros for pixels."""
    image = photo(400, 300)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(5000)
    if kind == "AVIF":
        data = encoded(image, kind, quality=90, exif=exif)
    else:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer, quality=90, exif=exif)
        data = buffer.getvalue()
    assert close(decode(data, SPEC).pixels, np.asarray(image))
    ((begin, end),) = _pictures(data)[1][1].pieces
    middle = (begin + end) // 2
    for first, last in ((middle, end), (middle, middle + 100)):
        with pytest.raises(ImageError, match="a part of the picture is replaced by zeros"):
            decode(data[:first] + bytes(last - first) + data[last:], SPEC)


def many_properties(count: int, kind: bytes, content: bytes) -> bytes:
    """The boxes of a file with many properties, none of which is about colours."""
    links = box(b"ipma", struct.pack(">IIHB", 0, 1, 1, 0))
    properties = box(b"iprp", box(b"ipco", box(kind, content) * count) + links)
    return box(b"meta", bytes(4) + box(b"pitm", struct.pack(">IH", 0, 1)) + properties)


def test_costs_of_a_crafted_header_are_bounded():
    """Millions of empty boxes; an item of millions of pieces without a size."""
    piece = struct.pack(">HHH", 1, 0, 0xFFFF)
    location = struct.pack(">I4sIHH", 20 + len(piece) * 20_000, b"iloc", 0, 0, 20_000) + piece * 20_000
    items = struct.pack(">I4sIHI4sIHH4s", 34, b"iinf", 0, 1, 20, b"infe", 2 << 24, 1, 0, b"av01")
    meta = struct.pack(">I4sI", 12 + len(items) + len(location), b"meta", 0) + items + location
    properties = many_properties(300, b"hvcC", bytes(22) + b"\1\x21\0\1" + struct.pack(">H", 60_000) + bytes(60_000))
    long = many_properties(90, b"hvcC", bytes(22) + b"\1\x21\0\1" + struct.pack(">H", 60_000) + b"\xff" * 60_000)
    begin = time.process_time()
    for data in (properties, long):
        with pytest.raises(ImageError):
            check_colours(data)
    for data in (meta, struct.pack(">I4s", 8, b"free") * 1_000_000):
        with pytest.raises(ImageError, match="more than 10000 boxes, which no encoder writes"):
            check_pictures(data)
    assert time.process_time() - begin < 2

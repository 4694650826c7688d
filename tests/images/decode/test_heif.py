"""HEIF and AVIF: orientation of the container, the missing package, cut files."""

import builtins
import io
import struct
import time

import numpy as np
import pillow_heif
import pytest
from damage import encoded, photo
from picture_files import samples
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.iso_media import _pictures, check_pictures
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
    pillow_heif.from_pillow(Image.fromarray(VALUES)).save(buffer, quality=95, chroma=444, **options)
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


def test_costs_of_a_crafted_header_are_bounded():
    """Millions of empty boxes; an item of millions of pieces without a size."""
    piece = struct.pack(">HHH", 1, 0, 0xFFFF)
    location = struct.pack(">I4sIHH", 20 + len(piece) * 20_000, b"iloc", 0, 0, 20_000) + piece * 20_000
    items = struct.pack(">I4sIHI4sIHH4s", 34, b"iinf", 0, 1, 20, b"infe", 2 << 24, 1, 0, b"av01")
    meta = struct.pack(">I4sI", 12 + len(items) + len(location), b"meta", 0) + items + location
    begin = time.process_time()
    check_pictures(meta)
    check_pictures(struct.pack(">I4s", 8, b"free") * 1_000_000)
    assert time.process_time() - begin < 2

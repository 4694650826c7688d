"""A folder of files that are known to break image pipelines: each has exactly one row, with the expected code."""

import os
import socket
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import forks
import pyarrow.parquet as pq
import pytest
from damage import encoded, error_of, photo, valid_images
from picture_files import png, png_chunk
from PIL import Image
from toys import picture

from batchland.images.sources.refs import MAX_FILE_BYTES

OK = None
LIBTIFF = ("tempfile.tif", "Fax4Decode", "JPEGLib", "LZWDecode", "ZIPDecode", "TIFF")
"""It tells stderr of damage, and Pillow gives no way to stop it."""
FIRST_FRAME_FIRST = ("jpeg multi-picture", "png animated", "gif animated", "tiff pages")
"""Half of such a file holds all of the picture that counts."""


def png_with(kind: bytes, data: bytes) -> bytes:
    """A small PNG with another chunk after its header."""
    whole = encoded(photo(8, 8), "PNG")
    return whole[:33] + png_chunk(kind, data) + whole[33:]


def png_of_size(width: int, height: int) -> bytes:
    return png(width, height, 1, 0, b"\0" * 9)


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF of (tag, type, count, value) entries; its data starts at 14 + 12 * len(tags)."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + b"\0\0\0\0" + tail


def tiff_with_a_huge_tile() -> bytes:
    data = zlib.compress(b"\0" * 10**7)
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 14 + 12 * 10), (325, 4, 1, len(data))]
    return tiff(tags, data)


def overlapping_tags(size: int) -> bytes:
    """EXIF of which sixty thousand tags say that each holds the same two megabytes."""
    return tiff([(1000 + index, 1, size, 8) for index in range(60_000)], b"\0" * size)


def jpeg_with_exif(exif: bytes) -> bytes:
    """The EXIF block in as many segments as it takes."""
    pieces = [b"Exif\0\0" + exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces)
    jpeg = picture()
    return jpeg[:2] + segments + jpeg[2:]


def jpeg_of_many_scans() -> bytes:
    jpeg = encoded(Image.new("L", (2000, 2000), 3), "JPEG", progressive=True)
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last_scan * 5000 + jpeg[-2:]


def jpeg_of_two_sizes() -> bytes:
    jpeg = picture()
    start = jpeg.index(b"\xff\xc0")
    segment = jpeg[start : start + 19]
    return jpeg[:start] + segment[:5] + struct.pack(">HH", 65_500, 65_500) + segment[9:] + jpeg[start:]


def webp_of_size(width: int, height: int) -> bytes:
    """An animation whose canvas is large and whose only frame is small."""
    frame = encoded(photo(8, 8), "WEBP")[12:]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    body += b"ANMF" + struct.pack("<I", 16 + len(frame)) + b"\0" * 6 + b"\x07\0\0\x07\0\0" + b"\0" * 4 + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_number(data: bytes, place: int, form: str, number: int) -> bytes:
    packed = struct.pack(form, number)
    return data[:place] + packed + data[place + len(packed) :]


def contents() -> dict[str, tuple[bytes, str | None]]:
    """Name to content and expected error code."""
    files: dict[str, tuple[bytes, str | None]] = {}
    for kind, data in valid_images().items():
        name = kind.replace(" ", "-")
        files[f"good/{name}.jpg"] = (data, OK)  # whatever it is, it says .jpg
        files[f"cut/{name}.png"] = (data[: len(data) // 2], OK if kind in FIRST_FRAME_FIRST else "truncated or corrupt")
        files[f"start/{name}.png"] = (data[:10], "truncated or corrupt or not_an_image")
        files[f"tail/{name}.gif"] = (data + b"\0garbage" * 50, OK)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        files[f"size/1x1.{kind}.jpg"] = (encoded(Image.new("RGB", (1, 1), "red"), kind), OK)
    for kind in ("JPEG", "PNG", "BMP", "TIFF"):
        files[f"size/wide.{kind}.jpg"] = (encoded(Image.new("L", (65_500, 1)), kind), OK)
        files[f"size/tall.{kind}.jpg"] = (encoded(Image.new("L", (1, 65_500)), kind), OK)
    jpeg, bmp = picture(), encoded(photo(), "BMP")
    bomb = zlib.compress(b"\0" * 10**8, 9)
    return files | {
        "bomb/png.png": (png_of_size(40_000, 40_000), "too_many_pixels"),
        "bomb/png-wide.png": (png_of_size(2**31 - 1, 1), "too_many_pixels"),
        "bomb/png-just-too-large.png": (png_of_size(10_000, 10_001), "too_many_pixels"),
        "bomb/png-nothing.png": (png_of_size(0, 10), "corrupt"),
        "bomb/profile.png": (png_with(b"iCCP", b"x\0\0" + bomb), OK),
        "bomb/text.png": (png_with(b"zTXt", b"x\0\0" + bomb), OK),
        "bomb/pixels.png": (encoded(photo(), "PNG")[:33] + png_chunk(b"IDAT", bomb) + png_chunk(b"IEND"), OK),
        "bomb/exif.png": (png_with(b"eXIf", overlapping_tags(2_000_000)), OK),
        "bomb/exif.jpg": (jpeg_with_exif(overlapping_tags(2_000_000)), OK),
        "bomb/scans.jpg": (jpeg_of_many_scans(), "corrupt"),
        "bomb/sizes.jpg": (jpeg_of_two_sizes(), "corrupt"),
        "bomb/size.jpg": (with_number(jpeg, jpeg.index(b"\xff\xc0") + 5, ">I", 0xFFDCFFDC), "too_many_pixels"),
        "bomb/tile.tif": (tiff_with_a_huge_tile(), "too_many_pixels"),
        "bomb/tags.tif": (overlapping_tags(2_000_000), "corrupt"),
        "bomb/canvas.webp": (webp_of_size(16_000, 16_000), "too_many_pixels"),
        "bomb/screen.gif": (with_number(encoded(photo(), "GIF"), 6, "<I", 0xFFFFFFFF), "too_many_pixels"),
        "bomb/size.bmp": (with_number(bmp, 18, "<I", 10_000_000), "too_many_pixels"),
        "bomb/flipped.bmp": (with_number(bmp, 22, "<i", -40), OK),
        "garbage/icc.jpg": (encoded(photo(), "JPEG", icc_profile=b"no profile" * 20_000), OK),
        "garbage/exif.jpg": (encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), OK),
        "garbage/exif-loop.jpg": (jpeg_with_exif(tiff([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)])), OK),
        "garbage/exif.webp": (encoded(photo(), "WEBP", exif=b"not exif at all"), OK),
        "wrong/empty.jpg": (b"", "empty"),
        "wrong/byte.png": (b"\x89", "not_an_image"),
        "wrong/zeros.bmp": (b"\0" * 1000, "not_an_image"),
        "wrong/page.jpg": (b"<!doctype html><title>404</title>", "not_an_image"),
        "wrong/archive.tiff": (b"PK\3\4" + b"\0" * 100, "not_an_image"),
        "wrong/script.gif": (b"#!/bin/sh\ntouch /tmp/owned\n", "not_an_image"),
        "wrong/postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n(/tmp/owned) (w) file", "unsupported_format"),
        "wrong/drawing.png": (b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY x SYSTEM '/a'>]>", "unsupported_format"),
        "wrong/phone.jpg": (b"\0\0\0\x18ftypheic" + b"\0" * 100, "corrupt or unsupported_format"),
        "wrong/icon.png": (b"\0\0\1\0\1\0" + b"\0" * 100, "unsupported_format"),
        "wrong/document.jpeg": (b"%PDF-1.7\n", "unsupported_format"),
        "wrong/jpeg2000.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50, "unsupported_format"),
        "wrong/floats.tif": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "unsupported_format"),
        "name/new\nline.jpg": (jpeg, OK),
        "name/carriage\rreturn\ttab.jpg": (jpeg, OK),
        "name/\x1b]0;title\x07\x1b[31mred.jpg": (jpeg, OK),
        "name/quo\"te's.jpg": (jpeg, OK),
        "name/<script>alert(1)<\\script>.jpg": (jpeg, OK),
        "name/-rf.jpg": (jpeg, OK),
        "name/$(touch owned) `x` %s {0} *.jpg": (jpeg, OK),
        "name/ space .jpg": (jpeg, OK),
        "name/back\\slash.jpg": (jpeg, OK),
        "name/\u202egpj.right-to-left.jpg": (jpeg, OK),
        "name/e\u0301 and \u00e9.jpg": (jpeg, OK),
        f"name/{'n' * 251}.jpg": (jpeg, OK),
        "folder.jpg/inside.JPEG": (jpeg, OK),
    }  # fmt: skip


SHOWN = {
    b"name/caf\xe9.jpg": "name/caf\\xe9.jpg",
    b"name/caf\\xe9.jpg": "name/caf\\x5cxe9.jpg",
    b"name/\xff\xfe\x80.jpg": "name/\\xff\\xfe\\x80.jpg",
    b"name/\xed\xa0\x80surrogate.jpg": "name/\\xed\\xa0\\x80surrogate.jpg",
}


def build(root: str) -> dict[str, str | None]:
    """The folder on disk; gives the rows that it has to get."""
    expected: dict[str, str | None] = {}
    top = os.fsencode(root)
    files = [(name.encode(), data, name, code) for name, (data, code) in contents().items()]
    files += [(name, picture(), shown, OK) for name, shown in SHOWN.items()]
    for path, data, shown, code in files:
        full = os.path.join(top, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)
        expected[shown] = code
    with open(os.path.join(root, "huge.jpg"), "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    expected["huge.jpg"] = "too_large"
    os.symlink("good/jpeg.jpg", os.path.join(root, "link.jpg"))
    expected["link.jpg"] = OK
    # None of these may be opened, waited for or listed.
    os.symlink("nowhere.jpg", os.path.join(root, "dangling.jpg"))
    os.symlink("loop.jpg", os.path.join(root, "loop.jpg"))
    os.symlink("..", os.path.join(root, "good", "up.jpg"))
    os.symlink("/dev/zero", os.path.join(root, "zero.jpg"))
    os.symlink("/dev/tty", os.path.join(root, "terminal.jpg"))
    os.symlink("/proc/kmsg", os.path.join(root, "kernel.txt"))
    os.mkfifo(os.path.join(root, "pipe.jpg"))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        listener.bind("socket.jpg")
        os.chdir(here)
    os.makedirs(os.path.join(root, "empty"))
    os.makedirs(os.path.join(root, ".hidden"))
    return expected


def fits(code: str | None, expected: str | None) -> bool:
    return code == expected or (expected is not None and code in expected.split(" or "))


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchland", *map(os.fspath, arguments)]
    return forks.run(command, **options)


def test_the_first_bytes_of_a_picture_are_truncated():
    """Of a JPEG XL without a container, decoders cannot say so."""
    for kind, data in valid_images().items():
        if data[:2] != b"\xff\x0a":
            assert {error_of(data[:size])[0] for size in range(5, 12)} == {"truncated"}, kind


def test_every_hostile_file_has_the_expected_row(tmp_path, toy_model):
    root = tmp_path / "hostile"
    expected = build(str(root))
    out = tmp_path / "p.parquet"
    result = run("--quiet", "score", root, "--out", out, "--model", toy_model, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    rows = {row["image"]: row for row in pq.read_table(out).to_pylist()}
    assert list(rows) == sorted(expected, key=lambda name: name_on_disk(name))
    wrong = {
        name: (rows[name]["error_code"], rows[name]["error_message"])
        for name, code in expected.items()
        if not fits(rows[name]["error_code"], code)
    }
    assert wrong == {}
    assert not os.path.exists("/tmp/owned")
    assert [line for line in result.stderr.splitlines() if not line.startswith(LIBTIFF)] == []
    print(f"{len(rows)} hostile files, {len(rows)} rows")


def name_on_disk(name: str) -> bytes:
    return next((path for path, shown in SHOWN.items() if shown == name), name.encode())


def test_any_name_of_root_and_model_works(tmp_path, toy_model):
    root = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \n\x1b[31m")
    os.makedirs(root)
    with open(os.path.join(root, b"a.jpg"), "wb") as file:
        file.write(picture())
    model = os.path.join(os.fsencode(tmp_path), b"mod\xe9le.onnx")
    os.rename(toy_model, model)
    out = tmp_path / "p.parquet"
    result = run("score", root, "--out", out, "--model", model)
    assert result.returncode == 0, result.stderr
    assert pq.read_table(out)["image"].to_pylist() == ["a.jpg"]
    result = run("score", root, "--out", os.path.join(os.fsencode(tmp_path), b"p\xe9.parquet"), "--model", model)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"batchland: {tmp_path}/p\\xe9.parquet: its name is not valid UTF-8; give another --out"
    )
    result = run("score", root, "--out", out, "--model", model)
    assert (result.returncode, result.stderr.count("\x1b"), result.stdout) == (2, 0, "")


def test_errors_with_odd_names_are_one_line(tmp_path):
    result = run(
        "score", tmp_path / "no\nsuch\x1b[31m", "--out", tmp_path / "p.parquet", "--model", tmp_path / "m.onnx"
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"batchland: {tmp_path}/no\\nsuch\\x1b[31m: does not exist; give a folder of images"
    )


PEAK = """
import re, sys
from pathlib import Path
from batchland.images.preprocess import PreprocessSpec, preprocess
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
data = Path(sys.argv[1]).read_bytes()
before = peak()
preprocess(data, PreprocessSpec())
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "kind", "options", "limit"),
    [
        ("RGB", "JPEG", {"subsampling": 0}, 800),
        ("RGB", "JPEG", {"subsampling": 0, "progressive": True}, 1000),
        ("CMYK", "JPEG", {}, 900),
        ("RGBA", "PNG", {}, 900),
        ("I;16", "PNG", {}, 900),
        ("CMYK", "TIFF", {"compression": "tiff_lzw"}, 900),
        ("RGB", "BMP", {}, 900),
        ("P", "GIF", {}, 900),
        ("RGBA", "WEBP", {"lossless": True, "quality": 0}, 1700),
    ],
)
def test_memory_for_the_largest_allowed_picture_is_limited(tmp_path, mode, kind, options, limit):
    """100 million pixels, the default max_pixels. Limits are in MiB, without the file itself."""
    image = Image.new(mode, (10_000, 10_000), 7 if mode in ("P", "I;16") else None)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    (tmp_path / "image").write_bytes(buffer.getvalue())
    peak = int(subprocess.check_output([sys.executable, "-c", PEAK, tmp_path / "image"]))
    print(f"{kind} {mode} {options}: {peak} MiB")
    assert peak < limit

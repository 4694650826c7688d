"""Draw the built-in sample set: labelled pictures of ten landmarks, and a night's delivery.

Each picture depends only on (seed, folder, number): the same seed and version of Pillow give the same bytes, in any
order of drawing. All classes share skies, grounds and lights, and every two classes share a colour: colour helps, but
only the shape identifies a landmark.
"""

import datetime
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from batchland.demo.landmarks import LANDMARKS
from batchland.demo.picture import draw_picture
from batchland.errors import ErrorCode, UsageError
from batchland.system.cores import usable_cores
from batchland.system.folders import new_folder

BROKEN_FILES: Final[dict[str, ErrorCode]] = {
    "2026-11-23/camera-1/IMG_0009.jpg": "truncated",
    "2026-11-23/camera-2/DSC_0104.jpg": "empty",
    "2026-11-23/camera-2/DSC_0105.jpg": "not_an_image",
}
"""The files below `incoming/` that must fail, and the code that each must fail with."""

_INCOMING: Final = {
    **{f"2026-11-23/camera-1/IMG_{number:04}.jpg": "jpeg" for number in range(1, 9)},
    "2026-11-23/camera-1/IMG_0010.JPG": "jpeg sideways",
    "2026-11-23/camera-1/IMG_0011.jpg": "png",  # a PNG with a wrong name; the content decides
    "2026-11-23/camera-1/IMG_0012 (copy).jpg": "jpeg progressive",
    "2026-11-23/camera-2/DSC_0101.jpg": "jpeg 4:4:4",
    "2026-11-23/camera-2/DSC_0102.jpg": "jpeg grey",
    "2026-11-23/camera-2/DSC_0103.jpeg": "jpeg cmyk",
    "2026-11-23/camera-2/café on the square.jpg": "jpeg",
    "2026-11-23/camera-2/clip.gif": "gif",
    "2026-11-23/camera-2/scan.tif": "tiff",
    "2026-11-23/camera-2/scan.bmp": "bmp",
    "2026-11-23/upload/cut-out.png": "png alpha",
    "2026-11-23/upload/poster.png": "png palette",
    "2026-11-23/upload/tower.webp": "webp",
    "2026-11-22/late.jpg": "jpeg upside down",
}
"""The good files below `incoming/`, and how each is encoded."""

MIN_CLASS_IMAGES: Final = 8
"""Pictures, half of them for testing."""


@dataclass(frozen=True)
class SampleSummary:
    """Numbers of the pictures and files that were drawn."""

    root: Path
    train: Path
    test: Path
    incoming: Path
    classes: tuple[str, ...]
    """The class folders' names, in order: `00.Stone_Lighthouse`, ..."""
    training_images: int
    test_images: int
    incoming_files: int
    """Files below `incoming` with an image's extension: 25 for every seed. A notes.txt beside them is ignored."""
    broken_files: int
    """Number of `incoming_files` that must fail: 3, one each as `truncated`, `empty`, `not_an_image` (BROKEN_FILES)."""


def draw_sample(root: Path, *, seed: int = 0, images: int = 480) -> SampleSummary:
    """Draw `images` labelled pictures into `root/train` and `root/test`, and a night's delivery into `root/incoming`.

    About a quarter is for testing, at least 4 pictures of each class; the largest class is four times the smallest
    (less where `images` is small). The set appears whole or not at all. Raises UsageError if `root` exists and is not
    empty, or `images` is too small to fill the classes; OutputError if it cannot be written.
    """
    if images < len(LANDMARKS) * MIN_CLASS_IMAGES:
        raise UsageError(f"images = {images}: give at least {len(LANDMARKS) * MIN_CLASS_IMAGES}, 4 + 4 of each class")
    if seed < 0:
        raise UsageError(f"seed = {seed}: give 0 or more")
    with new_folder(root) as folder, ThreadPoolExecutor(usable_cores()) as pool:
        pictures = _plan(images)
        drawing = [pool.submit(_write_picture, folder, picture, seed) for picture in pictures]
        try:
            for picture in drawing:
                picture.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        _write_odd_files(folder, seed)
    return SampleSummary(
        root=root,
        train=root / "train",
        test=root / "test",
        incoming=root / "incoming",
        classes=_CLASSES,
        training_images=sum(picture.name.startswith("train/") for picture in pictures),
        test_images=sum(picture.name.startswith("test/") for picture in pictures),
        incoming_files=len(_INCOMING) + len(BROKEN_FILES),
        broken_files=len(BROKEN_FILES),
    )


class _Picture(NamedTuple):
    name: str
    """Path below the sample's root."""
    encoding: str
    key: tuple[int, ...]
    """Seeds the picture's random generator, together with the seed of the set."""
    landmark: str | None
    """None draws a random one; larger classes are more likely."""


_CLASSES: Final = tuple(f"{number:02}.{name}" for number, name in enumerate(LANDMARKS))
_SHARES: Final = (17, 9, 3, 13, 7, 11, 4, 16, 8, 12)
"""How the pictures beyond MIN_CLASS_IMAGES are divided among the classes: of 480 pictures, a class gets 20 to 76."""
_ENCODINGS: Final = (
    "jpeg", "jpeg progressive", "jpeg", "png", "jpeg 4:4:4", "jpeg sideways", "jpeg", "webp", "jpeg grey", "jpeg",
    "png alpha", "jpeg", "jpeg progressive", "jpeg upside down", "png palette", "jpeg", "jpeg cmyk", "jpeg 4:4:4",
    "webp", "jpeg other side",
)  # fmt: skip
_ORIENTATIONS: Final = {
    "jpeg upside down": (3, Image.Transpose.ROTATE_180),
    "jpeg sideways": (6, Image.Transpose.ROTATE_90),
    "jpeg other side": (8, Image.Transpose.ROTATE_270),
}
"""The EXIF orientation, and the rotation of the stored pixels that it reverses."""
_MODIFIED: Final = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC).timestamp()


def _plan(images: int) -> list[_Picture]:
    pictures = []
    for number, (landmark, count) in enumerate(zip(LANDMARKS, _class_sizes(images), strict=True)):
        test = max(4, round(count / 4))
        for split, (folder, size) in enumerate((("train", count - test), ("test", test))):
            for index in range(size):
                encoding = _ENCODINGS[(3 * number + 10 * split + index) % len(_ENCODINGS)]
                extension = encoding.split()[0].replace("jpeg", "jpg")
                name = f"{folder}/{_CLASSES[number]}/{index:04}.{extension}"
                pictures.append(_Picture(name, encoding, (number, split, index), landmark))
    for index, (name, encoding) in enumerate(_INCOMING.items()):
        pictures.append(_Picture(f"incoming/{name}", encoding, (len(LANDMARKS), 0, index), None))
    return pictures


def _class_sizes(images: int) -> list[int]:
    """MIN_CLASS_IMAGES each, and the rest by _SHARES; the sizes add up to `images`."""
    rest = images - MIN_CLASS_IMAGES * len(_SHARES)
    ends = [round(rest * sum(_SHARES[:end]) / sum(_SHARES)) for end in range(len(_SHARES) + 1)]
    return [MIN_CLASS_IMAGES + after - before for before, after in pairwise(ends)]


def _write_picture(root: Path, picture: _Picture, seed: int) -> None:
    rng = np.random.default_rng((seed, *picture.key))
    odds = np.divide(_SHARES, sum(_SHARES))
    landmark = picture.landmark or list(LANDMARKS)[rng.choice(len(odds), p=odds)]
    _write(root / picture.name, _encode(rng, landmark, picture.encoding))


def _write_odd_files(root: Path, seed: int) -> None:
    whole = _encode(np.random.default_rng((seed, len(LANDMARKS), 1)), "Ferris_Wheel", "jpeg")
    contents = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "not_an_image": b"<html><body>502 Bad Gateway</body></html>\n",
    }
    for name, code in BROKEN_FILES.items():
        _write(root / "incoming" / name, contents[code])
    _write(root / "incoming" / "2026-11-23" / "notes.txt", b"camera-2 lost power at 04:10, see DSC_0104\n")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (_MODIFIED, _MODIFIED))


def _encode(rng: np.random.Generator, landmark: str, encoding: str) -> bytes:
    """Draw a picture and return its file's content."""
    kind, _, variant = encoding.partition(" ")
    lossless = kind in ("png", "bmp", "tiff", "gif")
    # most are small, for speed; lossless ones are all small and without noise, to save disk space
    long_side = 200 * (1.6 if lossless else 4.5) ** (rng.random() ** 2)
    aspect = rng.choice((4 / 3, 4 / 3, 3 / 2, 1, 3 / 4))
    width, height = round(long_side * min(1, aspect)), round(long_side * min(1, 1 / aspect))
    image, cover = draw_picture(rng, landmark, width, height, noise=0 if lossless else rng.uniform(0, 14))
    options: dict[str, Any] = {}
    if kind == "jpeg":
        options = {"quality": int(rng.integers(62, 93)), "progressive": variant == "progressive"}
        if variant == "4:4:4":
            options["subsampling"] = "4:4:4"
    elif kind == "webp":
        options = {"quality": int(rng.integers(60, 90)), "method": 2}
    elif kind == "tiff":
        options = {"compression": "tiff_lzw"}
    if encoding in _ORIENTATIONS:
        orientation, turn = _ORIENTATIONS[encoding]
        image, options["exif"] = image.transpose(turn), Image.Exif()
        options["exif"][0x0112] = orientation
    if variant in ("grey", "cmyk"):
        image = image.convert("L" if variant == "grey" else "CMYK")
    elif variant == "alpha":
        image.putalpha(cover.point([96 + 159 * value // 255 for value in range(256)]))  # the sky is transparent
    elif variant == "palette" or kind == "gif":
        image = image.quantize(64 if kind == "png" else 128)
        if kind == "gif":
            options = {"save_all": True, "append_images": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()

"""Draw the built-in sample set: postcards of ten landmarks, labelled and unevenly filled, and a night's delivery.

Every picture follows from (seed, folder, number) alone: the same seed and Pillow give the same bytes, in whatever order
they are drawn. Sky, ground and light are shared by all classes, each colour by two: colour helps, but only the
landmark's shape tells them apart. Knows how files are named and encoded; nothing of preprocessing, models or scores.
"""

import datetime
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from math import cos, pi, radians, sin
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from batchland.errors import ErrorCode, UsageError
from batchland.system.cores import usable_cores
from batchland.system.folders import new_folder

Colour = tuple[int, int, int]
Point = tuple[float, float]

BROKEN_FILES: Final[dict[str, ErrorCode]] = {
    "2026-11-23/camera-1/IMG_0009.jpg": "truncated",
    "2026-11-23/camera-2/DSC_0104.jpg": "empty",
    "2026-11-23/camera-2/DSC_0105.jpg": "not_an_image",
}
"""The files below `incoming/` that must fail, and the code that each must fail with."""

_INCOMING: Final = {
    **{f"2026-11-23/camera-1/IMG_{number:04}.jpg": "jpeg" for number in range(1, 9)},
    "2026-11-23/camera-1/IMG_0010.JPG": "jpeg sideways",
    "2026-11-23/camera-1/IMG_0011.jpg": "png",  # a PNG by content, which is what counts
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

SMALLEST_CLASS: Final = 8
"""Pictures, half of them for testing."""


@dataclass(frozen=True)
class SampleSummary:
    """What was drawn, and what a run over it must find."""

    root: Path
    train: Path
    test: Path
    incoming: Path
    classes: tuple[str, ...]
    """The class folders' names, in order: `00.Stone_Lighthouse`, ..."""
    training_images: int
    test_images: int
    incoming_files: int
    """Files below `incoming` with an image's extension: 25, whatever the seed. A notes.txt beside them is ignored."""
    broken_files: int
    """How many of `incoming_files` must fail: 3, one each as `truncated`, `empty`, `not_an_image` (BROKEN_FILES)."""


def draw_sample(root: Path, *, seed: int = 0, images: int = 480) -> SampleSummary:
    """Draw `images` labelled pictures into `root/train` and `root/test`, and a night's delivery into `root/incoming`.

    About a quarter is for testing, at least 4 pictures of each class; the largest class is four times the smallest
    (less where `images` is small). The set appears whole or not at all. Raises UsageError if `root` exists and is not
    empty, or `images` is too small to fill the classes; OutputError if it cannot be written.
    """
    if images < len(LANDMARKS) * SMALLEST_CLASS:
        raise UsageError(f"images = {images}: give at least {len(LANDMARKS) * SMALLEST_CLASS}, 4 + 4 of each class")
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


# --- which pictures, and how they are encoded ---


class _Picture(NamedTuple):
    name: str
    """Below the sample's root."""
    encoding: str
    key: tuple[int, ...]
    """With the seed, what the picture's random generator starts from."""
    landmark: str | None
    """None: any, the more likely the larger its class."""


_SHARES: Final = (17, 9, 3, 13, 7, 11, 4, 16, 8, 12)
"""How unevenly the classes are filled, beyond SMALLEST_CLASS: of 480 pictures, from 20 to 76."""
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
"""The EXIF orientation, and how the pixels are stored so that it sets them upright."""
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
    """SMALLEST_CLASS each, the rest by share; the sizes add up to `images`."""
    rest = images - SMALLEST_CLASS * len(_SHARES)
    ends = [round(rest * sum(_SHARES[:end]) / sum(_SHARES)) for end in range(len(_SHARES) + 1)]
    return [SMALLEST_CLASS + after - before for before, after in pairwise(ends)]


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
    # most are small, for speed; lossless ones all are, and without noise, to spare disk
    long_side = 200 * (1.6 if lossless else 4.5) ** (rng.random() ** 2)
    aspect = rng.choice((4 / 3, 4 / 3, 3 / 2, 1, 3 / 4))
    width, height = round(long_side * min(1, aspect)), round(long_side * min(1, 1 / aspect))
    image, cover = _draw_picture(rng, landmark, width, height, noise=0 if lossless else rng.uniform(0, 14))
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
        image.putalpha(cover.point([96 + 159 * value // 255 for value in range(256)]))  # the sky lets the page through
    elif variant == "palette" or kind == "gif":
        image = image.quantize(64 if kind == "png" else 128)
        if kind == "gif":
            options = {"save_all": True, "append_images": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- the scene ---


class _Mood(NamedTuple):
    zenith: Colour
    horizon: Colour
    light: tuple[float, float, float]
    """Factor of each channel on whatever is lit."""
    night: bool = False


_MOODS: Final = (
    _Mood((68, 128, 208), (190, 216, 236), (1.0, 1.0, 1.0)),  # noon
    _Mood((104, 160, 214), (240, 232, 214), (1.02, 0.98, 0.9)),  # morning
    _Mood((146, 156, 168), (208, 212, 214), (0.86, 0.88, 0.9)),  # overcast
    _Mood((70, 88, 152), (252, 160, 96), (0.98, 0.76, 0.62)),  # sunset
    _Mood((226, 150, 160), (252, 226, 190), (1.0, 0.88, 0.82)),  # pink dawn
    _Mood((40, 48, 98), (190, 126, 140), (0.68, 0.62, 0.74), night=True),  # dusk
    _Mood((10, 14, 40), (52, 66, 112), (0.5, 0.54, 0.7), night=True),  # night
)
_STONES: Final[tuple[Colour, ...]] = (
    (150, 146, 138), (208, 180, 134), (166, 90, 68), (236, 230, 218), (214, 162, 84), (92, 100, 112), (106, 158, 142),
    (186, 84, 56), (104, 78, 58), (70, 104, 156), (206, 150, 146), (162, 44, 52),
)  # fmt: skip
"""Of walls, roofs and trimmings."""
_OWN_COLOURS: Final = 0.85
"""How often a landmark has its own colours; else it has any, as if newly painted."""
_GROUNDS: Final[tuple[Colour, ...]] = (
    (98, 136, 72), (98, 136, 72), (166, 152, 92), (214, 192, 146), (148, 146, 144), (230, 234, 240), (62, 106, 136),
    (62, 106, 136),
)  # fmt: skip
_WATER: Final = (62, 106, 136)
_LEAVES: Final[tuple[Colour, ...]] = ((58, 98, 58), (88, 120, 58), (132, 122, 54), (178, 104, 48), (70, 90, 70))
_LAMPLIGHT: Final = (255, 222, 140)
_FINE: Final = 2
"""The foreground is drawn this many times larger, then reduced: smooth edges."""


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _steps(first: float, last: float, count: int) -> list[float]:
    """As numpy's linspace, in floats of Python, whose arithmetic one by one is several times faster."""
    return [first + (last - first) * step / (count - 1) for step in range(count)]


class _Scene:
    """A picture under way: its light, its horizon, and the transparent layer that everything before the sky is on."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.mood = _MOODS[rng.integers(len(_MOODS))]
        self.haze = 0.35 * rng.random() ** 2
        self.width, self.height = _FINE * width, _FINE * height
        self.horizon = self.height * rng.uniform(0.58, 0.82)
        self.layer = Image.new("RGBA", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.layer)

    def lit(self, colour: Colour, shade: float = 1.0, distance: float = 1.0) -> Colour:
        """A colour in this scene's light, paler with distance (1 is that of the landmark)."""
        red, green, blue = (min(255, round(v * shade * k)) for v, k in zip(colour, self.mood.light, strict=True))
        return _mix((red, green, blue), self.mood.horizon, min(0.9, self.haze * distance))

    def pick(self, colours: tuple[Colour, ...]) -> Colour:
        """One of the colours, a little off."""
        red, green, blue = (
            int(np.clip(value + self.rng.normal(0, 9), 0, 255)) for value in colours[self.rng.integers(len(colours))]
        )
        return red, green, blue


class _Pen:
    """Draws a thing in its own coordinates: x to the right, y up from its foot, 1 its height; lit from the left.

    The pen places it in the scene: size, tilt, mirrored or not, narrowing upwards as seen from below.
    """

    def __init__(self, scene: _Scene, foot: Point, height: float, *, tilt: float = 0, distance: float = 1) -> None:
        self.scene, self.rng, self.foot, self.height, self.distance = scene, scene.rng, foot, height, distance
        self.tilt = radians(tilt)
        self.mirror = 1 if scene.rng.random() < 0.5 else -1
        self.stretch = scene.rng.uniform(0.85, 1.2)
        self.narrowing = scene.rng.uniform(-0.06, 0.2)
        self.wall, self.trim, self.roof = (scene.pick(_STONES) for _ in range(3))

    def at(self, x: float, y: float) -> Point:
        """Where a point of the thing is in the picture."""
        x *= self.mirror * self.stretch * (1 - self.narrowing * y)
        right, up = x * cos(self.tilt) + y * sin(self.tilt), y * cos(self.tilt) - x * sin(self.tilt)
        return self.foot[0] + right * self.height, self.foot[1] - up * self.height

    def polygon(self, points: list[Point], colour: Colour, shade: float = 1) -> None:
        """A filled outline."""
        lit = self.scene.lit(colour, shade, self.distance)
        self.scene.draw.polygon([self.at(x, y) for x, y in points], lit)

    def line(self, points: list[Point], width: float, colour: Colour, shade: float = 1) -> None:
        """A stroke, at least a pixel wide."""
        lit = self.scene.lit(colour, shade, self.distance)
        pixels = max(_FINE, round(width * self.height))
        self.scene.draw.line([self.at(x, y) for x, y in points], lit, pixels, joint="curve")

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, shade: float = 1) -> None:
        """A rectangle on `y`, centred on `x`."""
        left, right, top = x - width / 2, x + width / 2, y + height
        self.polygon([(left, y), (left, top), (right, top), (right, y)], colour, shade)

    def tower(self, x: float, y: float, foot: float, height: float, top: float, colour: Colour) -> None:
        """A body on `y`, `foot` wide below and `top` above, its right side in the shade."""
        y2 = y + height
        self.polygon([(x - foot / 2, y), (x - top / 2, y2), (x + top / 2, y2), (x + foot / 2, y)], colour)
        self.polygon([(x + foot / 8, y), (x + top / 8, y2), (x + top / 2, y2), (x + foot / 2, y)], colour, 0.8)

    def disc(self, x: float, y: float, radius: float, colour: Colour, shade: float = 1, flat: float = 1) -> None:
        """A circle, or an ellipse `flat` times as high as wide."""
        turns = _steps(0, 2 * pi, 29)
        self.polygon([(x + radius * cos(a), y + flat * radius * sin(a)) for a in turns], colour, shade)

    def opening(self, x: float, y: float, width: float, height: float) -> None:
        """A door or window with a round head; some are lit at night."""
        lamp = self.scene.mood.night and self.rng.random() < 0.6
        colour = (255, 236, 190) if lamp else (52, 46, 48)
        turns = _steps(0, pi, 9)
        head = [(x + width / 2 * cos(a), y + height - width / 2 + width / 2 * sin(a)) for a in turns]
        self.polygon([(x + width / 2, y), *head, (x - width / 2, y)], colour, 2 if lamp else 1)


# --- the landmarks ---


def _lighthouse(pen: _Pen) -> None:
    for x in pen.rng.uniform(-0.22, 0.22, 6).tolist():  # rocks
        pen.disc(x, 0, pen.rng.uniform(0.06, 0.12), (112, 106, 100), pen.rng.uniform(0.7, 1), flat=0.6)
    foot, top = pen.rng.uniform(0.24, 0.32), pen.rng.uniform(0.14, 0.19)
    bands = int(pen.rng.integers(1, 8))
    for band in range(bands):
        below, above = (foot + (top - foot) * (band + step) / bands for step in (0, 1))
        pen.tower(0, 0.78 * band / bands, below, 0.78 / bands, above, pen.trim if band % 2 else pen.wall)
    for number in range(3):
        pen.opening(0, 0.06 + 0.23 * number, 0.04, 0.08)
    if pen.scene.mood.night:
        pen.polygon([(0, 0.85), (-1.5, 0.98), (-1.5, 0.8)], pen.scene.mood.horizon, 1.6)
    pen.box(0, 0.77, top + 0.09, 0.035, pen.roof, 0.7)
    pen.box(0, 0.805, top * 0.62, 0.1, _LAMPLIGHT, 2 if pen.scene.mood.night else 1)
    for x in (-0.31, 0, 0.31):
        pen.line([(x * top, 0.8), (x * top, 0.91)], 0.012, pen.roof, 0.6)
    pen.polygon([(-top * 0.42, 0.9), (0, 0.99), (top * 0.42, 0.9)], pen.roof)
    pen.line([(0, 0.97), (0, 1.03)], 0.01, pen.roof)


def _bridge(pen: _Pen) -> None:
    half, deck = pen.rng.uniform(0.75, 1.05), pen.rng.uniform(0.2, 0.32)
    sag = deck + pen.rng.uniform(0.03, 0.12)
    for side in (-1, 1):  # the cables: a parabola between the towers, a slope outside
        inner = [(x, sag + (0.96 - sag) * (x / half) ** 2) for x in _steps(0, side * half, 16)]
        outer = [(side * half, 0.96), (side * half * 2.1, deck)]
        for x, y in [*inner[1::2], *((side * half * k, 0.96 + (deck - 0.96) * (k - 1) / 1.1) for k in (1.3, 1.6, 1.9))]:
            pen.line([(x, deck), (x, y)], 0.006, pen.wall, 0.9)
        pen.line(inner, 0.018, pen.wall)
        pen.line(outer, 0.018, pen.wall)
    pen.box(0, deck - 0.05, half * 4.4, 0.05, pen.trim, 0.8)
    pen.box(0, deck - 0.01, half * 4.4, 0.02, pen.trim)
    for side in (-1, 1):
        for leg in (-0.055, 0.055):
            pen.tower(side * half + leg, -0.06, 0.05, 1.06, 0.035, pen.wall)
        for y in _steps(deck + 0.1, 0.9, int(pen.rng.integers(2, 5))):
            pen.box(side * half, y, 0.13, 0.035, pen.wall, 0.85)
        pen.box(side * half, -0.08, 0.22, 0.08, (128, 124, 118))


def _pyramid(pen: _Pen) -> None:
    steps = int(pen.rng.integers(4, 9))
    width = pen.rng.uniform(1.3, 1.8)
    rise = 0.8 / steps
    for step in range(steps):
        below = width * (1 - 0.8 * step / steps)
        pen.tower(0, step * rise, below, rise, below - 0.06, pen.wall)
        pen.box(0, (step + 0.86) * rise, below - 0.03, 0.14 * rise, pen.wall, 1.12)
    stair = width * 0.14
    pen.polygon([(-stair, 0), (-stair * 0.7, 0.8), (stair * 0.7, 0.8), (stair, 0)], pen.trim, 0.95)
    for y in _steps(0, 0.78, steps * 3):
        pen.line([(-stair * 0.9, y), (stair * 0.9, y)], 0.005, pen.trim, 0.7)
    pen.tower(0, 0.8, width * 0.17, 0.14, width * 0.16, pen.wall)
    pen.box(0, 0.94, width * 0.21, 0.04, pen.roof)
    pen.opening(0, 0.8, 0.07, 0.11)


def _onion_dome(pen: _Pen) -> None:
    def dome(x: float, y: float, width: float, height: float, colour: Colour) -> None:
        heights = _steps(0, 1, 22)
        outline = [(width * 0.7 * (1 - t) ** 1.5 * (0.7 + 2.4 * t * (1 - t)), y + height * t) for t in heights]
        for shade, left, right in ((1.0, -1.0, 1.0), (0.8, 0.15, 1.0), (1.15, -0.75, -0.45)):
            sides = [[(x + half * edge, up) for half, up in outline] for edge in (left, right)]
            pen.polygon(sides[0] + sides[1][::-1], colour, shade)
        pen.line([(x, y + height * 0.97), (x, y + height + 0.08)], 0.012, _LAMPLIGHT)
        pen.line([(x - 0.02, y + height + 0.05), (x + 0.02, y + height + 0.05)], 0.012, _LAMPLIGHT)

    body = pen.rng.uniform(0.55, 0.85)
    pen.tower(0, 0, body, 0.36, body, pen.wall)
    pen.box(0, 0.35, body + 0.05, 0.03, pen.trim)
    for x in _steps(-0.36, 0.36, 4):
        pen.opening(x * body, 0.1, 0.07, 0.18)
    for side in (-1, 1) if pen.rng.random() < 0.75 else ():
        pen.tower(side * body * 0.38, 0.38, 0.11, 0.14, 0.11, pen.wall)
        dome(side * body * 0.38, 0.52, 0.19, 0.2, pen.trim)
    pen.tower(0, 0.38, 0.2, 0.2, 0.2, pen.wall)
    pen.opening(0, 0.41, 0.06, 0.13)
    dome(0, 0.57, 0.36, 0.36, pen.roof)


def _wind_mill(pen: _Pen) -> None:
    pen.tower(0, 0, pen.rng.uniform(0.34, 0.46), 0.6, 0.24, pen.wall)
    pen.opening(0, 0, 0.09, 0.15)
    for y in (0.25, 0.42):
        pen.opening(0, y, 0.05, 0.07)
    if pen.rng.random() < 0.5:  # a gallery
        pen.box(0, 0.2, 0.5, 0.025, pen.trim, 0.8)
    pen.polygon([(-0.15, 0.58), (-0.1, 0.7), (0, 0.75), (0.1, 0.7), (0.15, 0.58)], pen.roof)
    turn, reach = pen.rng.uniform(0, pi / 2), pen.rng.uniform(0.36, 0.46)
    for sail in range(4):
        along = (cos(turn + sail * pi / 2), sin(turn + sail * pi / 2))
        across = (-along[1] * 0.1, along[0] * 0.1)
        grid = [[(along[0] * r + across[0] * w, 0.64 + along[1] * r + across[1] * w) for w in (0, 1)]
                for r in _steps(0.1, reach, 6)]  # fmt: skip
        if pen.rng.random() < 0.8:
            pen.polygon([grid[0][0], grid[0][1], grid[-1][1], grid[-1][0]], pen.trim, 1.1)
        for rung in grid:
            pen.line(rung, 0.008, (90, 70, 56))
        pen.line([(0, 0.64), grid[-1][0]], 0.02, (90, 70, 56))
        pen.line([grid[0][1], grid[-1][1]], 0.008, (90, 70, 56))
    pen.disc(0, 0.64, 0.03, (70, 56, 48))


def _ferris_wheel(pen: _Pen) -> None:
    hub, radius = 0.54, 0.43
    cabins = int(pen.rng.integers(9, 19))
    start = pen.rng.uniform(0, pi)
    rim = [(cos(start + 2 * pi * k / cabins), sin(start + 2 * pi * k / cabins)) for k in range(cabins)]
    for x, y in rim:
        pen.line([(0, hub), (x * radius, hub + y * radius)], 0.008, pen.wall, 0.95)
    circle = [(cos(angle), sin(angle)) for angle in _steps(0, 2 * pi, 49)]
    for size in (1.0, 0.9, 0.45):
        pen.line([(x * radius * size, hub + y * radius * size) for x, y in circle], 0.016, pen.wall)
    for side in (-1, 1):
        pen.line([(0, hub), (side * 0.26, 0)], 0.035, pen.trim)
    pen.line([(-0.13, 0.27), (0.13, 0.27)], 0.02, pen.trim)
    pen.box(0, 0, pen.rng.uniform(0.5, 0.8), 0.06, pen.roof, 0.8)
    pen.disc(0, hub, 0.05, pen.trim)
    for number, (x, y) in enumerate(rim):
        lamp = pen.scene.mood.night
        pen.disc(x * radius, hub + y * radius - 0.02, 0.035, (pen.trim, pen.roof)[number % 2], 1.7 if lamp else 1)


def _leaning_tower(pen: _Pen) -> None:
    pen.tilt += radians(pen.rng.uniform(8, 14)) * (1 if pen.rng.random() < 0.5 else -1)
    storeys, width = int(pen.rng.integers(5, 9)), pen.rng.uniform(0.26, 0.34)
    rise = 0.86 / storeys
    for storey in range(storeys):
        pen.tower(0, storey * rise, width, rise, width, pen.wall)
        for x in _steps(-0.4, 0.4, 6):
            pen.opening(x * width, storey * rise + 0.12 * rise, width * 0.1, rise * 0.62)
        pen.box(0, (storey + 0.86) * rise, width + 0.03, rise * 0.14, pen.wall, 1.12)
    pen.tower(0, 0.86, width * 0.72, 0.12, width * 0.72, pen.wall)
    for x in (-0.2, 0, 0.2):
        pen.opening(x * width, 0.88, width * 0.13, 0.08)
    pen.box(0, 0.97, width * 0.78, 0.03, pen.trim)


def _stone_arch(pen: _Pen) -> None:
    width, thick = pen.rng.uniform(0.55, 0.8), pen.rng.uniform(0.26, 0.4)

    def outline(reach: float, top: float, rough: float) -> list[Point]:
        turns = _steps(0, pi, 26)
        wobble = (1 + pen.rng.normal(0, rough, len(turns))).tolist()
        flatten = [abs(sin(a)) ** 0.7 for a in turns]
        return [(reach * cos(a) * w, top * f * w) for a, w, f in zip(turns, wobble, flatten, strict=True)]

    hole_width, hole_top = width * (1 - thick), 1 - thick * pen.rng.uniform(0.7, 1.1)
    outer, inner = outline(width, 0.97, 0.03), outline(hole_width, hole_top, 0.03)
    inner = [(x, y - 0.01) for x, y in inner]
    pen.polygon([*outer, *inner[::-1]], pen.wall)
    pen.polygon([*outer[:13], *inner[:13][::-1]], pen.wall, 0.82)
    for depth in _steps(0.15, 0.85, 5):  # strata
        strip = [(a + (c - a) * depth, b + (d - b) * depth) for (a, b), (c, d) in zip(outer, inner, strict=True)]
        pen.line(strip, 0.008, pen.wall, pen.rng.uniform(0.68, 0.9))
    for x in (pen.rng.uniform(-1.2, 1.2, 7) * width).tolist():
        pen.disc(x, 0, pen.rng.uniform(0.03, 0.09), pen.wall, pen.rng.uniform(0.7, 1), flat=0.7)


def _castle_keep(pen: _Pen) -> None:
    def battlements(x: float, y: float, width: float, teeth: int) -> None:
        pen.box(x, y, width + 0.03, 0.04, pen.wall, 1.08)
        for tooth in _steps(-0.5, 0.5, teeth):
            pen.box(x + tooth * width, y + 0.04, width / teeth * 0.55, 0.05, pen.wall, 1.08)

    width, pointed = pen.rng.uniform(0.6, 0.9), pen.rng.random() < 0.5
    pen.tower(0, 0, 0.34, pen.rng.uniform(0.74, 0.8), 0.34, pen.wall)  # the keep itself
    battlements(0, 0.76, 0.34, 5)
    pen.line([(0, 0.84), (0, 1.02)], 0.012, (80, 66, 56))
    pen.polygon([(0, 1.02), (0.16, 0.97), (0, 0.92)], pen.trim)
    for x in (-0.08, 0.08):
        pen.opening(x, 0.58, 0.04, 0.1)
    pen.tower(0, 0, width, 0.42, width, pen.wall)
    battlements(0, 0.42, width, 9)
    for side in (-1, 1):
        pen.tower(side * width * 0.52, 0, 0.2, 0.56, 0.18, pen.wall)
        pen.opening(side * width * 0.52, 0.36, 0.035, 0.09)
        if pointed:
            pen.polygon([(side * width * 0.52 + x, y) for x, y in ((-0.13, 0.55), (0, 0.82), (0.13, 0.55))], pen.roof)
        else:
            battlements(side * width * 0.52, 0.56, 0.18, 4)
    pen.opening(0, 0, 0.17, 0.26)


def _pagoda(pen: _Pen) -> None:
    tiers, width = int(pen.rng.integers(3, 7)), pen.rng.uniform(0.5, 0.66)
    rise = 0.84 / tiers
    pen.box(0, 0, width * 1.05, 0.04, (140, 134, 126))
    for tier in range(tiers):
        y, room = 0.04 + tier * rise, width * (1 - 0.55 * tier / tiers) * 0.72
        pen.tower(0, y, room, rise * 0.62, room, pen.wall)
        for x in (-0.3, 0, 0.3):
            pen.opening(x * room, y + rise * 0.08, room * 0.13, rise * 0.42)
        eaves, lip = room * 0.5 + 0.13, y + rise * 0.55
        curve = [(1.0, 0.08), (0.8, 0.06), (0.62, 0.2), (0.5, 0.46)]
        roof = [(side * eaves * x, lip + rise * up) for side, path in ((1, curve), (-1, curve[::-1])) for x, up in path]
        pen.polygon([*roof, (-eaves * 0.8, lip - rise * 0.06), (eaves * 0.8, lip - rise * 0.06)], pen.roof)
        pen.line([(-eaves * 0.8, lip - rise * 0.04), (eaves * 0.8, lip - rise * 0.04)], 0.012, pen.trim)
    pen.line([(0, 0.84), (0, 1.04)], 0.016, pen.trim)
    for y in (0.93, 0.96, 0.99):
        pen.disc(0, y, 0.02, pen.trim, flat=0.5)


class _Landmark(NamedTuple):
    draw: Callable[[_Pen], None]
    wall: Colour
    roof: Colour


_WHITE, _RED, _SAND, _BRICK, _SLATE, _COPPER, _BLUE = (_STONES[place] for place in (3, 11, 1, 7, 5, 6, 9))
LANDMARKS: Final[dict[str, _Landmark]] = {
    "Stone_Lighthouse": _Landmark(_lighthouse, _WHITE, _RED),
    "Suspension_Bridge": _Landmark(_bridge, _RED, _SLATE),
    "Step_Pyramid": _Landmark(_pyramid, _SAND, _SAND),
    "Onion_Dome": _Landmark(_onion_dome, _BLUE, _COPPER),
    "Wind_Mill": _Landmark(_wind_mill, _WHITE, _BRICK),
    "Ferris_Wheel": _Landmark(_ferris_wheel, _BLUE, _RED),
    "Leaning_Tower": _Landmark(_leaning_tower, _SLATE, _SLATE),
    "Stone_Arch": _Landmark(_stone_arch, _BRICK, _BRICK),
    "Castle_Keep": _Landmark(_castle_keep, _SLATE, _BRICK),
    "Pagoda": _Landmark(_pagoda, _RED, _COPPER),
}
"""What there is to tell apart: how each is drawn, and its own colours, which it shares with another one."""
_CLASSES: Final = tuple(f"{number:02}.{name}" for number, name in enumerate(LANDMARKS))


# --- what stands around them ---


def _tree(pen: _Pen) -> None:
    leaves = pen.scene.pick(_LEAVES)
    pen.line([(0, 0), (0, 0.5)], 0.08, (84, 64, 50))
    for x, y in pen.rng.normal((0, 0.65), (0.14, 0.12), (9, 2)).tolist():
        pen.disc(x, y, pen.rng.uniform(0.12, 0.22), leaves, pen.rng.uniform(0.75, 1.15))


def _fir(pen: _Pen) -> None:
    leaves = pen.scene.pick(_LEAVES)
    pen.line([(0, 0), (0, 0.2)], 0.06, (84, 64, 50))
    for y, width in ((0.12, 0.26), (0.36, 0.2), (0.6, 0.13)):
        pen.polygon([(-width, y), (0, y + 0.42), (width, y)], leaves)
        pen.polygon([(0.04, y), (0, y + 0.42), (width, y)], leaves, 0.8)


def _house(pen: _Pen) -> None:
    width = pen.rng.uniform(0.6, 1.6)
    pen.tower(0, 0, width, 0.7, width, pen.wall)
    if pen.rng.random() < 0.7:
        pen.polygon([(-width * 0.56, 0.69), (-width * 0.2, 1), (width * 0.2, 1), (width * 0.56, 0.69)], pen.roof)
    for y in (0.12, 0.42):
        for x in _steps(-0.35, 0.35, 4):
            pen.opening(x * width, y, 0.1, 0.17)


def _person(pen: _Pen) -> None:
    pen.line([(-0.06, 0), (0, 0.45), (0.08, 0)], 0.1, (58, 56, 66))
    pen.line([(0, 0.42), (0, 0.78)], 0.24, pen.trim)
    pen.disc(0, 0.9, 0.1, (204, 158, 128))


def _lamp_post(pen: _Pen) -> None:
    pen.line([(0, 0), (0, 0.9)], 0.035, (60, 62, 68))
    pen.disc(0, 0.93, 0.06, _LAMPLIGHT, 2 if pen.scene.mood.night else 0.9)


def _stand(scene: _Scene, thing: Callable[[_Pen], None], size: tuple[float, float], depth: float) -> None:
    """Put a thing anywhere across the picture, `size` of its height tall, `depth` of the ground before the horizon."""
    x, y = scene.rng.uniform(0, scene.width), scene.horizon + depth * (scene.height - scene.horizon)
    thing(_Pen(scene, (x, y), scene.rng.uniform(*size) * scene.height, distance=1.3 - depth))


# --- from the scene to the photograph ---


def _draw_picture(
    rng: np.random.Generator, landmark: str, width: int, height: int, noise: float
) -> tuple[Image.Image, Image.Image]:
    """A photograph, RGB, and how far each of its pixels is covered by something before the sky, L."""
    scene = _Scene(rng, width, height)
    picture = _draw_sky(scene, width, height)
    ground = _GROUNDS[rng.integers(len(_GROUNDS))]
    _draw_land(scene, ground)
    for _ in range(rng.integers(0, 5)):
        _stand(scene, (_house, _house, _tree, _fir)[rng.integers(4)], (0.08, 0.25), depth=0.02)
    size = min(scene.height * rng.uniform(0.52, 0.8), scene.width * rng.uniform(0.5, 0.85))
    foot = (scene.width * rng.uniform(0.36, 0.64), scene.horizon + rng.uniform(0.01, 0.08) * scene.height)
    pen = _Pen(scene, foot, size, tilt=rng.normal(0, 2))
    draw, wall, roof = LANDMARKS[landmark]
    if rng.random() < _OWN_COLOURS:
        pen.wall, pen.roof = scene.pick((wall,)), scene.pick((roof,))
    draw(pen)
    if ground == _WATER:
        _mirror_in_water(scene, foot[1])
    for _ in range(rng.integers(0, 3)):
        _stand(scene, (_tree, _fir, _tree, _house)[rng.integers(4)], (0.12, 0.34), depth=rng.uniform(0.3, 0.8))
    for _ in range(rng.integers(0, 5)):
        _stand(scene, (_person, _person, _lamp_post)[rng.integers(3)], (0.1, 0.2), depth=rng.uniform(0.5, 1))
    layer = scene.layer.reduce(_FINE)
    cover = layer.getchannel("A")
    picture.paste(layer, mask=cover)
    return _photograph(rng, picture, noise), cover


def _draw_sky(scene: _Scene, width: int, height: int) -> Image.Image:
    """Gradient and clouds, small and then enlarged; sun, moon, stars and birds in full size."""
    rng, mood = scene.rng, scene.mood
    rows = np.linspace(0, scene.height / scene.horizon, 60)[:, None, None].clip(0, 1) ** rng.uniform(0.7, 1.6)
    sky = np.array(mood.zenith) * (1 - rows) + np.array(mood.horizon) * rows
    clouds = np.zeros((60, 80))
    for cells, weight in ((4, 1.0), (9, 0.5), (20, 0.25)):
        patches = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
        clouds += weight * np.asarray(patches.resize((80, 60), Image.Resampling.BICUBIC)) / 255
    clouds = ((clouds / 1.75 - rng.uniform(0.4, 0.75)) * 4).clip(0, 0.85)[:, :, None]
    white = np.array(scene.lit((250, 246, 244)))
    small = Image.fromarray((sky * (1 - clouds) + white * clouds).astype(np.uint8))
    picture = small.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    if mood.night:
        for x, y in rng.uniform(0, 1, (40, 2)).tolist():
            draw.point((x * width, y * height), (230, 232, 240))
    if rng.random() < 0.4:
        x, y, radius = rng.uniform(0.1, 0.9) * width, rng.uniform(0.08, 0.4) * height, rng.uniform(0.03, 0.06) * height
        draw.circle((x, y), radius, (236, 236, 224) if mood.night else (255, 244, 206))
    for _ in range(rng.integers(0, 6) if not mood.night else 0):
        x, y, wing = rng.uniform(0, width), rng.uniform(0.05, 0.5) * height, rng.uniform(0.008, 0.02) * width
        draw.line([(x - wing, y - wing / 2), (x, y), (x + wing, y - wing / 2)], (60, 60, 70), 1)
    return picture


def _draw_land(scene: _Scene, ground: Colour) -> None:
    """Ranges of hills, paler the farther, and the ground before them in bands that darken towards the viewer."""
    rng, width, horizon = scene.rng, scene.width, scene.horizon
    hill = scene.pick((*_LEAVES, *_GROUNDS[2:5]))
    for distance in sorted(rng.uniform(1.2, 3, rng.integers(0, 4)), reverse=True):
        waves = [(rng.uniform(1, 5), rng.uniform(0, 2 * pi), rng.uniform(0.01, 0.05)) for _ in range(3)]
        ridge = [(x * width, horizon - scene.height * sum(a * (1 + sin(f * x * pi + p)) for f, p, a in waves))
                 for x in _steps(0, 1, 40)]  # fmt: skip
        scene.draw.polygon([(0, horizon + 2), *ridge, (width, horizon + 2)], scene.lit(hill, 0.9, distance))
    near = scene.pick((ground,))
    bands = 14
    for band in range(bands):
        y, below = (horizon + (scene.height - horizon) * ((band + step) / bands) ** 1.5 for step in (0, 1))
        scene.draw.rectangle((0, y, width, below), scene.lit(near, 1.06 - 0.2 * band / bands, 1.4 - band / bands))
    for x, y in rng.uniform(0, 1, (50, 2)).tolist():  # tufts, stones or waves
        down = horizon + (scene.height - horizon) * y**1.5
        long = scene.width * (0.004 + 0.03 * y) * (2 if ground == _WATER else 1)
        line = (x * width - long, down, x * width + long, down + scene.height * 0.003)
        scene.draw.ellipse(line, scene.lit(near, rng.choice((0.8, 0.9, 1.12))))


def _mirror_in_water(scene: _Scene, shore: float) -> None:
    """Lay a faint, rippled reflection of all that stands above `shore` on the water below."""
    top, depth = round(shore), round(scene.height - shore)
    if depth < 8:
        return
    above = scene.layer.crop((0, max(0, top - depth), scene.width, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    above = above.resize((scene.width, max(1, depth // 8))).resize(above.size)  # blurred along the water's depth
    scene.layer.paste(above, (0, top), above.getchannel("A").point([value * 2 // 5 for value in range(256)]))


def _photograph(rng: np.random.Generator, picture: Image.Image, noise: float) -> Image.Image:
    """What a camera adds: exposure, vignette, a soft lens, sensor noise."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 1) * max(picture.size) / 400))
    pixels = np.array(picture, dtype=np.float32)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) ** 2 for side in pixels.shape[:2])
    gain, vignette = np.float32(rng.uniform(0.78, 1.15)), np.float32(rng.uniform(0, 0.18))
    pixels *= (gain * (1 - vignette * (y[:, None] + x)))[:, :, None]
    if noise:
        grain = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[:, :, None]
        pixels += grain * rng.uniform(0.4, 1.6, 3).astype(np.float32) * np.float32(noise)
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))

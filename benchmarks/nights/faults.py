"""Faults of pictures, and milder variations that a clean delivery has.

Each turns an RGB picture into a spoiled one, at the strength that a real fault has. `encode` writes it as the camera
did: with the tables of the original file, so that the encoding gives nothing away.
"""

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Random = np.random.Generator
Fault = Callable[[Image.Image, Random], Image.Image]
Floats = npt.NDArray[Any]


def encode(image: Image.Image, original: Image.Image, quality: int | None = None) -> bytes:
    """A JPEG with the quantisation tables of `original`, or of a quality from 1 to 95."""
    buffer = io.BytesIO()
    tables = getattr(original, "quantization", None)
    if quality is None and tables:
        image.save(buffer, "JPEG", qtables=tables, subsampling="4:2:0")
    else:
        image.save(buffer, "JPEG", quality=quality or 90)
    return buffer.getvalue()


def _on(change: Callable[[Floats, Random], Floats]) -> Fault:
    """A fault of values from 0 to 255, [H, W, 3]."""

    def spoil(image: Image.Image, rng: Random) -> Image.Image:
        values = change(np.asarray(image, np.float64), rng)
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))

    return spoil


def _constant(tone: int) -> Fault:
    return lambda image, _: Image.new("RGB", image.size, (tone, tone, tone))


def _resized(image: Image.Image, width: float, height: float) -> Image.Image:
    return image.resize((max(int(width), 1), max(int(height), 1)), Image.Resampling.BILINEAR)


def _again(quality: int) -> Fault:
    def spoil(image: Image.Image, _: Random) -> Image.Image:
        return Image.open(io.BytesIO(encode(image, image, quality))).convert("RGB")

    return spoil


def _thumbnail(image: Image.Image, _: Random) -> Image.Image:
    return _resized(image, image.width / 4, image.height / 4)


def _upscaled(image: Image.Image, rng: Random) -> Image.Image:
    return _resized(_thumbnail(image, rng), *image.size)


def _mosaic(image: Image.Image, _: Random) -> Image.Image:
    small = _resized(image, image.width / 12, image.height / 12)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _motion(values: Floats, _: Random) -> Floats:
    reach = max(values.shape[1] // 16, 3)
    smeared: Floats = np.mean([np.roll(values, step, axis=1) for step in range(reach)], axis=0)
    return smeared


def _salt(values: Floats, rng: Random) -> Floats:
    chosen = rng.random(values.shape[:2])
    values = values.copy()
    values[chosen < 0.025] = 0
    values[chosen > 0.975] = 255
    return values


def _noise(deviation: float) -> Fault:
    return _on(lambda values, rng: values + rng.normal(0, deviation, values.shape))


def _night(values: Floats, rng: Random) -> Floats:
    dark = 255 * (values / 255) ** 1.3 * 0.22 * np.array([0.85, 0.9, 1.15])
    return dark + rng.normal(0, 4, values.shape)


def _camera(values: Floats, rng: Random) -> Floats:
    cast = values * np.array([1.14, 1.0, 0.84])
    return (cast - 128) * 1.2 + 134 + rng.normal(0, 3, values.shape)


def _zoom(share: float) -> Fault:
    def spoil(image: Image.Image, _: Random) -> Image.Image:
        width, height = image.width * share, image.height * share
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return _resized(image.crop((int(left), int(top), int(left + width), int(top + height))), *image.size)

    return spoil


def _letterbox(image: Image.Image, _: Random) -> Image.Image:
    canvas = Image.new("RGB", image.size)
    canvas.paste(_resized(image, image.width, image.height * 0.6), (0, int(image.height * 0.2)))
    return canvas


def _stretched(image: Image.Image, _: Random) -> Image.Image:
    middle = image.crop((image.width // 4, 0, image.width * 3 // 4, image.height))
    return _resized(middle, *image.size)


def _half_broken(values: Floats, rng: Random) -> Floats:
    values = values.copy()
    values[int(len(values) * rng.uniform(0.35, 0.65)) :] = 128
    return values


def _stripes(values: Floats, _: Random) -> Floats:
    values = values.copy()
    for first in range(0, len(values), 16):
        values[first : first + 4] = 255
    return values


def _interlaced(values: Floats, _: Random) -> Floats:
    values = values.copy()
    values[::2] = np.roll(values[::2], values.shape[1] // 16, axis=1)
    return values


def _fog(values: Floats, _: Random) -> Floats:
    return 0.4 * values + 0.6 * 205


def _covered(image: Image.Image, rng: Random) -> Image.Image:
    image = image.copy()
    left, top = rng.uniform(0.1, 0.4) * image.width, rng.uniform(0.1, 0.4) * image.height
    ImageDraw.Draw(image).ellipse((left, top, left + 0.5 * image.width, top + 0.5 * image.height), fill=(20, 18, 16))
    return image


def _screen(image: Image.Image, _: Random) -> Image.Image:
    canvas = Image.new("RGB", image.size, (246, 246, 248))
    inner = _resized(image, image.width * 0.8, image.height * 0.62)
    canvas.paste(inner, (int(image.width * 0.1), int(image.height * 0.26)))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, image.width, image.height * 0.12), fill=(40, 60, 110))
    return canvas


def _stamped(image: Image.Image, _: Random) -> Image.Image:
    image = image.copy()
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, image.height * 0.82, image.width, image.height), fill=(0, 0, 0))
    draw.text((3, image.height * 0.84), "2026-11-29 CAM 04", fill=(255, 255, 255))
    return image


def _without_blue(values: Floats, _: Random) -> Floats:
    values = values.copy()
    values[..., 2] = 0
    return values


def _sepia(values: Floats, _: Random) -> Floats:
    tone = values @ np.array([0.3, 0.59, 0.11])
    return tone[..., None] * np.array([1.07, 0.9, 0.65]) + 8


def _shifted(values: Floats, _: Random) -> Floats:
    return np.roll(values, (values.shape[0] // 3, values.shape[1] // 2), axis=(0, 1))


def _vignette(values: Floats, _: Random) -> Floats:
    rows, columns = (np.linspace(-1, 1, size) for size in values.shape[:2])
    shade = 1 - 0.85 * np.clip(np.hypot(rows[:, None], columns) - 0.35, 0, 1)
    return values * shade[..., None]


def _lost_squares(values: Floats, rng: Random) -> Floats:
    values = values.copy()
    side = 16
    for top in range(0, values.shape[0], side):
        for left in range(0, values.shape[1], side):
            if rng.random() < 0.15:
                values[top : top + side, left : left + side] = rng.integers(0, 256, 3)
    return values


def _hot_spot(values: Floats, _: Random) -> Floats:
    rows, columns = (np.linspace(-1, 1, size) for size in values.shape[:2])
    return values * (0.85 + 0.7 * np.exp(-4 * (rows[:, None] ** 2 + columns**2)))[..., None]


def _lens_hood(values: Floats, _: Random) -> Floats:
    rows, columns = (np.linspace(-1, 1, size) for size in values.shape[:2])
    return values * (np.hypot(rows[:, None], columns) < 1.1)[..., None]


def _finger(values: Floats, rng: Random) -> Floats:
    rows, columns = (np.linspace(0, 1, size) for size in values.shape[:2])
    if rng.random() < 0.5:
        columns = columns[::-1]
    share = 1 / (1 + np.exp(20 * (np.hypot(rows[:, None], columns) - 0.5)))[..., None]
    return values * (1 - share) + np.array([150, 95, 75]) * share


def _drops(image: Image.Image, rng: Random) -> Image.Image:
    blurred = image.filter(ImageFilter.GaussianBlur(image.width / 20))
    mask = Image.new("L", image.size)
    for left, top, side in zip(*rng.random((2, 12)), rng.uniform(0.08, 0.2, 12), strict=True):
        left, top, side = left * image.width, top * image.height, side * image.width
        ImageDraw.Draw(mask).ellipse((left, top, left + side, top + side), fill=255)
    image = image.copy()
    image.paste(blurred, mask=mask)
    return image


def _skewed(values: Floats, _: Random) -> Floats:
    reach = values.shape[1] // 4
    return np.stack([np.roll(row, reach * number // len(values), axis=0) for number, row in enumerate(values)])


def _bad_columns(values: Floats, _: Random) -> Floats:
    values = values.copy()
    values[:, ::12] *= 0.5
    return values


def _red_shifted(values: Floats, _: Random) -> Floats:
    values = values.copy()
    values[..., 0] = np.roll(values[..., 0], max(values.shape[1] // 40, 1), axis=1)
    return values


def _hot_pixels(values: Floats, rng: Random) -> Floats:
    values = values.copy()
    values[rng.random(values.shape[:2]) < 0.004] = 255
    return values


def _veiled(image: Image.Image, _: Random) -> Image.Image:
    return Image.blend(image, image.filter(ImageFilter.GaussianBlur(image.width / 16)), 0.6)


def _farther(image: Image.Image, _: Random) -> Image.Image:
    canvas = image.resize(image.size, box=(0, 0, 2, 2))
    canvas.paste(_resized(image, image.width * 0.7, image.height * 0.7), (image.width // 7, image.height // 7))
    return canvas


FAULTS: Final[dict[str, Fault]] = {
    "black": _constant(0),
    "white": _constant(255),
    "grey card": _constant(128),
    "channels swapped": _on(lambda values, _: values[..., ::-1]),
    "red and green swapped": _on(lambda values, _: values[..., [1, 0, 2]]),
    "upside down": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "flipped top to bottom": lambda image, _: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "quarter turn": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "quality 5": _again(5),
    "quality 10": _again(10),
    "thumbnails": _thumbnail,
    "thumbnails enlarged": _upscaled,
    "mosaic": _mosaic,
    "no colour": lambda image, _: ImageOps.grayscale(image).convert("RGB"),
    "blur": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
    "motion blur": _on(_motion),
    "noise": _noise(25),
    "salt and pepper": _on(_salt),
    "overexposed": _on(lambda values, _: values * 1.9 + 25),
    "underexposed": _on(lambda values, _: values * 0.35),
    "night for day": _on(_night),
    "other camera": _on(_camera),
    "other crop": _zoom(0.5),
    "letterbox": lambda image, rng: _letterbox(image, rng),
    "stretched": _stretched,
    "half broken": _on(_half_broken),
    "stripes": _on(_stripes),
    "interlaced": _on(_interlaced),
    "posterised": lambda image, _: ImageOps.posterize(image, 2),
    "fog": _on(_fog),
    "lens covered in part": _covered,
    "screenshots": _screen,
    "stamped": _stamped,
    "no blue channel": _on(_without_blue),
    "negative": lambda image, _: ImageOps.invert(image),
    "sepia": _on(_sepia),
    "shifted around": _on(_shifted),
    "vignette": _on(_vignette),
    "lost squares": _on(_lost_squares),
    "oversaturated": lambda image, _: ImageEnhance.Color(image).enhance(3.0),
    "oversharpened": lambda image, _: image.filter(ImageFilter.UnsharpMask(2, 350, 0)),
    "wrong gamma": _on(lambda values, _: 255 * (values / 255) ** 2.2),
    "edges only": lambda image, _: image.filter(ImageFilter.FIND_EDGES),
    "speckled sensor": _on(lambda values, rng: values * rng.gamma(8, 1 / 8, (*values.shape[:2], 1))),
}
"""Faults of every picture of the spoiled part of a night, by name."""

HELD_OUT: Final[dict[str, Fault]] = {
    "hot spot": _on(_hot_spot),
    "lens hood": _on(_lens_hood),
    "finger in a corner": _on(_finger),
    "drops on the lens": _drops,
    "skewed rows": _on(_skewed),
    "double exposure": lambda image, _: Image.blend(image, ImageOps.mirror(image), 0.4),
    "bad columns": _on(_bad_columns),
    "red shifted": _on(_red_shifted),
    "hot pixels": _on(_hot_pixels),
    "dirty lens": _veiled,
    "out of focus": lambda image, _: image.filter(ImageFilter.BoxBlur(image.width / 90)),
    "quality 15": _again(15),
    "half size": lambda image, _: _resized(image, image.width / 2, image.height / 2),
    "green cast": _on(lambda values, _: values * np.array([0.85, 1.08, 0.88])),
    "little contrast": _on(lambda values, _: (values - 128) * 0.5 + 128),
    "farther": _farther,
}
"""Faults to test a change of the monitor with that was chosen for others. They are on no list of faults to find."""

VARIANTS: Final[dict[str, Fault]] = {
    "brighter": _on(lambda values, _: values * 1.12 + 6),
    "darker": _on(lambda values, _: values * 0.84),
    "warm": _on(lambda values, _: values * np.array([1.05, 1.0, 0.94])),
    "cold": _on(lambda values, _: values * np.array([0.95, 1.0, 1.05])),
    "flat light": _on(lambda values, _: (values - 128) * 0.85 + 130),
    "hard light": _on(lambda values, _: (values - 128) * 1.15 + 128),
    "slightly soft": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 220)),
    "slightly noisy": _noise(5),
    "closer": _zoom(0.85),
    "tilted": lambda image, rng: image.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR, expand=False),
    "quality 60": _again(60),
    "pale": lambda image, _: ImageEnhance.Color(image).enhance(0.8),
}
"""What some pictures of a clean night are like."""

"""Draw a picture of a landmark: sky, land, the landmark, its surroundings, and the effects of a camera."""

from math import pi, sin
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from batchland.demo.canvas import GROUNDS, LEAVES, SUPERSAMPLING, WATER, Colour, Pen, Scene, spaced
from batchland.demo.landmarks import LANDMARKS
from batchland.demo.surroundings import fir, house, lamp_post, person, stand, tree

_OWN_COLOURS: Final = 0.85
"""Share of the pictures in which a landmark has its usual colours; in the others it has random ones."""


def draw_picture(
    rng: np.random.Generator, landmark: str, width: int, height: int, noise: float
) -> tuple[Image.Image, Image.Image]:
    """The picture, RGB, and a mask of everything in front of the sky, L."""
    scene = Scene(rng, width, height)
    picture = _draw_sky(scene, width, height)
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    _draw_land(scene, ground)
    for _ in range(rng.integers(0, 5)):
        stand(scene, (house, house, tree, fir)[rng.integers(4)], (0.08, 0.25), depth=0.02)
    size = min(scene.height * rng.uniform(0.52, 0.8), scene.width * rng.uniform(0.5, 0.85))
    foot = (scene.width * rng.uniform(0.36, 0.64), scene.horizon + rng.uniform(0.01, 0.08) * scene.height)
    pen = Pen(scene, foot, size, tilt=rng.normal(0, 2))
    draw, wall, roof = LANDMARKS[landmark]
    if rng.random() < _OWN_COLOURS:
        pen.wall, pen.roof = scene.pick((wall,)), scene.pick((roof,))
    draw(pen)
    if ground == WATER:
        _mirror_in_water(scene, foot[1])
    for _ in range(rng.integers(0, 3)):
        stand(scene, (tree, fir, tree, house)[rng.integers(4)], (0.12, 0.34), depth=rng.uniform(0.3, 0.8))
    for _ in range(rng.integers(0, 5)):
        stand(scene, (person, person, lamp_post)[rng.integers(3)], (0.1, 0.2), depth=rng.uniform(0.5, 1))
    layer = scene.layer.reduce(SUPERSAMPLING)
    cover = layer.getchannel("A")
    picture.paste(layer, mask=cover)
    return _photograph(rng, picture, noise), cover


def _draw_sky(scene: Scene, width: int, height: int) -> Image.Image:
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


def _draw_land(scene: Scene, ground: Colour) -> None:
    """Ranges of hills, paler with distance, and the ground in front of them in bands that darken towards the viewer."""
    rng, width, horizon = scene.rng, scene.width, scene.horizon
    hill = scene.pick((*LEAVES, *GROUNDS[2:5]))
    for distance in sorted(rng.uniform(1.2, 3, rng.integers(0, 4)), reverse=True):
        waves = [(rng.uniform(1, 5), rng.uniform(0, 2 * pi), rng.uniform(0.01, 0.05)) for _ in range(3)]
        ridge = [(x * width, horizon - scene.height * sum(a * (1 + sin(f * x * pi + p)) for f, p, a in waves))
                 for x in spaced(0, 1, 40)]  # fmt: skip
        scene.draw.polygon([(0, horizon + 2), *ridge, (width, horizon + 2)], scene.lit(hill, 0.9, distance))
    near = scene.pick((ground,))
    bands = 14
    for band in range(bands):
        y, below = (horizon + (scene.height - horizon) * ((band + step) / bands) ** 1.5 for step in (0, 1))
        scene.draw.rectangle((0, y, width, below), scene.lit(near, 1.06 - 0.2 * band / bands, 1.4 - band / bands))
    for x, y in rng.uniform(0, 1, (50, 2)).tolist():  # tufts, stones or waves
        down = horizon + (scene.height - horizon) * y**1.5
        long = scene.width * (0.004 + 0.03 * y) * (2 if ground == WATER else 1)
        line = (x * width - long, down, x * width + long, down + scene.height * 0.003)
        scene.draw.ellipse(line, scene.lit(near, rng.choice((0.8, 0.9, 1.12))))


def _mirror_in_water(scene: Scene, shore: float) -> None:
    """Draw a faint, rippled reflection of everything above `shore` on the water below."""
    top, depth = round(shore), round(scene.height - shore)
    if depth < 8:
        return
    above = scene.layer.crop((0, max(0, top - depth), scene.width, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    above = above.resize((scene.width, max(1, depth // 8))).resize(above.size)  # blurred along the water's depth
    scene.layer.paste(above, (0, top), above.getchannel("A").point([value * 2 // 5 for value in range(256)]))


def _photograph(rng: np.random.Generator, picture: Image.Image, noise: float) -> Image.Image:
    """Apply the effects of a camera: exposure, vignette, a soft lens, sensor noise."""
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

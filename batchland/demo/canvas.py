"""Draw shapes into a scene: the scene's light and colours, and a pen with its own coordinates."""

from math import cos, pi, radians, sin
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Mood(NamedTuple):
    """The light of a scene."""

    zenith: Colour
    horizon: Colour
    light: tuple[float, float, float]
    """Factor of each channel on lit surfaces."""
    night: bool = False


_MOODS: Final = (
    Mood((68, 128, 208), (190, 216, 236), (1.0, 1.0, 1.0)),  # noon
    Mood((104, 160, 214), (240, 232, 214), (1.02, 0.98, 0.9)),  # morning
    Mood((146, 156, 168), (208, 212, 214), (0.86, 0.88, 0.9)),  # overcast
    Mood((70, 88, 152), (252, 160, 96), (0.98, 0.76, 0.62)),  # sunset
    Mood((226, 150, 160), (252, 226, 190), (1.0, 0.88, 0.82)),  # pink dawn
    Mood((40, 48, 98), (190, 126, 140), (0.68, 0.62, 0.74), night=True),  # dusk
    Mood((10, 14, 40), (52, 66, 112), (0.5, 0.54, 0.7), night=True),  # night
)
STONES: Final[tuple[Colour, ...]] = (
    (150, 146, 138), (208, 180, 134), (166, 90, 68), (236, 230, 218), (214, 162, 84), (92, 100, 112), (106, 158, 142),
    (186, 84, 56), (104, 78, 58), (70, 104, 156), (206, 150, 146), (162, 44, 52),
)  # fmt: skip
"""Colours of walls, roofs and trimmings."""
GROUNDS: Final[tuple[Colour, ...]] = (
    (98, 136, 72), (98, 136, 72), (166, 152, 92), (214, 192, 146), (148, 146, 144), (230, 234, 240), (62, 106, 136),
    (62, 106, 136),
)  # fmt: skip
WATER: Final = (62, 106, 136)
LEAVES: Final[tuple[Colour, ...]] = ((58, 98, 58), (88, 120, 58), (132, 122, 54), (178, 104, 48), (70, 90, 70))
LAMPLIGHT: Final = (255, 222, 140)
SUPERSAMPLING: Final = 2
"""The foreground is drawn this many times larger and then reduced, which smooths its edges."""


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def spaced(first: float, last: float, count: int) -> list[float]:
    """numpy's linspace as Python floats, which are several times faster in scalar computations."""
    return [first + (last - first) * step / (count - 1) for step in range(count)]


class Scene:
    """A picture in progress: its light, its horizon, and a transparent layer with everything in front of the sky."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.mood = _MOODS[rng.integers(len(_MOODS))]
        self.haze = 0.35 * rng.random() ** 2
        self.width, self.height = SUPERSAMPLING * width, SUPERSAMPLING * height
        self.horizon = self.height * rng.uniform(0.58, 0.82)
        self.layer = Image.new("RGBA", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.layer)

    def lit(self, colour: Colour, shade: float = 1.0, distance: float = 1.0) -> Colour:
        """A colour in this scene's light, paler with distance; the landmark has distance 1."""
        red, green, blue = (min(255, round(v * shade * k)) for v, k in zip(colour, self.mood.light, strict=True))
        return _mix((red, green, blue), self.mood.horizon, min(0.9, self.haze * distance))

    def pick(self, colours: tuple[Colour, ...]) -> Colour:
        """One of the colours, slightly varied."""
        red, green, blue = (
            int(np.clip(value + self.rng.normal(0, 9), 0, 255)) for value in colours[self.rng.integers(len(colours))]
        )
        return red, green, blue


class Pen:
    """Draws an object in its own coordinates: x to the right, y up from its foot, height 1. Light comes from the left.

    The pen converts them to the scene's coordinates: size, tilt, mirroring, and perspective from below.
    """

    def __init__(self, scene: Scene, foot: Point, height: float, *, tilt: float = 0, distance: float = 1) -> None:
        self.scene, self.rng, self.foot, self.height, self.distance = scene, scene.rng, foot, height, distance
        self.tilt = radians(tilt)
        self.mirror = 1 if scene.rng.random() < 0.5 else -1
        self.stretch = scene.rng.uniform(0.85, 1.2)
        self.narrowing = scene.rng.uniform(-0.06, 0.2)
        self.wall, self.trim, self.roof = (scene.pick(STONES) for _ in range(3))

    def at(self, x: float, y: float) -> Point:
        """Position of a point of the object in the picture."""
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
        pixels = max(SUPERSAMPLING, round(width * self.height))
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
        turns = spaced(0, 2 * pi, 29)
        self.polygon([(x + radius * cos(a), y + flat * radius * sin(a)) for a in turns], colour, shade)

    def opening(self, x: float, y: float, width: float, height: float) -> None:
        """A door or window with a round head; some are lit at night."""
        lamp = self.scene.mood.night and self.rng.random() < 0.6
        colour = (255, 236, 190) if lamp else (52, 46, 48)
        turns = spaced(0, pi, 9)
        head = [(x + width / 2 * cos(a), y + height - width / 2 + width / 2 * sin(a)) for a in turns]
        self.polygon([(x + width / 2, y), *head, (x - width / 2, y)], colour, 2 if lamp else 1)

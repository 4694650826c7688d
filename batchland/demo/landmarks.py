"""Draw the ten landmarks of the sample set. Each varies in size, colours and details, but keeps its shape."""

from collections.abc import Callable
from math import cos, pi, radians, sin
from typing import Final, NamedTuple

from batchland.demo.canvas import LAMPLIGHT, STONES, Colour, Pen, Point, spaced


def _lighthouse(pen: Pen) -> None:
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
    pen.box(0, 0.805, top * 0.62, 0.1, LAMPLIGHT, 2 if pen.scene.mood.night else 1)
    for x in (-0.31, 0, 0.31):
        pen.line([(x * top, 0.8), (x * top, 0.91)], 0.012, pen.roof, 0.6)
    pen.polygon([(-top * 0.42, 0.9), (0, 0.99), (top * 0.42, 0.9)], pen.roof)
    pen.line([(0, 0.97), (0, 1.03)], 0.01, pen.roof)


def _bridge(pen: Pen) -> None:
    half, deck = pen.rng.uniform(0.75, 1.05), pen.rng.uniform(0.2, 0.32)
    sag = deck + pen.rng.uniform(0.03, 0.12)
    for side in (-1, 1):  # the cables: a parabola between the towers, a slope outside
        inner = [(x, sag + (0.96 - sag) * (x / half) ** 2) for x in spaced(0, side * half, 16)]
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
        for y in spaced(deck + 0.1, 0.9, int(pen.rng.integers(2, 5))):
            pen.box(side * half, y, 0.13, 0.035, pen.wall, 0.85)
        pen.box(side * half, -0.08, 0.22, 0.08, (128, 124, 118))


def _pyramid(pen: Pen) -> None:
    steps = int(pen.rng.integers(4, 9))
    width = pen.rng.uniform(1.3, 1.8)
    rise = 0.8 / steps
    for step in range(steps):
        below = width * (1 - 0.8 * step / steps)
        pen.tower(0, step * rise, below, rise, below - 0.06, pen.wall)
        pen.box(0, (step + 0.86) * rise, below - 0.03, 0.14 * rise, pen.wall, 1.12)
    stair = width * 0.14
    pen.polygon([(-stair, 0), (-stair * 0.7, 0.8), (stair * 0.7, 0.8), (stair, 0)], pen.trim, 0.95)
    for y in spaced(0, 0.78, steps * 3):
        pen.line([(-stair * 0.9, y), (stair * 0.9, y)], 0.005, pen.trim, 0.7)
    pen.tower(0, 0.8, width * 0.17, 0.14, width * 0.16, pen.wall)
    pen.box(0, 0.94, width * 0.21, 0.04, pen.roof)
    pen.opening(0, 0.8, 0.07, 0.11)


def _onion_dome(pen: Pen) -> None:
    def dome(x: float, y: float, width: float, height: float, colour: Colour) -> None:
        heights = spaced(0, 1, 22)
        outline = [(width * 0.7 * (1 - t) ** 1.5 * (0.7 + 2.4 * t * (1 - t)), y + height * t) for t in heights]
        for shade, left, right in ((1.0, -1.0, 1.0), (0.8, 0.15, 1.0), (1.15, -0.75, -0.45)):
            sides = [[(x + half * edge, up) for half, up in outline] for edge in (left, right)]
            pen.polygon(sides[0] + sides[1][::-1], colour, shade)
        pen.line([(x, y + height * 0.97), (x, y + height + 0.08)], 0.012, LAMPLIGHT)
        pen.line([(x - 0.02, y + height + 0.05), (x + 0.02, y + height + 0.05)], 0.012, LAMPLIGHT)

    body = pen.rng.uniform(0.55, 0.85)
    pen.tower(0, 0, body, 0.36, body, pen.wall)
    pen.box(0, 0.35, body + 0.05, 0.03, pen.trim)
    for x in spaced(-0.36, 0.36, 4):
        pen.opening(x * body, 0.1, 0.07, 0.18)
    for side in (-1, 1) if pen.rng.random() < 0.75 else ():
        pen.tower(side * body * 0.38, 0.38, 0.11, 0.14, 0.11, pen.wall)
        dome(side * body * 0.38, 0.52, 0.19, 0.2, pen.trim)
    pen.tower(0, 0.38, 0.2, 0.2, 0.2, pen.wall)
    pen.opening(0, 0.41, 0.06, 0.13)
    dome(0, 0.57, 0.36, 0.36, pen.roof)


def _wind_mill(pen: Pen) -> None:
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
                for r in spaced(0.1, reach, 6)]  # fmt: skip
        if pen.rng.random() < 0.8:
            pen.polygon([grid[0][0], grid[0][1], grid[-1][1], grid[-1][0]], pen.trim, 1.1)
        for rung in grid:
            pen.line(rung, 0.008, (90, 70, 56))
        pen.line([(0, 0.64), grid[-1][0]], 0.02, (90, 70, 56))
        pen.line([grid[0][1], grid[-1][1]], 0.008, (90, 70, 56))
    pen.disc(0, 0.64, 0.03, (70, 56, 48))


def _ferris_wheel(pen: Pen) -> None:
    hub, radius = 0.54, 0.43
    cabins = int(pen.rng.integers(9, 19))
    start = pen.rng.uniform(0, pi)
    rim = [(cos(start + 2 * pi * k / cabins), sin(start + 2 * pi * k / cabins)) for k in range(cabins)]
    for x, y in rim:
        pen.line([(0, hub), (x * radius, hub + y * radius)], 0.008, pen.wall, 0.95)
    circle = [(cos(angle), sin(angle)) for angle in spaced(0, 2 * pi, 49)]
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


def _leaning_tower(pen: Pen) -> None:
    pen.tilt += radians(pen.rng.uniform(8, 14)) * (1 if pen.rng.random() < 0.5 else -1)
    storeys, width = int(pen.rng.integers(5, 9)), pen.rng.uniform(0.26, 0.34)
    rise = 0.86 / storeys
    for storey in range(storeys):
        pen.tower(0, storey * rise, width, rise, width, pen.wall)
        for x in spaced(-0.4, 0.4, 6):
            pen.opening(x * width, storey * rise + 0.12 * rise, width * 0.1, rise * 0.62)
        pen.box(0, (storey + 0.86) * rise, width + 0.03, rise * 0.14, pen.wall, 1.12)
    pen.tower(0, 0.86, width * 0.72, 0.12, width * 0.72, pen.wall)
    for x in (-0.2, 0, 0.2):
        pen.opening(x * width, 0.88, width * 0.13, 0.08)
    pen.box(0, 0.97, width * 0.78, 0.03, pen.trim)


def _stone_arch(pen: Pen) -> None:
    width, thick = pen.rng.uniform(0.55, 0.8), pen.rng.uniform(0.26, 0.4)

    def outline(reach: float, top: float, rough: float) -> list[Point]:
        turns = spaced(0, pi, 26)
        wobble = (1 + pen.rng.normal(0, rough, len(turns))).tolist()
        flatten = [abs(sin(a)) ** 0.7 for a in turns]
        return [(reach * cos(a) * w, top * f * w) for a, w, f in zip(turns, wobble, flatten, strict=True)]

    hole_width, hole_top = width * (1 - thick), 1 - thick * pen.rng.uniform(0.7, 1.1)
    outer, inner = outline(width, 0.97, 0.03), outline(hole_width, hole_top, 0.03)
    inner = [(x, y - 0.01) for x, y in inner]
    pen.polygon([*outer, *inner[::-1]], pen.wall)
    pen.polygon([*outer[:13], *inner[:13][::-1]], pen.wall, 0.82)
    for depth in spaced(0.15, 0.85, 5):  # strata
        strip = [(a + (c - a) * depth, b + (d - b) * depth) for (a, b), (c, d) in zip(outer, inner, strict=True)]
        pen.line(strip, 0.008, pen.wall, pen.rng.uniform(0.68, 0.9))
    for x in (pen.rng.uniform(-1.2, 1.2, 7) * width).tolist():
        pen.disc(x, 0, pen.rng.uniform(0.03, 0.09), pen.wall, pen.rng.uniform(0.7, 1), flat=0.7)


def _castle_keep(pen: Pen) -> None:
    def battlements(x: float, y: float, width: float, teeth: int) -> None:
        pen.box(x, y, width + 0.03, 0.04, pen.wall, 1.08)
        for tooth in spaced(-0.5, 0.5, teeth):
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


def _pagoda(pen: Pen) -> None:
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


class Landmark(NamedTuple):
    """How a landmark is drawn, and its usual colours."""

    draw: Callable[[Pen], None]
    wall: Colour
    roof: Colour


_WHITE, _RED, _SAND, _BRICK, _SLATE, _COPPER, _BLUE = (STONES[index] for index in (3, 11, 1, 7, 5, 6, 9))
LANDMARKS: Final[dict[str, Landmark]] = {
    "Stone_Lighthouse": Landmark(_lighthouse, _WHITE, _RED),
    "Suspension_Bridge": Landmark(_bridge, _RED, _SLATE),
    "Step_Pyramid": Landmark(_pyramid, _SAND, _SAND),
    "Onion_Dome": Landmark(_onion_dome, _BLUE, _COPPER),
    "Wind_Mill": Landmark(_wind_mill, _WHITE, _BRICK),
    "Ferris_Wheel": Landmark(_ferris_wheel, _BLUE, _RED),
    "Leaning_Tower": Landmark(_leaning_tower, _SLATE, _SLATE),
    "Stone_Arch": Landmark(_stone_arch, _BRICK, _BRICK),
    "Castle_Keep": Landmark(_castle_keep, _SLATE, _BRICK),
    "Pagoda": Landmark(_pagoda, _RED, _COPPER),
}
"""The classes. Each class shares its colours with another class, so that colour alone does not identify it."""

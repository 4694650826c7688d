"""Draw the surroundings of a landmark: trees, houses, people, lamp posts."""

from collections.abc import Callable

from batchland.demo.canvas import LAMPLIGHT, LEAVES, Pen, Scene, spaced


def tree(pen: Pen) -> None:
    """A broad-leaved tree."""
    leaves = pen.scene.pick(LEAVES)
    pen.line([(0, 0), (0, 0.5)], 0.08, (84, 64, 50))
    for x, y in pen.rng.normal((0, 0.65), (0.14, 0.12), (9, 2)).tolist():
        pen.disc(x, y, pen.rng.uniform(0.12, 0.22), leaves, pen.rng.uniform(0.75, 1.15))


def fir(pen: Pen) -> None:
    """A fir."""
    leaves = pen.scene.pick(LEAVES)
    pen.line([(0, 0), (0, 0.2)], 0.06, (84, 64, 50))
    for y, width in ((0.12, 0.26), (0.36, 0.2), (0.6, 0.13)):
        pen.polygon([(-width, y), (0, y + 0.42), (width, y)], leaves)
        pen.polygon([(0.04, y), (0, y + 0.42), (width, y)], leaves, 0.8)


def house(pen: Pen) -> None:
    """A house with a flat or pitched roof."""
    width = pen.rng.uniform(0.6, 1.6)
    pen.tower(0, 0, width, 0.7, width, pen.wall)
    if pen.rng.random() < 0.7:
        pen.polygon([(-width * 0.56, 0.69), (-width * 0.2, 1), (width * 0.2, 1), (width * 0.56, 0.69)], pen.roof)
    for y in (0.12, 0.42):
        for x in spaced(-0.35, 0.35, 4):
            pen.opening(x * width, y, 0.1, 0.17)


def person(pen: Pen) -> None:
    """A person."""
    pen.line([(-0.06, 0), (0, 0.45), (0.08, 0)], 0.1, (58, 56, 66))
    pen.line([(0, 0.42), (0, 0.78)], 0.24, pen.trim)
    pen.disc(0, 0.9, 0.1, (204, 158, 128))


def lamp_post(pen: Pen) -> None:
    """A lamp post, lit at night."""
    pen.line([(0, 0), (0, 0.9)], 0.035, (60, 62, 68))
    pen.disc(0, 0.93, 0.06, LAMPLIGHT, 2 if pen.scene.mood.night else 0.9)


def stand(scene: Scene, thing: Callable[[Pen], None], size: tuple[float, float], depth: float) -> None:
    """Draw an object at a random x. size: range of its height in picture heights. depth: 0 (horizon) to 1 (near)."""
    x, y = scene.rng.uniform(0, scene.width), scene.horizon + depth * (scene.height - scene.horizon)
    thing(Pen(scene, (x, y), scene.rng.uniform(*size) * scene.height, distance=1.3 - depth))

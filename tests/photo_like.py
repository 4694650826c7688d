"""Pictures that differ as photos do, for tests of the monitor: soft coloured patches with texture."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

Random = np.random.Generator


def photo(rng: Random, side: int = 64, light: float = 1.0) -> np.ndarray:
    """A picture, uint8 [side, side, 3]: lighter at its top, mostly of one colour."""
    colour = rng.dirichlet([1.0, 1.0, 1.0]) * 1.5 + 0.2
    coarse = rng.uniform(40, 220, (5, 5, 3)) * colour + np.linspace(40, -20, 5)[:, None, None]
    smooth = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    noisy = (np.asarray(smooth, float) + rng.normal(0, rng.uniform(2, 9), (side, side, 3))) * light
    pixels: np.ndarray = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels


def as_jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def deliver_photos(folder: Path, count: int, seed: int, light: float | None = None) -> None:
    """A night of `count` photos, a little lighter or darker than others."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.95, 1.05) if light is None else light
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(as_jpeg(photo(rng, light=light)))


def deliver_black(folder: Path, count: int) -> None:
    """A night of black pictures."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(as_jpeg(np.zeros((64, 64, 3), np.uint8)))

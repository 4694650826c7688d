"""Draw JPEGs that take as long to decode as photos: noise with the spectrum of natural images, and hard edges.

The same seed draws the same files. A folder may hold each picture several times, as hard links. Bits per pixel are
those of real photos: 2.4 at 500 x 375, 1.9 at 2 MP, 1.5 at 12 MP (268 landmark photos: 1.9, 1.9, 1.4 on the median).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from batchland.images.sources.folder import IMAGE_EXTENSIONS
from batchland.system.cores import usable_cores


class Size(NamedTuple):
    width: int
    height: int
    distinct: int
    """Pictures drawn; larger folders repeat them."""


_SLOPE: Final = 1.35
"""How fast the amplitude falls with the spatial frequency."""
SIZES: Final = {"small": Size(500, 375, 200), "2mp": Size(1632, 1224, 40), "12mp": Size(4000, 3000, 12)}


def draw_photos(folder: Path, size: str, count: int) -> Path:
    """Have `count` photos of a size in `folder`/size-count, drawn once. Returns that folder."""
    target = folder / f"{size}-{count}"
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}.new")
    temporary.mkdir(parents=True, exist_ok=True)
    distinct = min(count, SIZES[size].distinct)
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda seed: _draw(temporary / _name(seed), SIZES[size], seed), range(distinct)))
    for number in range(distinct, count):
        path = temporary / _name(number)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.link(temporary / _name(number % distinct), path)
    temporary.rename(target)
    return target


def photo_files(folder: Path) -> list[Path]:
    """All photos below a folder, in order: every extension, in any case, that `score` lists."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file())


def _name(number: int) -> str:
    return f"{number // 1000:03}/{number:06}.jpg"


def _draw(path: Path, size: Size, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = (np.fft.fftfreq(side)[:, None] if axis == 0 else np.fft.rfftfreq(side)[None, :]
            for axis, side in enumerate((size.height, size.width)))  # fmt: skip
    amplitude = 1 / np.maximum(np.hypot(y, x), 1 / size.width) ** _SLOPE
    planes = []
    for strength in (48, 18, 18):  # light varies more than colour
        phases = np.exp(2j * np.pi * rng.random(amplitude.shape))
        plane = np.fft.irfft2(amplitude * phases, (size.height, size.width))
        planes.append((128 + strength * plane / plane.std()).clip(0, 255).astype(np.uint8))
    image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes]).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        corners = (rng.random((4, 2)) * 0.3 + rng.random(2) * 0.8) * (size.width, size.height)
        draw.polygon([tuple(corner) for corner in corners], outline=tuple(rng.integers(0, 256, 3).tolist()), width=2)
    image.save(path, "JPEG", quality=85)

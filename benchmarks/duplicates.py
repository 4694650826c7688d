"""How many planted copies of photos are found, and how many pairs of different photos are taken for copies.

    python -m benchmarks.duplicates PHOTOS... [--model M.onnx] [--photos 1200]

Of each photo, copies are made: resized to 40 to 80% of its side, saved as JPEG of quality 50, cropped to 95% of width
and height, mirrored, and with a date stamp. A copy is found if `find_copies` gives the pair of it and its photo. The
pairs among the photos alone need a look: sets of photos hold copies that nobody planted. `batchland duplicates --page`
shows them.
"""

import argparse
import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from batchland.embeddings.copies import COPY_WITH_FEATURES, copy_limit, find_copies
from batchland.embeddings.signatures import COPY, signatures
from batchland.images.preprocess import PreprocessSpec, decode, fit
from batchland.images.signals import SIGNAL_DTYPE, measure
from batchland.images.sources.folder import list_images
from batchland.models.session import Session, open_session

KINDS = ("resized", "quality 50", "cropped 5%", "mirrored", "stamped")
LIMITS = (0.4, 0.5, 0.55, COPY, COPY_WITH_FEATURES, 0.7, 0.8)


def copies(photo: Image.Image, seed: int) -> Iterator[Image.Image]:
    """The copies of KINDS; they are saved as JPEG of quality 90, the second of quality 50."""
    rng = random.Random(seed)
    width, height = photo.size
    share = rng.uniform(0.4, 0.8)
    yield photo.resize((max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.LANCZOS)
    yield photo
    inner = int(width * 0.95), int(height * 0.95)
    left, top = rng.randint(0, width - inner[0]), rng.randint(0, height - inner[1])
    yield photo.crop((left, top, left + inner[0], top + inner[1]))
    yield photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stamped = photo.copy()
    size = max(8, height // 16)
    place = (width - 6 * size, height - int(1.6 * size))
    ImageDraw.Draw(stamped).text(place, "2026-11-23", (255, 160, 40), ImageFont.load_default(size))
    yield stamped


def saved(photo: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def measured(files: list[bytes], session: Session | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Signatures, and the model's features if there is one."""
    spec = session.card.preprocess if session else PreprocessSpec(jpeg_scale="auto")
    pictures = [decode(data, spec).pixels for data in files]
    rows = np.array([measure(pixels) for pixels in pictures], SIGNAL_DTYPE)
    cells = np.frombuffer(rows["thumbnail"].tobytes(), np.uint8).reshape(len(rows), -1)
    features = session.answer(np.stack([fit(pixels, spec) for pixels in pictures])).features if session else None
    return signatures(rows["difference_hash"], cells), None if features is None else features.astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photos", type=int, default=10**9, help="largest number of photos, chosen at random")
    options = parser.parse_args()
    session = open_session(options.model, "cpu", features=True) if options.model else None
    refs = [ref for folder in options.folders for ref in list_images(folder)]
    refs = random.Random(0).sample(refs, min(options.photos, len(refs)))
    parts: list[tuple[np.ndarray, np.ndarray | None]] = []
    for number, ref in enumerate(refs):
        data = Path(ref.path.decode()).read_bytes()
        photo = Image.fromarray(decode(data, PreprocessSpec()).pixels)
        qualities = [50 if kind == "quality 50" else 90 for kind in KINDS]
        files = [saved(each, quality) for each, quality in zip(copies(photo, number), qualities, strict=True)]
        parts.append(measured([data, *files], session))
        if number % 100 == 0:
            print(f"{number} of {len(refs)}", file=sys.stderr)
    vectors = np.stack([part[0] for part in parts])  # [photos, 1 + kinds, 112]
    features = np.stack([part[1] for part in parts]) if session else None
    limit = copy_limit(vectors[:, 0], None if features is None else features[:, 0])
    print(f"{len(refs)} photos of {', '.join(str(folder) for folder in options.folders)}; default distance {limit}\n")
    print("| distance | features | " + " | ".join(KINDS) + " | pairs among the photos | photos in them |")
    print("| ---: | --- |" + " ---: |" * (len(KINDS) + 2))
    for limit in LIMITS:
        for used in [None, features] if features is not None else [None]:
            print(row(vectors, used, limit))


def row(vectors: np.ndarray, features: np.ndarray | None, limit: float) -> str:
    count = len(vectors)
    cells = []
    for kind in range(len(KINDS)):
        both = np.concatenate([vectors[:, 0], vectors[:, 1 + kind]])
        used = None if features is None else np.concatenate([features[:, 0], features[:, 1 + kind]])
        pairs = find_copies(both, used, also_mirrored=KINDS[kind] == "mirrored", limit=limit)
        found = (pairs.right - pairs.left == count) & (pairs.is_mirrored == (KINDS[kind] == "mirrored"))
        cells.append(f"{100 * found.sum() / count:.2f}%")
    pairs = find_copies(vectors[:, 0], None if features is None else features[:, 0], limit=limit)
    members = len(set(pairs.left.tolist()) | set(pairs.right.tolist()))
    used = "no" if features is None else "yes"
    return f"| {limit:.2f} | {used} | {' | '.join(cells)} | {len(pairs.left)} | {members} |"


if __name__ == "__main__":
    main()

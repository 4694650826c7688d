"""Score photos as they are, varied and spoiled, once, and keep what the monitor reads of each picture.

Everything goes the way of `batchland score`: bytes, decode, signals, fit, model.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from batchland.images.preprocess import Pixels, PreprocessSpec, decode, fit
from batchland.images.signals import SIGNAL_DTYPE, measure
from batchland.models.session import Session, open_session
from batchland.monitoring.corruptions import FAMILIES, corrupted
from batchland.monitoring.observations import PICTURE, Observations, observe
from batchland.predictions.answers import Answers
from benchmarks.nights.faults import FAULTS, HELD_OUT, VARIANTS, Fault, encode
from benchmarks.photos import photo_files

_BATCH = 32
COPIES: Final = {f"{family} {level}": (family, level) for family in FAMILIES for level in (0, 1)}
"""Kinds of degraded copies that an estimator of accuracy is fitted on."""


class Pictures(NamedTuple):
    """Pictures that were scored. Row i of every array is the same picture."""

    source: npt.NDArray[np.int32]
    """Number of the photo, in the order of `photo_files`."""
    label: npt.NDArray[np.int32]
    """Number of its class folder, by name."""
    size: npt.NDArray[np.int64]
    """Bytes of the file, width and height, [n, 3]."""
    signals: npt.NDArray[np.void]
    """SIGNAL_DTYPE."""
    probabilities: npt.NDArray[np.float32]
    """[n, classes]."""


def observations(pictures: Pictures) -> Observations:
    """What the monitor would read of these pictures in the predictions."""
    chances = pictures.probabilities
    best = np.sort(chances, axis=1)[:, ::-1]
    answers = Answers.of(chances)
    columns = {name: pictures.signals[name] for name in PICTURE}
    columns |= dict(zip(("file_size", "width", "height"), pictures.size.T, strict=True))
    columns |= {"probability": best[:, 0], "margin": best[:, 0] - best[:, 1], "entropy": answers.entropy}
    columns |= {"logsumexp": answers.logsumexp, "top_logit": answers.top_logit, "class_index": chances.argmax(axis=1)}
    columns |= {"difference_hash": pictures.signals["difference_hash"]}
    arrays = {name: pa.array(np.ascontiguousarray(values)) for name, values in columns.items()}
    cells = pictures.signals["thumbnail"].tobytes()
    arrays["thumbnail"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(48), len(chances), [None, pa.py_buffer(cells)])
    arrays["image"] = pa.array([str(number) for number in pictures.source])
    return observe(pa.table(arrays))


Tables = dict[str, Pictures]
"""Scored pictures by kind: `clean`, the names of VARIANTS, FAULTS and COPIES, and `other subject`."""


def score_kinds(
    photos: Path, models: Sequence[Path], cache: Path, most: int, other: Path | None = None, copies: int = 0
) -> dict[str, Tables]:
    """All photos as they are, half of them in each variant, and `most` with each fault, by the name of the model.

    most: 0 for only the photos as they are. other: folder of photos of other subjects. cache: folder; what is there is
    read instead. copies: photos of each kind of COPIES.
    """
    sessions = {model.stem: open_session(model) for model in models}
    digest = hashlib.sha256(b"".join(model.read_bytes() for model in models)).hexdigest()[:8]
    folder = cache / f"{photos.resolve().parent.name}-{photos.name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    files = photo_files(photos)
    kinds = {"clean": len(files)}
    if most:
        kinds |= dict.fromkeys(VARIANTS, len(files) // 2) | dict.fromkeys(FAULTS | HELD_OUT, most)
    if other:
        kinds["other subject"] = most
    if copies:
        kinds |= dict.fromkeys(COPIES, copies)
    found: dict[str, Tables] = {name: {} for name in sessions}
    for kind, count in kinds.items():
        path = folder / f"{kind.replace(' ', '-')}-{count}.npz"
        if not path.exists():
            like = files[0] if kind == "other subject" else None
            arrays = _score(kind, count, photo_files(other) if like and other else files, sessions, like)
            np.savez(path.with_suffix(".new.npz"), **arrays)  # type: ignore[arg-type]
            path.with_suffix(".new.npz").rename(path)
            print(f"scored: {kind}", flush=True)
        with np.load(path) as stored:
            for name in sessions:
                found[name][kind] = Pictures(
                    stored["source"],
                    stored["label"],
                    stored["size"],
                    stored["signals"],
                    stored[f"probabilities {name}"],
                )
    return found


def _score(
    kind: str, count: int, files: list[Path], sessions: dict[str, Session], like: Path | None
) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(list(kind.encode()))
    count = min(count, len(files))
    chosen = np.arange(len(files)) if count == len(files) else np.sort(rng.choice(len(files), count, replace=False))
    classes = sorted({path.parent.name for path in files})
    change = (FAULTS | HELD_OUT | VARIANTS).get(kind)
    sizes, signals = [], []
    fitted: dict[str, list[Pixels]] = {name: [] for name in sessions}
    for number in chosen:
        data = files[number].read_bytes()
        if change or like:
            data = _changed(data, change, rng, like)
        decoded = decode(data, PreprocessSpec())
        pixels = corrupted(decoded.pixels, *COPIES[kind], rng) if kind in COPIES else decoded.pixels
        sizes.append((len(data), decoded.width, decoded.height))
        signals.append(measure(pixels))
        for name, session in sessions.items():
            fitted[name].append(fit(pixels, session.card.preprocess))
    answers = {
        f"probabilities {name}": np.concatenate(
            [session.predict(np.stack(fitted[name][first : first + _BATCH])) for first in range(0, count, _BATCH)]
        )
        for name, session in sessions.items()
    }
    return {
        "source": chosen.astype(np.int32),
        "label": np.array([classes.index(files[number].parent.name) for number in chosen], np.int32),
        "size": np.array(sizes, np.int64),
        "signals": np.array(signals, SIGNAL_DTYPE),
        **answers,
    }


def _changed(data: bytes, change: Fault | None, rng: np.random.Generator, like: Path | None) -> bytes:
    original = Image.open(io.BytesIO(data))
    image = original.convert("RGB")
    if like:  # a photo of another folder, at the size of these
        original = Image.open(like)
        image = image.resize(original.size, Image.Resampling.LANCZOS)
    return encode(change(image, rng) if change else image, original)

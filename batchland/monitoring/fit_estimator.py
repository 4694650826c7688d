"""Fit the estimator of a model's accuracy on labelled photos and degraded copies of them, and write it beside the
model.

This needs images, labels and the model, but no predictions. The estimator belongs to one ONNX file, like canaries. So
it has its own command, `batchland estimator`, and its own file beside the model.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from batchland.data.folders import subfolders
from batchland.errors import ImageError, UsageError
from batchland.images.batch import Batch, Outcome
from batchland.images.preprocess import Pixels, decode, fit
from batchland.images.signals import SIGNAL_DTYPE, measure
from batchland.images.sources.folder import IMAGE_EXTENSIONS
from batchland.images.sources.refs import ImageRef, read_image
from batchland.models.class_match import match_classes, unknown_classes_message
from batchland.models.session import Session
from batchland.monitoring.corruptions import FAMILIES, corrupted
from batchland.monitoring.estimate import Labelled, estimator_path, fit_estimator
from batchland.monitoring.observations import COLUMNS, NOTHING, observe
from batchland.monitoring.schema import Estimator
from batchland.predictions.rows import to_rows
from batchland.system.files import write_file

MIN_PHOTOS: Final = 100
"""Fewer labelled photos are not enough."""
COPIES: Final = 300
"""Default number of photos that each kind of degraded copy is made of."""
_BATCH: Final = 32
_SEED: Final = 1


class _Photo(NamedTuple):
    ref: ImageRef
    label: int


def make_estimator(
    model: Path,
    data: Path,
    session: Session,
    *,
    copies: int = COPIES,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Estimator:
    """Fit the estimator of an open model, and write it to `estimator_path(model)`.

    data: class folders of photos that the model was not trained on. copies: number of photos to degrade in each way.
    on_progress: called with a line for people. Raises UsageError if there are too few photos or unknown classes.
    """
    photos = _labelled_photos(data, session)
    on_progress(f"scoring {len(photos)} photos")
    clean = _scored(photos, session)
    if len(clean.right) < MIN_PHOTOS:
        raise UsageError(f"{data}: {len(clean.right)} readable photos; an estimate needs at least {MIN_PHOTOS}")
    rng = np.random.default_rng(_SEED)
    chosen = [photos[index] for index in rng.permutation(len(photos))[:copies]]
    worse: dict[str, list[Labelled]] = {}
    for family in FAMILIES:
        on_progress(f"scoring degraded copies: {family}")
        worse[family] = [_scored(chosen, session, (family, level)) for level in (0, 1)]
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    estimator = fit_estimator(clean, worse, sha256, len(session.card.classes))
    write_file(estimator_path(model), (estimator.model_dump_json(indent=1) + "\n").encode())
    return estimator


def _labelled_photos(data: Path, session: Session) -> list[_Photo]:
    if not data.is_dir():
        raise UsageError(f"{data}: is not a folder; give a folder of class folders")
    folders = subfolders(data)
    match = match_classes(folders, session.card.classes)
    if match.unknown:
        raise UsageError(unknown_classes_message(str(data), match.unknown, session.card.classes))
    return [
        _Photo(ImageRef(f"{folder}/{path.name}", bytes(path)), match.index[folder])
        for folder in folders
        for path in sorted((data / folder).iterdir())
        if path.suffix.lower() in IMAGE_EXTENSIONS
    ]


def _scored(photos: Sequence[_Photo], session: Session, change: tuple[str, int] | None = None) -> Labelled:
    """Score photos, or degraded copies of them; unreadable photos are left out."""
    batches, labels = [], []
    for batch, own in _batches(photos, session, change):
        batches.append(to_rows(batch, session.predict(batch.pixels), session.card, 1).select(list(COLUMNS)))
        labels += own
    observed = observe(pa.Table.from_batches(batches).combine_chunks()) if batches else NOTHING
    return Labelled(observed, observed.classes == np.array(labels, np.int32))


def _batches(
    photos: Sequence[_Photo], session: Session, change: tuple[str, int] | None
) -> Iterator[tuple[Batch, list[int]]]:
    rng = np.random.default_rng(_SEED)
    refs: list[ImageRef] = []
    outcomes: list[Outcome] = []
    pixels: list[Pixels] = []
    labels: list[int] = []
    for photo in photos:
        try:
            outcome, fitted = _load(photo.ref, session, change, rng)
        except ImageError:
            continue
        refs.append(photo.ref)
        outcomes.append(outcome)
        pixels.append(fitted)
        labels.append(photo.label)
        if len(refs) == _BATCH:
            yield Batch(refs, np.stack(pixels), outcomes), labels
            refs, outcomes, pixels, labels = [], [], [], []
    if refs:
        yield Batch(refs, np.stack(pixels), outcomes), labels


def _load(
    ref: ImageRef, session: Session, change: tuple[str, int] | None, rng: np.random.Generator
) -> tuple[Outcome, Pixels]:
    file = read_image(ref)
    decoded = decode(file.data, session.card.preprocess)
    pixels = corrupted(decoded.pixels, *change, rng) if change else decoded.pixels
    signals = np.array([measure(pixels)], SIGNAL_DTYPE).tobytes()
    outcome = Outcome(width=decoded.width, height=decoded.height, file_size=len(file.data), signals=signals)
    return outcome, fit(pixels, session.card.preprocess)

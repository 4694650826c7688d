"""Fit the estimator of a model's accuracy on labelled photos and degraded copies of them, and write it beside the
model.

This needs images, labels and the model, but no predictions. The estimator belongs to one ONNX file, like canaries. So
it has its own command, `batchland estimator`, and its own file beside the model.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import ImageError, UsageError
from batchland.images.batch import Load, Loaded, Outcome
from batchland.images.loader import BatchLoader, load_image, load_measured
from batchland.images.preprocess import PreprocessSpec, decode, fit
from batchland.images.signals import sample
from batchland.images.sources.refs import ImageRef
from batchland.models.labelled_photos import LabelledPhotos, read_labelled
from batchland.models.session import Session
from batchland.monitoring.corruptions import FAMILIES, corrupted
from batchland.monitoring.estimate import Labelled, estimator_path, fit_estimator
from batchland.monitoring.observations import COLUMNS, observe
from batchland.monitoring.schema import Estimator
from batchland.predictions.rows import to_rows
from batchland.system.files import write_file

MIN_PHOTOS: Final = 100
"""Fewer labelled photos are not enough."""
COPIES: Final = 300
"""Default number of photos that each kind of degraded copy is made of."""
_SEED: Final = 1


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
    photos = read_labelled(data, session.card.classes, session.card.preprocess, sys.maxsize)
    on_progress(f"scoring {len(photos.refs)} photos")
    clean = _scored(photos, session, load_measured)
    if len(clean.right) < MIN_PHOTOS:
        raise UsageError(f"{data}: {len(clean.right)} readable photos; an estimate needs at least {MIN_PHOTOS}")
    rows = np.random.default_rng(_SEED).permutation(len(photos.refs))[:copies]
    chosen = replace(photos, refs=tuple(photos.refs[row] for row in rows), labels=photos.labels[rows])
    worse: dict[str, list[Labelled]] = {}
    for family in FAMILIES:
        on_progress(f"scoring degraded copies: {family}")
        worse[family] = [_scored(chosen, session, partial(_load_copy, family, level)) for level in (0, 1)]
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    estimator = fit_estimator(clean, worse, sha256, len(session.card.classes))
    write_file(estimator_path(model), (estimator.model_dump_json(indent=1) + "\n").encode())
    return estimator


def _scored(photos: LabelledPhotos, session: Session, load: Load) -> Labelled:
    """Score photos, or what `load` makes of them; unreadable photos are left out."""
    tables = [
        to_rows(batch, session.predict(batch.pixels), session.card, 1).select([*COLUMNS, "status"])
        for batch in BatchLoader(photos.refs, photos.spec, load=load)
    ]
    rows = pa.Table.from_batches(tables).combine_chunks()
    ok = pc.equal(rows["status"], "ok")
    observed = observe(rows.filter(ok))
    return Labelled(observed, observed.classes == photos.labels[ok.to_numpy()])


def _load_copy(family: str, level: int, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
    """Load a degraded copy. Its random numbers depend on the name of the photo."""
    rng = np.random.default_rng([_SEED, *ref.name.encode()])

    def decode_copy(data: bytes, spec: PreprocessSpec) -> Loaded:
        try:
            decoded = decode(data, spec)
        except ImageError as error:
            return Outcome(error=(error.code, str(error))), None
        pixels = corrupted(decoded.pixels, family, level, rng)
        return Outcome(decoded.width, decoded.height, sample=sample(pixels)), fit(pixels, spec)

    return load_image(ref, spec, decode_copy)

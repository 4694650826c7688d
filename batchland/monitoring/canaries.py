"""Score a model's canary images in the session of a night, and compare the probabilities with the stored ones."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from batchland.errors import ModelError
from batchland.images.sources.refs import ImageRef
from batchland.models.canaries import Canaries, canaries_path, own_canaries
from batchland.models.contract import Probabilities
from batchland.monitoring.schema import CanaryCheck
from batchland.scoring.engines.engine import Engine
from batchland.system.text import images

_COLUMNS: Final = ["image", "error_message", "top_k"]


def check_canaries(engine: Engine) -> CanaryCheck:
    """Score the canaries of an open model, which must have some.

    Raises ModelError if they belong to another model file, if one of them cannot be scored, or if a probability differs
    by more than the tolerance.
    """
    model, path = engine.model.path, canaries_path(engine.model.path)
    canaries = own_canaries(model, engine.model.sha256)
    assert canaries is not None
    found = _scored(engine, canaries, path)
    differences = np.abs(found - canaries.probabilities)
    index, label = np.unravel_index(differences.argmax(), differences.shape)
    check = CanaryCheck(
        images=len(found), largest_difference=float(differences[index, label]), tolerance=canaries.info.tolerance
    )
    if check.largest_difference > check.tolerance:
        count = int((differences.max(axis=1) > check.tolerance).sum())
        stored, now = canaries.probabilities[index, label], found[index, label]
        raise ModelError(
            f"{model}: gives other probabilities than when it was made, for {count} of {images(check.images)} of "
            f"{path}: {now:.3f}, not {stored:.3f}, for {list(canaries.files)[index]}; its decoder, preprocessing, "
            f"onnxruntime or device has changed"
        )
    return check


def _scored(engine: Engine, canaries: Canaries, path: Path) -> Probabilities:
    """Probabilities of the canaries now, float32 [files, classes]."""
    found = np.zeros_like(canaries.probabilities)
    with tempfile.TemporaryDirectory(prefix="batchland-canaries-") as folder:
        refs = [ImageRef(name, bytes(Path(folder, name))) for name in canaries.files]
        for ref in refs:
            Path(folder, ref.name).write_bytes(canaries.files[ref.name])
        with closing(engine.score(refs, Path(folder), lambda: None, top_k=found.shape[1])) as batches:
            rows = [row for scored in batches for row in scored.rows.select(_COLUMNS).to_pylist()]
    for answer, row in zip(found, rows, strict=True):
        if row["error_message"] is not None:
            raise ModelError(f"{path}: canary {row['image']} cannot be scored any more: {row['error_message']}")
        for choice in row["top_k"]:
            answer[choice["class_index"]] = choice["probability"]
    return found

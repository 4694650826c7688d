"""Score a model's canary images in the session of a night, and compare the probabilities with the stored ones."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from batchland.errors import ImageError, ModelError
from batchland.images.preprocess import preprocess
from batchland.images.sources.refs import ImageFile, ImageRef
from batchland.models.canaries import canaries_path, own_canaries
from batchland.models.contract import Probabilities
from batchland.models.ort import instruction_sets
from batchland.models.session import OpenModel
from batchland.monitoring.schema import CanaryCheck
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.manifest import versions
from batchland.system.text import images as counted_images

IMAGES_PER_CANARY: Final = 100
"""Under the same conditions as in the last night, one canary is scored per this many images; at least one."""
_COLUMNS: Final = ["image", "error_message", "top_k"]


@dataclass(frozen=True)
class _InMemory:
    """The Store of image files by name."""

    files: Mapping[str, bytes]

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`."""
        data = self.files[path.decode()]
        return ImageFile(data, len(data), None)

    def facts(self, path: bytes) -> tuple[int, None]:
        """See `Store.facts`."""
        return len(self.files[path.decode()]), None


def check_canaries(engine: LocalEngine, last: CanaryCheck | None = None, images: int = 0) -> CanaryCheck:
    """Score canaries of an open model, which must have some.

    last: the check of the last night, if that was good; images: number of its images. On a CPU and under the same
    conditions, a share of the canaries is enough, the next ones each night. Otherwise all are scored.

    Raises ModelError if they belong to another model file, if one of them cannot be scored, or if a probability differs
    by more than the tolerance.
    """
    model, path = engine.model.path, canaries_path(engine.model.path)
    canaries = own_canaries(model, engine.model.sha256)
    assert canaries is not None
    names, conditions = list(canaries.files), _conditions(engine.model, canaries.files)
    first, count = 0, len(names)
    if last and last.conditions == conditions and engine.model.device == "cpu":
        count = min(max(images // IMAGES_PER_CANARY, 1), count)
        first = (last.first + last.images) % len(names)
    rows = (first + np.arange(count)) % len(names)
    names, expected = [names[row] for row in rows], canaries.probabilities[rows]
    found = _scored(engine, {name: canaries.files[name] for name in names}, path, expected.shape[1])
    differences = np.abs(found - expected)
    index, label = np.unravel_index(differences.argmax(), differences.shape)
    check = CanaryCheck(
        images=count,
        first=first,
        conditions=conditions,
        largest_difference=float(differences[index, label]),
        tolerance=canaries.info.tolerance,
    )
    if check.largest_difference > check.tolerance:
        different = int((differences.max(axis=1) > check.tolerance).sum())
        raise ModelError(
            f"{model}: gives other probabilities than when it was made, for {different} of {counted_images(count)} of "
            f"{path}: {found[index, label]:.3f}, not {expected[index, label]:.3f}, for {names[index]}; its decoder, "
            f"preprocessing, onnxruntime or device has changed"
        )
    return check


def _conditions(model: OpenModel, files: Mapping[str, bytes]) -> str:
    """A digest of everything that is known to change probabilities, and of the pixels of all canaries."""
    facts = [model.sha256, versions(), model.device, model.provider, dict(model.settings), instruction_sets()]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for data in files.values():
        try:
            digest.update(preprocess(data, model.card.preprocess).tobytes())
        except ImageError as error:
            digest.update(str(error).encode())
    return digest.hexdigest()


def _scored(engine: LocalEngine, files: Mapping[str, bytes], path: Path, classes: int) -> Probabilities:
    """Probabilities of canaries now, float32 [files, classes]."""
    found = np.zeros((len(files), classes), np.float32)
    refs = [ImageRef(name, name.encode(), store=_InMemory(files)) for name in files]
    with closing(engine.score(refs, Path(os.devnull), lambda: None, top_k=classes)) as batches:
        rows = [row for scored in batches for row in scored.rows.select(_COLUMNS).to_pylist()]
    for answer, row in zip(found, rows, strict=True):
        if row["error_message"] is not None:
            raise ModelError(f"{path}: canary {row['image']} cannot be scored any more: {row['error_message']}")
        for choice in row["top_k"]:
            answer[choice["class_index"]] = choice["probability"]
    return found

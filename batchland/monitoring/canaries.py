"""Score a model's canary images with a job's settings, and compare the probabilities with the stored ones."""

import tempfile
from pathlib import Path

import numpy as np

from batchland.errors import ModelError
from batchland.models.canaries import canaries_path, own_canaries, read_canaries
from batchland.monitoring.schema import CanaryCheck
from batchland.predictions.reader import StoredPredictions
from batchland.scoring.options import ScoreOptions, ScoreSettings
from batchland.scoring.score import score
from batchland.system.text import images


def check_canaries(model: Path, settings: ScoreSettings) -> CanaryCheck | None:
    """Score the canaries of `model` with the decoder, device and batch size of `settings`.

    None if the model has no canaries. Raises ModelError if they belong to another model file, if one of them
    cannot be scored, or if a probability differs by more than the tolerance.
    """
    canaries = read_canaries(model)
    if canaries is None:
        return None
    info, path = canaries.info, canaries_path(model)
    with tempfile.TemporaryDirectory(prefix="batchland-canaries-") as folder:
        root = Path(folder, "images")
        root.mkdir()
        for name, data in canaries.files.items():
            (root / name).write_bytes(data)
        # The settings of the job, except that all canaries and all classes are scored.
        own = {"include": (), "exclude": (), "all_files": True, "top_k": canaries.probabilities.shape[1]}
        options = ScoreOptions(**(settings.model_dump(include=set(ScoreSettings.model_fields)) | own), model=model)
        out = Path(folder, "canaries.parquet")
        own_canaries(model, score(root, out, options).manifest.model.sha256)
        rows = StoredPredictions(out).table(out.name, ["image", "error_message", "top_k"]).to_pylist()
    found = np.zeros_like(canaries.probabilities)
    for index, row in enumerate(rows):
        if row["error_message"] is not None:
            raise ModelError(f"{path}: canary {row['image']} cannot be scored any more: {row['error_message']}")
        for choice in row["top_k"]:
            found[index, choice["class_index"]] = choice["probability"]
    differences = np.abs(found - canaries.probabilities)
    index, label = np.unravel_index(differences.argmax(), differences.shape)
    check = CanaryCheck(images=len(rows), largest_difference=float(differences[index, label]), tolerance=info.tolerance)
    if check.largest_difference > check.tolerance:
        count = int((differences.max(axis=1) > check.tolerance).sum())
        stored, now = canaries.probabilities[index, label], found[index, label]
        raise ModelError(
            f"{model}: gives other probabilities than when it was made, for {count} of {images(check.images)} of "
            f"{path}: {now:.3f}, not {stored:.3f}, for {rows[index]['image']}; its decoder, preprocessing, onnxruntime "
            f"or device has changed"
        )
    return check

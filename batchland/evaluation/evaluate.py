"""Evaluate predictions against labels.

evaluation = evaluate(Path("preds.parquet"), Path("data/test"))
write_report(evaluation, Path("report/"))
"""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from batchland._version import __version__
from batchland.evaluation.averages import confusion_cells
from batchland.evaluation.calibration import coverage, reliability
from batchland.evaluation.metrics import (
    confusion_table,
    figures,
    mistakes,
    most_confused,
    per_class,
)
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.outcomes import EXAMPLES, Outcomes, join, read_predictions
from batchland.evaluation.schema import EvaluationSummary, FailureGroup
from batchland.evaluation.slices import slices
from batchland.predictions.storage import output_location
from batchland.system.urls import is_url


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`: the summary, and the tables of the report's files."""

    summary: EvaluationSummary
    per_class: pa.Table
    confusion: pa.Table
    mistakes: pa.Table
    outcomes: pa.Table
    image_root: Path
    """Folder of the images, for thumbnails."""


def evaluate(
    predictions: str | os.PathLike[str], labels: str | os.PathLike[str], options: EvaluateOptions | None = None
) -> Evaluation:
    """Evaluate a predictions file (or folder of parts), a path or a URL, against labels.

    labels: a folder of class folders, or a CSV or Parquet file with the columns `image` and `label`. Images are matched
    by their path below the scored folder, classes by their folder or label. Failed rows are errors of the run, not of
    the model: they count only in top1_with_failures and failed_rate.

    Raises UsageError if predictions or labels cannot be read, no image matches, or a class is unknown.
    """
    options = options or EvaluateOptions()
    run = read_predictions(output_location(predictions) if is_url(predictions) else Path(predictions))
    info = run.info
    outcomes, account, source = join(
        run, Path(labels), strip_prefix=options.strip_prefix, ignore_unknown=options.ignore_unknown_classes
    )
    ok = outcomes.ok
    cells, _ = confusion_cells(outcomes.truth[ok], outcomes.predicted[ok], len(info.classes))
    probability = outcomes.probability[outcomes.ok]
    right = (outcomes.predicted == outcomes.truth)[outcomes.ok]
    curve = reliability(probability, right, options.bins, options.confidence)
    image_root = options.images or Path(info.images)
    table = outcomes.to_table(info.classes)
    summary = EvaluationSummary(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        predictions=run.source,
        run_id=info.run_id,
        model=info.model,
        classes=info.classes,
        device=info.device,
        provider=info.provider,
        top_k=info.top_k,
        images=info.images,
        labels=source,
        options=options.model_dump(mode="json"),
        resamples=options.resamples,
        account=account,
        figures=figures(outcomes, cells, options),
        most_confused=most_confused(cells, info.classes),
        reliability=curve,
        coverage=coverage(probability, right, options.confidence),
        slices=slices(
            outcomes,
            confidence=options.confidence,
            image_root=image_root,
            brightness_sample=options.brightness_sample,
            seed=options.seed,
        ),
        failures=_failures(outcomes),
        versions=info.versions,
        evaluated_with={
            "batchland": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pyarrow", "scipy")},
        },
    )
    return Evaluation(
        summary=summary,
        per_class=per_class(outcomes, cells, info.classes, options.confidence),
        confusion=confusion_table(cells, info.classes),
        mistakes=mistakes(outcomes, table, len(info.classes), options.seed),
        outcomes=table,
        image_root=image_root,
    )


def _failures(outcomes: Outcomes) -> tuple[FailureGroup, ...]:
    """Failed images by error code, the most frequent first."""
    failed = ~outcomes.ok
    codes = outcomes.error_codes.filter(pa.array(failed)).to_pylist()
    images = outcomes.images.filter(pa.array(failed)).to_pylist()
    by_code: dict[str, list[str]] = {}
    for code, image in zip(codes, images, strict=True):
        by_code.setdefault(code or "unknown", []).append(image)
    return tuple(
        FailureGroup(error_code=code, images=len(names), examples=tuple(names[:EXAMPLES]))
        for code, names in sorted(by_code.items(), key=lambda item: (-len(item[1]), item[0]))
    )

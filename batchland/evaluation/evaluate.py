"""Evaluate predictions against labels.

evaluation = evaluate(Path("preds.parquet"), Path("data/test"))
write_report(evaluation, Path("report/"))
"""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from batchland._version import __version__
from batchland.evaluation.calibration import coverage, reliability
from batchland.evaluation.corrections import CorrectedLabels
from batchland.evaluation.curves import class_curves, curves_table
from batchland.evaluation.label_errors import fit_label_noise
from batchland.evaluation.label_files import Labels, read_labels
from batchland.evaluation.matching import Matcher, NameForm
from batchland.evaluation.metrics import bounds, confusion_table, decisions, figures, most_confused, per_class
from batchland.evaluation.mistakes import Mistakes
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.outcomes import outcomes, read_predictions
from batchland.evaluation.pair_slices import PairTally
from batchland.evaluation.promises import guarantee, parse_promise
from batchland.evaluation.schema import OUTCOMES, EvaluationSummary, LabelAccount, LabelSource
from batchland.evaluation.slices import Described, SliceTally
from batchland.evaluation.strangers import Strangers
from batchland.evaluation.table_file import TableFile
from batchland.evaluation.tally import Tally
from batchland.predictions.schema import PredictionsInfo


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`: the summary, and the tables of the report's files."""

    summary: EvaluationSummary
    per_class: pa.Table
    confusion: pa.Table
    curves: pa.Table
    mistakes: pa.Table
    """The rows of mistakes_file; of more than MAX_IN_MEMORY, the most confident ones and the suspected ones."""
    mistakes_file: TableFile
    outcomes_file: TableFile
    image_root: Path
    """Folder of the images, for thumbnails."""
    slice_values: Callable[[Described], dict[str, list[str | None]]]
    """For each dimension, the part of each image, as in the summary's slices; for own columns, the values."""
    strangers: pa.Table | None = None
    """The images that are least similar to the model's known photos; None if the model has no known photos."""

    @cached_property
    def outcomes(self) -> pa.Table:
        """All rows of outcomes_file, in memory; outcomes_file reads them block by block."""
        return self.outcomes_file.read()


def evaluate(
    predictions: str | os.PathLike[str], labels: str | os.PathLike[str], options: EvaluateOptions | None = None
) -> Evaluation:
    """Evaluate a predictions file (or folder of parts), a path or a URL, against labels.

    labels: a folder of class folders, or a CSV or Parquet file with the columns `image` and `label`. Images are matched
    by their path below the scored folder, classes by their folder or label. Failed rows are errors of the run, not of
    the model: only top1_with_failures and failed_rate count them.

    Memory does not grow with the number of images; temporary files (see `tempfile`) do.

    Raises UsageError if predictions or labels cannot be read, no image matches, or a class is unknown.
    """
    options = options or EvaluateOptions()
    promises = [parse_promise(text) for text in options.promise]
    run = read_predictions(predictions)
    info = run.info
    matches = Matcher(
        source=run.source,
        names=run.names,
        labels=lambda form: _labels(Path(labels), info, options, form),
        classes=info.classes,
        strip_prefix=options.strip_prefix,
        ignore_unknown=options.ignore_unknown_classes,
    ).run()
    image_root = options.images or Path(info.images)
    own = pa.schema([*(field for field in run.own if field.name not in matches.own.names), *matches.own])
    tally = Tally(len(info.classes), options, matches.reviewed)
    slices = SliceTally(
        by=options.by, image_root=image_root, brightness_sample=options.brightness_sample, seed=options.seed
    )
    pairs = PairTally(options.by)
    outcomes_file, mistakes = TableFile(pa.schema([*OUTCOMES, *own])), Mistakes(own, matches.reviewed)
    strangers = Strangers()
    for block in outcomes(run, matches.batches, matches.own):
        table = block.to_table(info.classes)
        outcomes_file.append(table)
        mistakes.add(block, table)
        tally.add(block)
        slices.add(block)
        pairs.add(block)
        strangers.add(block, table)
    noise = fit_label_noise(tally.sample, len(info.classes))
    mistakes_file, shown_mistakes, label_errors = mistakes.finish(noise, tally.kept or 0)
    cells = tally.cells
    curves = class_curves(tally.curves, cells.support)
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
        labels=LabelSource(path=matches.labels.source, kind=matches.labels.kind, fingerprint=matches.fingerprint),
        options=options.model_dump(mode="json"),
        resamples=options.resamples,
        account=LabelAccount(
            **matches.account,
            scored=tally.scored,
            failed=tally.images - tally.scored,
            reviewed=tally.reviewed,
            corrected=tally.corrected,
        ),
        figures=figures(tally, cells, curves, options),
        most_confused=most_confused(cells, info.classes),
        reliability=reliability(tally.bins, options.confidence),
        coverage=coverage(tally.scores.cells.of_all_classes(), tally.round, options.confidence),
        slices=slices.slices(options.confidence),
        failures=tally.failures,
        areas_of=tally.areas_of,
        bounds=bounds(tally),
        pair_slices=pairs.weak(options.confidence) if len(options.by) > 1 else None,
        guarantees=tuple(
            guarantee(tally.scores.cells, promise, info.classes, options.confidence) for promise in promises
        ),
        decisions=decisions(tally, options.confidence),
        label_errors=label_errors,
        strangers=strangers.total,
        versions=info.versions,
        evaluated_with={
            "batchland": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pyarrow", "scipy")},
        },
    )
    return Evaluation(
        summary=summary,
        per_class=per_class(tally, cells, info.classes, curves, options.confidence),
        confusion=confusion_table(cells, info.classes),
        curves=curves_table(curves, [name.label for name in info.classes]),
        mistakes=shown_mistakes,
        mistakes_file=mistakes_file,
        outcomes_file=outcomes_file.close(),
        image_root=image_root,
        slice_values=slices.values,
        strangers=strangers.table,
    )


def _labels(source: Path, info: PredictionsInfo, options: EvaluateOptions, form: NameForm) -> Labels:
    labels = read_labels(source, info.images)
    if options.corrections is None:
        return labels
    ignore_unknown = options.ignore_unknown_classes
    return CorrectedLabels(labels, options.corrections, form, info.classes, ignore_unknown=ignore_unknown)

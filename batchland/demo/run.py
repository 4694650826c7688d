"""Run every step on the sample set: draw, train, export, score, evaluate."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchland.demo.sample import draw_sample
from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.report.write import write_side_by_side
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import RunSummary, score
from batchland.training.export import export
from batchland.training.options import TrainOptions
from batchland.training.train import EpochReport, OnProgress, train

_log = logging.getLogger("batchland")

TRAINING = TrainOptions(weights="none", epochs=16, learning_rate=1e-3, size=80, views=1)
"""Small pictures and few epochs: about a minute on two cores, with models clearly better than chance."""


@dataclass(frozen=True)
class ModelResult:
    """Results of one model."""

    name: str
    """`scratch` or `transfer`."""
    onnx: Path
    predictions: RunSummary
    """On the labelled test set."""
    evaluation: Evaluation


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote into its folder."""

    folder: Path
    models: tuple[ModelResult, ModelResult]
    report: Path
    """The page that compares both models; the report of each is in a folder beside it."""
    night: RunSummary
    """The night's delivery scored by the better model; its broken files are failed rows."""


def run_demo(
    folder: Path,
    training: TrainOptions = TRAINING,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_progress: OnProgress | None = None,
) -> DemoResult:
    """Fill `folder` with sample/, runs/, models/, predictions/ and report/. An existing sample is used again.

    Raises UsageError if `folder` holds something other than an earlier demo, and the errors of the steps.
    """
    sample = folder / "sample"
    if not (sample / "incoming").is_dir() and not _is_free(folder):
        raise UsageError(f"{folder}: holds files that are not from a demo; give another folder")
    if not sample.exists():
        _log.info("drawing the sample set into %s", sample)
        draw_sample(sample)
    training = training.model_copy(update={"cache_dir": folder / "runs" / "pixels"})
    trained = train(sample, folder / "runs", training, on_epoch=on_epoch, on_progress=on_progress)
    scratch, transfer = (_evaluated(model.checkpoint.parent, folder) for model in trained)
    write_side_by_side(scratch.evaluation, transfer.evaluation, folder / "report")
    best = max(scratch, transfer, key=lambda model: top1(model.evaluation))
    night = _score(sample / "incoming", folder / "predictions" / "incoming.parquet", best.onnx)
    return DemoResult(folder, (scratch, transfer), folder / "report" / "report.html", night)


def _is_free(folder: Path) -> bool:
    if not folder.is_dir():
        return not folder.exists()
    return all(path.name.startswith(".") for path in folder.iterdir())  # left by a demo that was killed


def _evaluated(run: Path, folder: Path) -> ModelResult:
    onnx = export(run, folder / "models" / f"{run.name}.onnx").path
    test = folder / "sample" / "test"
    predictions = _score(test, folder / "predictions" / f"{run.name}.parquet", onnx)
    return ModelResult(run.name, onnx, predictions, evaluate(predictions.out, test))


def top1(evaluation: Evaluation) -> float:
    """Top-1 accuracy on the scored test images, 0 to 1; all images of the sample are labelled."""
    figure = evaluation.summary.figures.top1
    return figure.value if figure else 0.0


def _score(images: Path, out: Path, model: Path) -> RunSummary:
    return score(images, out, ScoreOptions(model=model, overwrite=True))

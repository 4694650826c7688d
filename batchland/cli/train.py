"""`batchland train` and `batchland export`: labelled photos to checkpoints, checkpoints to ONNX files."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.errors import UsageError

if TYPE_CHECKING:
    from batchland.models.card import ExportSummary
    from batchland.training.export import ExportReport
    from batchland.training.train import EpochReport

_log = logging.getLogger("batchland")


@click.command(epilog="Example: batchland train data/landmark_images --out runs/ --model both --epochs 20")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("-o", "--out", default=Path("runs"), show_default=True, type=click.Path(path_type=Path),
              help="Folder of runs; each model gets a folder of its own in it.")  # fmt: skip
@click.option("--models-dir", default=Path("models"), show_default=True, type=click.Path(path_type=Path),
              help="Where the ONNX files go, as MODEL.onnx.")  # fmt: skip
@click.option("--model", type=click.Choice(["scratch", "transfer", "both"]), default="both", show_default=True,
              help="A CNN from scratch, a pretrained backbone with a new head, or one after the other.")  # fmt: skip
@click.option("--recipe", type=click.Choice(["default", "walkthrough"]), default="default", show_default=True,
              help="`walkthrough` trains as the published walk-through, its faults mended.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training images.  [default: the recipe's]")
@click.option("-b", "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
              help="At its peak.  [default: the recipe's]")  # fmt: skip
@click.option("--backbone", default="resnet50", show_default=True, metavar="NAME",
              help="The transfer model's network by torchvision's name, e.g. convnext_tiny.")  # fmt: skip
@click.option("--weights", default="imagenet", show_default=True, metavar="imagenet|none|FILE",
              help="The backbone's weights: downloaded once, random, or a state_dict.")  # fmt: skip
@click.option("--views", type=click.IntRange(0), default=2, show_default=True,
              help="Augmented views per photo that the frozen backbone looks at, once.")  # fmt: skip
@click.option("--unfreeze", metavar="LAYERS",
              help="Parts of the backbone that learn after the head has, e.g. layer3,layer4.")  # fmt: skip
@click.option("--unfreeze-epochs", type=click.IntRange(1), default=5, show_default=True, help="Epochs of that.")
@click.option("--unfreeze-learning-rate", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True,
              help="Learning rate of that, at its peak.")  # fmt: skip
@click.option("--size", type=click.IntRange(8),
              help="Rows and columns of the models' input.  [default: 224, or the backbone's]")  # fmt: skip
@click.option("--fast-jpeg/--full-jpeg", default=True, show_default=True,
              help="Shrink large JPEGs while decoding them, in training and scoring alike.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1337, show_default=True,
              help="Of split, weights, sampling and augmentation.")  # fmt: skip
@click.option("--patience", type=click.IntRange(1),
              help="Stop after so many epochs without a lower validation loss.")  # fmt: skip
@click.option("--num-workers", type=click.IntRange(0),
              help="Processes that decode and augment.  [default: by cores and device]")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="`auto` is CUDA where torch can use it.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Of products in training; `auto` is bf16 where the hardware multiplies it.")  # fmt: skip
@click.option("--strict", is_flag=True, help="An unreadable image is an error, not skipped.")
@click.option("--cache-dir", type=click.Path(path_type=Path),
              help="Where decoded pixels lie between runs.  [default: batchland/pixels in ~/.cache]")  # fmt: skip
@click.option("--cache-limit", type=click.FloatRange(0, min_open=True), default=20, show_default=True, metavar="GB",
              help="What all data sets may take there; the least recently used make room.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run has left in --out.")
@click.option("--checkpoint-every", type=click.FloatRange(0), default=60, show_default=True, metavar="SECONDS",
              help="Save the state to resume from at the first end of an epoch after so long.")  # fmt: skip
def train(data: Path, out: Path, models_dir: Path, cache_limit: float, **options: Any) -> None:
    """Train one or both models and export them to ONNX.

    The photos are those of DATA/train, or of DATA itself, one folder a class. Those of DATA/val validate; without it, a
    fifth of the others is kept aside for that, class by class. The weights of the lowest validation loss are kept. Each
    ONNX file appears only if it answers as PyTorch does on validation images. Beside each checkpoint lie
    metrics.csv, metrics.jsonl, curves.png, layers.txt and, where TensorBoard is installed, its events.

    Photos are decoded once, into a cache between runs. Interrupted (Ctrl-C, SIGTERM) it stops after the step; that run
    or a killed one goes on with --resume, to the same weights.
    """
    with training_extra():
        from batchland.training.export import export as run_export
        from batchland.training.options import TrainOptions
        from batchland.training.progress import TrainProgress
        from batchland.training.train import train as run

    settings = TrainOptions(cache_limit=round(cache_limit * 1e9), **options)
    with TrainProgress() as progress:
        models = run(data, out, settings, on_epoch=print_epoch, on_progress=progress.update)
    for trained in models:
        summary = trained.card.training
        assert summary is not None
        click.echo(
            f"{trained.card.name}: validation accuracy {summary.validation_accuracy:.1%} at epoch "
            f"{summary.best_epoch} of {summary.epochs}, {trained.seconds:.0f} s; {trained.checkpoint}"
        )
        print_export(run_export(trained.checkpoint.parent, models_dir / f"{trained.checkpoint.parent.name}.onnx"))


@click.command(epilog="Example: batchland export runs/scratch --out models/scratch.onnx")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The ONNX file.")
@click.option("--data", type=click.Path(path_type=Path),
              help="Where the training data lies now, if it has moved since training.")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True,
              help="fp16 halves the file, int8 quarters it.")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(0), default=0.5, show_default=True, metavar="POINTS",
              help="Top-1 on the validation images that fp16 and int8 may lose against fp32.")  # fmt: skip
def export(run: Path, out: Path, **options: Any) -> None:
    """Turn a training run into one ONNX file with its card.

    RUN is a folder that `train` wrote, or its checkpoint.pt. The file appears only if it answers as PyTorch does on
    real validation images: one, a full batch and a ragged one. A temperature is fitted on them, so that probabilities
    mean what they say; it goes into the graph and the card.
    """
    with training_extra():
        from batchland.training.export import export as run_export
        from batchland.training.options import ExportOptions

    print_export(run_export(run, out, ExportOptions(**options)))


def print_epoch(report: "EpochReport") -> None:
    """One line an epoch."""
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
    """What was published, and how far it is from PyTorch."""
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
    """Say which extra is missing, where one is."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("batchland", *sys.stdlib_module_names):
            raise
        raise UsageError(
            f"training needs {error.name}, which is not installed; pip install 'batchland[train]'"
        ) from error

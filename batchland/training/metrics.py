"""Figures of a run's epochs, written as CSV, JSON lines, curves (PNG) and TensorBoard events."""

import csv
import importlib.util
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from batchland.system.files import write_file

METRICS: Final = "metrics.csv"
METRICS_JSONL: Final = "metrics.jsonl"
CURVES: Final = "curves.png"
TENSORBOARD: Final = "tensorboard"

StageName = Literal["pictures", "head", "fine-tune"]


@dataclass(frozen=True)
class EpochReport:
    """One epoch's figures; also the columns of metrics.csv."""

    model: str
    stage: StageName
    """`pictures`: the scratch model. `head`: on the frozen backbone's features. `fine-tune`: with unfrozen parts."""
    epoch: int
    """Counted from 1 through all stages."""
    epochs: int
    """Planned, of all stages."""
    training_loss: float
    """Mean of the minimised loss (with label smoothing) over the epoch's images, nats."""
    training_accuracy: float
    """Top-1 over the epoch's augmented images, 0 to 1."""
    validation_loss: float
    """Mean cross-entropy over the validation images, nats."""
    validation_accuracy: float
    """Top-1, 0 to 1."""
    learning_rate: float | None
    """At the end of the epoch's last step; None for logistic regression."""
    seconds: float
    """Training and validation together."""
    best: bool
    """Whether the validation loss is lower than in all earlier epochs."""
    l2: float | None = None
    """L2 strength of logistic regression, in which each epoch is one strength."""


def best_of(reports: Sequence[EpochReport]) -> EpochReport:
    """The epoch with the lowest validation loss, the first of equals."""
    return next(report for report in reversed(reports) if report.best)


class MetricsFiles:
    """Writes the files of one run's folder, each replaced as a whole after each epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: Any = None

    def write(self, reports: Sequence[EpochReport]) -> None:
        """Write all epochs so far; the last one is new."""
        rows = [asdict(report) for report in reports]
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochReport)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self._folder / METRICS, text.getvalue())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_file(self._folder / METRICS_JSONL, lines)
        self._write_event(reports[-1])

    def close(self, reports: Sequence[EpochReport]) -> None:
        """Draw the curves of the finished run."""
        write_file(self._folder / CURVES, partial(draw_curves, reports))
        if self._events is not None:
            self._events.close()

    def _write_event(self, report: EpochReport) -> None:
        """Write TensorBoard events, where it is installed."""
        if self._events is None:
            if importlib.util.find_spec("tensorboard") is None:
                return
            from torch.utils.tensorboard import SummaryWriter

            if report.epoch == 1:
                shutil.rmtree(self._folder / TENSORBOARD, ignore_errors=True)  # of an earlier run
            # purge_step: ignore what an interrupted run wrote of this epoch and later ones.
            self._events = SummaryWriter(self._folder / TENSORBOARD, purge_step=report.epoch)
        for name, value in asdict(report).items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, report.epoch)
        self._events.flush()


def draw_curves(reports: Sequence[EpochReport], file: BinaryIO) -> None:
    """Losses and accuracies over the epochs, the kept epoch marked, as PNG."""
    from matplotlib.figure import Figure  # slow to import, and needed once a run

    epochs = [report.epoch for report in reports]
    kept = best_of(reports)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, what, unit in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("nats", "share of images"), strict=True):
        for part in ("training", "validation"):
            axes.plot(epochs, [getattr(report, f"{part}_{what}") for report in reports], label=part, marker=".")
        axes.axvline(kept.epoch, color="grey", linestyle=":", label=f"kept: epoch {kept.epoch}")
        for report in reports:
            if report.epoch > 1 and report.stage != reports[report.epoch - 2].stage:
                axes.axvline(report.epoch - 0.5, color="grey", linewidth=0.8, label=f"{report.stage} begins")
        axes.set(title=f"{kept.model}: {what}", xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    figure.savefig(file, format="png", dpi=120)

"""Turn a checkpoint into one ONNX file, published only if it answers as PyTorch does on real images."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

from batchland.errors import ImageError, ModelError, UsageError
from batchland.model_card import METADATA_KEY, ModelCard
from batchland.preprocess import Pixels, preprocess
from batchland.session import INPUT_NAME, OUTPUT_NAME, Session, open_session
from batchland.source import ImageRef, read_image
from batchland.training.checkpoint import CHECKPOINT, load_checkpoint, restore_model
from batchland.training.files import publish
from batchland.training.folders import training_folder
from batchland.training.models import ServedModel

_log = logging.getLogger("batchland")

OPSET: Final = 18
TOLERANCE: Final = 1e-4
"""Largest difference of a probability that counts as agreement."""
BATCHES: Final = (1, 32, 13)
"""Sizes that the two must agree at: one image, a full batch, a ragged one."""


@dataclass(frozen=True)
class Agreement:
    """PyTorch and the ONNX session on one batch of real images."""

    batch: int
    same_top1: int
    """Images, of `batch`, with the same first class."""
    largest_difference: float
    """Of any probability."""


@dataclass(frozen=True)
class ExportReport:
    """A published ONNX file and how well it agrees with its checkpoint."""

    path: Path
    card: ModelCard
    sha256: str
    size: int
    """Bytes."""
    opset: int
    images: int
    """Different validation images that were compared."""
    tolerance: float
    agreement: tuple[Agreement, ...]

    @property
    def largest_difference(self) -> float:
        """Over all batches."""
        return max(each.largest_difference for each in self.agreement)


def export(run: Path, out: Path, *, data: Path | None = None) -> ExportReport:
    """Write the model of `run` (a folder with checkpoint.pt, or that file) to the ONNX file `out`.

    data: where the training data lies now, if it has moved. Raises UsageError if the checkpoint or its validation
    images cannot be had, ModelError if the ONNX session disagrees with PyTorch; then `out` is as it was before.
    """
    run, out = Path(run), Path(out)
    path = run / CHECKPOINT if run.is_dir() else run
    checkpoint = load_checkpoint(path)
    card = ModelCard.from_json(checkpoint["card"], str(path))
    model = restore_model(checkpoint, card)
    pixels = _validation_pixels(path, checkpoint, card, data)
    reports: list[ExportReport] = []

    def write(temporary: Path) -> None:
        _write_onnx(model, card, temporary)
        session = open_session(temporary, "cpu")
        agreement = compare(model, session, pixels)
        _require_agreement(out, agreement)
        size = temporary.stat().st_size
        reports.append(ExportReport(out, card, session.sha256, size, OPSET, len(pixels), TOLERANCE, agreement))

    publish(out, write)
    return reports[0]


def compare(model: ServedModel, session: Session, pixels: Pixels) -> tuple[Agreement, ...]:
    """Both on the same batches, one for each size in BATCHES; images repeat where there are too few."""
    results = []
    start = 0
    for size in BATCHES:
        batch = pixels[np.arange(start, start + size) % len(pixels)]
        start += size
        with torch.inference_mode():
            ours = model(torch.from_numpy(batch)).numpy()
        theirs = session.predict(batch)
        same = int((ours.argmax(1) == theirs.argmax(1)).sum())
        results.append(Agreement(size, same, float(np.abs(ours - theirs).max())))
    return tuple(results)


def _require_agreement(out: Path, agreement: tuple[Agreement, ...]) -> None:
    for each in agreement:
        # `not <=`, so that a difference of nan does not pass
        if each.same_top1 != each.batch or not each.largest_difference <= TOLERANCE:
            raise ModelError(
                f"{out}: not written, the ONNX file disagrees with PyTorch on a batch of {each.batch} validation "
                f"images: {each.batch - each.same_top1} with another first class, largest difference "
                f"{each.largest_difference:.2g} (allowed {TOLERANCE:g}); please report this with the versions in use"
            )


def _validation_pixels(path: Path, checkpoint: dict[str, Any], card: ModelCard, data: Path | None) -> Pixels:
    """As many of the validation images as the gate wants, spread over the classes."""
    folder = training_folder(data) if data is not None else Path(checkpoint["data"])
    names: list[str] = checkpoint["validation"]
    wanted = min(len(names), sum(BATCHES))
    chosen = [names[place * len(names) // wanted] for place in range(wanted)]
    pixels = np.zeros((wanted, *card.preprocess.shape), np.uint8)
    for place, name in enumerate(chosen):
        try:
            pixels[place] = preprocess(read_image(ImageRef(name, os.fsencode(folder / name))).data, card.preprocess)
        except ImageError as error:
            where = "give where it lies now with --data" if data is None else "give the data it was trained on"
            raise UsageError(
                f"{path}: its validation image {folder / name} cannot be read ({error}), and without it the export "
                f"cannot be checked; {where}"
            ) from error
    return pixels


def _write_onnx(model: ServedModel, card: ModelCard, path: Path) -> None:
    example = torch.zeros((2, *card.preprocess.shape), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            model,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    proto.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(proto, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its libraries' warnings off the terminal; errors still come out."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""Export a checkpoint to an ONNX file, written only if it agrees with PyTorch on real images."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from scipy.special import softmax
from torch import nn
from torch.onnx.errors import OnnxExporterError
from torch.overrides import TorchFunctionMode

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.models.canaries import write_canaries
from batchland.models.card import METADATA_KEY, ExportSummary, ModelCard
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, check_new_model
from batchland.models.features import keep_features
from batchland.models.int8 import RANGE_PHOTOS, Limits, to_int8
from batchland.models.probe_pictures import probe_pictures
from batchland.models.session import Session, open_session
from batchland.models.temperature import fit_temperature, mean_loss
from batchland.system.files import new_file
from batchland.training.agreement import (
    BATCHES,
    TOLERANCES,
    Agreement,
    Probabilities,
    compare_answers,
    compare_batches,
    require_accuracy,
    require_agreement,
)
from batchland.training.checkpoint import CHECKPOINT, load_checkpoint, restore_model
from batchland.training.holdout import Holdout, read_holdout
from batchland.training.models import ServedModel
from batchland.training.options import ExportOptions
from batchland.training.precision import half, quantisable

_log = logging.getLogger("batchland")

OPSET: Final = 18
_PROBES: Final = 4
"""Drawn pictures that must not all get the same answer."""


@dataclass(frozen=True)
class ExportReport:
    """A written ONNX file and how well it agrees with its checkpoint."""

    path: Path
    card: ModelCard
    """The model card; `card.export` has the figures over all validation images."""
    loss_before: float
    """Mean cross-entropy over the validation images without the temperature, nats."""
    sha256: str
    size: int
    """Bytes."""
    opset: int
    images: int
    """Number of different validation images that were compared batch by batch."""
    tolerance: float
    agreement: tuple[Agreement, ...]

    @property
    def largest_difference(self) -> float:
        """Over all batches."""
        return max(each.largest_difference for each in self.agreement)


def export(run: Path, out: Path, options: ExportOptions | None = None) -> ExportReport:
    """Write the model of `run` (a folder with checkpoint.pt, or that file) to the ONNX file `out`.

    Probabilities are calibrated: a temperature, fitted on the validation images, goes into the graph and the card.
    Canaries are written beside `out`.

    Raises UsageError if `out` is not called *.onnx, the checkpoint or its validation images cannot be read, or their
    classes differ; OutputError if `out` cannot be written; ModelError if the model gives every picture the same answer,
    or the ONNX session disagrees with PyTorch or loses too much accuracy. After an error, `out` is unchanged.
    """
    options = options or ExportOptions()
    run, out = Path(run), Path(out)
    check_new_model(out)
    path = run / CHECKPOINT if run.is_dir() else run
    checkpoint = load_checkpoint(path)
    card = ModelCard.from_json(checkpoint["card"], str(path))
    model = restore_model(checkpoint, card)
    answers = _infer(model.logits, probe_pictures(card.preprocess.shape, _PROBES))
    if (answers == answers[0]).all():
        raise ModelError(f"{path}: gives every picture the same numbers, as weights of zero do; train it again")
    holdout = read_holdout(path, checkpoint, card, options.data)
    logits = holdout.scores(lambda pixels: _infer(model.logits, pixels))
    model.temperature.fill_(fit_temperature(logits, holdout.labels))
    with new_file(out) as temporary:
        report = _Writer(out, options, card, model, holdout, logits).write(temporary)
    write_canaries(open_session(out, "cpu"))
    return report


@dataclass
class _Writer:
    """Writes, checks and describes one ONNX file."""

    out: Path
    options: ExportOptions
    card: ModelCard
    model: ServedModel
    holdout: Holdout
    logits: Probabilities
    """Logits of the trained model for all validation images, [images, classes]."""

    def write(self, temporary: Path) -> ExportReport:
        precision = self.options.precision
        form = {"fp32": lambda model: model, "fp16": half, "int8": quantisable}[precision]
        write_onnx(form(self.model), self.card, temporary)
        card = self.card
        if precision == "int8":
            limits = Limits(self.options.max_drop, self.options.allow_slower)
            pictures = self.holdout.training_batches(RANGE_PHOTOS, batch_size=8)
            quantised, int8 = to_int8(self.out, onnx.load(temporary), self.holdout, pictures, limits)
            onnx.save(quantised, temporary)
            card = card.model_copy(update={"int8": int8})
        card = card.model_copy(update={"features": keep_features(temporary)})
        session = open_session(temporary, "cpu")
        pixels = self.holdout.sample(sum(BATCHES))
        batches = compare_batches(lambda batch: _infer(self.model, batch), session.predict, pixels)
        require_agreement(self.out, precision, batches)
        card = card.model_copy(update={"export": self._summary(session, batches)})
        _set_card(temporary, card)
        return ExportReport(
            path=self.out,
            card=card,
            loss_before=mean_loss(self.logits, self.holdout.labels),
            sha256=open_session(temporary, "cpu").sha256,
            size=temporary.stat().st_size,
            opset=OPSET,
            images=len(pixels),
            tolerance=TOLERANCES[precision],
            agreement=batches,
        )

    def _summary(self, session: Session, batches: tuple[Agreement, ...]) -> ExportSummary:
        """The file's figures over all validation images; for fp32, those of the trained model (see `batches`)."""
        labels, temperature = self.holdout.labels, float(self.model.temperature)
        trained = softmax(self.logits / temperature, axis=1)
        file = trained if self.options.precision == "fp32" else self.holdout.scores(session.predict)
        accuracy, accuracy_fp32 = (float((answers.argmax(1) == labels).mean()) for answers in (file, trained))
        require_accuracy(self.out, self.options.precision, accuracy_fp32, accuracy, self.options.max_drop)
        return ExportSummary(
            precision=self.options.precision,
            temperature=temperature,
            validation_images=len(labels),
            validation_accuracy=accuracy,
            validation_loss=mean_loss(np.log(np.maximum(file, np.finfo(np.float32).tiny)), labels),
            accuracy_fp32=accuracy_fp32,
            largest_difference=max(each.largest_difference for each in (*batches, compare_answers(trained, file))),
        )


def _infer(answer: Callable[[torch.Tensor], torch.Tensor], pixels: Pixels) -> Probabilities:
    with torch.inference_mode():
        answers: Probabilities = answer(torch.from_numpy(pixels)).numpy()
    return answers


def write_onnx(model: ServedModel, card: ModelCard, path: Path) -> None:
    """Write one file with the card: images uint8 [batch, H, W, 3] to probabilities float32 [batch, classes].

    The batch size is dynamic. Raises ModelError if torch cannot export the network.
    """
    example = torch.zeros((2, *card.preprocess.shape), dtype=torch.uint8)
    try:
        with _quiet(), _ForOnnx():
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
    except OnnxExporterError as error:
        raise ModelError(
            f"{card.name}: torch cannot export this network to ONNX ({_first_cause(error)}); train another backbone"
        ) from error
    assert program is not None
    onnx.save(program.model_proto, path)
    _set_card(path, card)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


class _ForOnnx(TorchFunctionMode):
    """Within this context, some functions are computed in ways that torch exports well, or at all.

    Average pooling to a single value is a mean over the picture: torch exports such a pooling of channels-last tensors
    as `as_strided`, ten nodes of shape arithmetic. onnxruntime runs these on the CPU, which keeps a GPU from CUDA
    graphs and costs copies.

    Attention within windows, with five axes, is that of four: torch exports no other.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.adaptive_avg_pool2d and args[1:] in ((1,), ((1, 1),)):
            return args[0].mean((-2, -1), keepdim=True)
        if func is nn.functional.scaled_dot_product_attention and len(args) == 3 and args[0].dim() > 4:
            flat = (each.flatten(0, -4) for each in args)
            return func(*flat, **(kwargs or {})).reshape(*args[0].shape[:-1], args[2].shape[-1])
        return func(*args, **(kwargs or {}))


def _set_card(path: Path, card: ModelCard) -> None:
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA_KEY: card.to_json()})
    onnx.save(proto, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and its libraries' warnings; errors are still raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)

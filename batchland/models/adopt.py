"""Adopt an ONNX classifier from elsewhere: add a card, normalisation and, where it is missing, softmax."""

import logging
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto
from pydantic import Field, ValidationError, field_validator

from batchland._version import __version__
from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.canaries import write_canaries
from batchland.models.card import METADATA_KEY, ModelCard, class_names
from batchland.models.class_list import read_class_list
from batchland.models.contract import INPUT_NAME, Probabilities, are_probabilities
from batchland.models.foreign import ForeignInput, foreign_input, foreign_output, load_foreign
from batchland.models.fp16 import require_agreement, to_half_floats
from batchland.models.ort import CPU, create_session, first_line
from batchland.models.probe_pictures import probe_pictures
from batchland.models.session import Session, open_session
from batchland.models.wrap import wrap
from batchland.system.files import check_new_file, new_file
from batchland.system.regular_files import read_regular
from batchland.system.text import near_miss

_log = logging.getLogger("batchland")

Channels = tuple[float, float, float]
OutputKind = Literal["auto", "logits", "probabilities"]
_TOLERANCE: Final = 1e-3
"""Largest difference of a probability between a picture alone and the same picture in a batch."""
_PICTURES: Final = 16
"""Number of generated pictures on which the outputs are examined."""
_BYTE: Final = 1 / 255


class ForeignPreprocess(PreprocessSpec):
    """A preprocessing spec with the foreign model's normalisation: `(pixel / 255 - mean) / std` per channel, RGB."""

    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = Field(default=(1.0, 1.0, 1.0))

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError("std must be positive")
        return std

    def spec(self) -> PreprocessSpec:
        """The part that the card keeps; mean and std go into the graph."""
        return PreprocessSpec.model_validate(self.model_dump(exclude={"mean", "std"}))


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "imagenet": {"fit": "crop", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "half": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "unit": {},
    "byte": {"std": (_BYTE, _BYTE, _BYTE)},
}
"""imagenet: resize the shorter side, centre crop, ImageNet's statistics. The others squash the whole picture and scale
pixels to -1..1 (half), 0..1 (unit) or 0..255 (byte)."""


def adopt(
    model: Path,
    classes: Path,
    out: Path,
    *,
    preprocess: str = "imagenet",
    output: OutputKind = "auto",
    name: str | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> Session:
    """Write `model` with a card to `out`, and return it opened on the CPU.

    - classes: the labels in the order of the model's outputs, as `read_class_list` reads them.
    - preprocess: a name in PRESETS, or a JSON file with the fields of ForeignPreprocess.
    - output: what the model gives; `auto` runs it on generated pictures to find out.
    - name: name in the card; by default the name of the file.
    - precision: `fp16` converts all but normalisation and softmax to half floats.

    `out` appears only if its answers are probabilities, the same for a picture alone and in a batch; its canaries are
    written beside it. Raises ModelError if the model cannot be adopted; UsageError if it has a card already, or another
    file or option does not suit it; OutputError if `out` cannot be written.
    """
    check_new_file(out, ".onnx", (model, classes, Path(preprocess)))
    foreign = load_foreign(model)
    if any(entry.key == METADATA_KEY for entry in foreign.metadata_props):
        raise UsageError(f"{model}: has a batchland card already, so score with it as it is")
    source = foreign_input(model, foreign)
    spec = _preprocess(preprocess, source)
    labels = read_class_list(classes)
    target = foreign_output(model, foreign, len(labels))
    if target.classes not in (None, len(labels)):
        raise ModelError(f"{model}: gives {target.classes} numbers per picture, but {classes} has {len(labels)} labels")
    if source.dtype == TensorProto.UINT8 and (spec.mean, spec.std) != ((0.0, 0.0, 0.0), PRESETS["byte"]["std"]):
        raise UsageError(
            f"{model}: takes uint8, so it normalises pixels itself; preprocess must be byte", advice="preprocess_byte"
        )
    card = ModelCard(
        name=name or model.stem,
        architecture=foreign.graph.name or "unknown",
        classes=class_names(labels),
        preprocess=spec.spec(),
        created_at=datetime.now(UTC).isoformat("T", "seconds"),
        versions={"batchland": __version__, "onnx": onnx.__version__},
    )
    wrapped = partial(wrap, card=card, mean=spec.mean, std=spec.std)
    kind = _output_kind(model, wrapped(foreign, source, target, softmax=False), spec.shape, output)
    whole = wrapped(foreign, source, target, softmax=kind == "logits")

    with new_file(out) as temporary:
        onnx.save(whole, temporary)
        session = open_session(temporary, "cpu")
        _check_batches(model, session)
        if precision == "fp16":
            half = to_half_floats(foreign)
            half_input, half_output = foreign_input(model, half), foreign_output(model, half, len(labels))
            try:
                onnx.save(wrapped(half, half_input, half_output, softmax=kind == "logits"), temporary)
            except onnx.checker.ValidationError as error:  # the converter may miss branches
                raise ModelError(f"{model}: onnxruntime cannot convert it to half floats", advice="fp32") from error
            require_agreement(model, open_session(temporary, "cpu"), session)

    session = open_session(out, "cpu")
    write_canaries(session)
    return session


def _preprocess(text: str, source: ForeignInput) -> ForeignPreprocess:
    if text in PRESETS:
        height, width = source.height or 224, source.width or 224
        size: dict[str, Any] = {"height": height, "width": width}
        if PRESETS[text].get("fit") == "crop":
            size["shorter_side"] = round(max(height, width) * 256 / 224)
        return ForeignPreprocess(**PRESETS[text], **size)
    path = Path(text)
    if not path.exists():
        near = near_miss(text, PRESETS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(PRESETS)}, or a JSON file"
        raise UsageError(f"preprocess {text!r}: neither a known name nor a file ({hint})")
    try:
        spec = ForeignPreprocess.model_validate_json(read_regular(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a JSON file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path}: {where}: {first['msg']}") from error
    for side, wanted in (("height", source.height), ("width", source.width)):
        if wanted not in (None, getattr(spec, side)):
            raise UsageError(f"{path}: {side} is {getattr(spec, side)}, but the model takes {wanted}")
    return spec


def _output_kind(
    path: Path, raw: onnx.ModelProto, shape: tuple[int, int, int], requested: OutputKind
) -> Literal["logits", "probabilities"]:
    """Whether the model gives logits or probabilities, judged by its outputs for generated pictures, without a softmax.

    Raises ModelError if it gives neither, UsageError if that is not what was requested.
    """
    rows = _raw_outputs(path, raw, shape)
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(axis=1)
    if not np.isfinite(rows).all():
        raise ModelError(f"{path}: gives numbers that are not finite; check its preprocessing")
    if are_probabilities(rows).all():
        if requested == "logits":
            raise UsageError(f"{path}: gives probabilities, not logits", advice="output_probabilities")
        return "probabilities"
    if requested == "probabilities":
        raise ModelError(
            f"{path}: its outputs ({low:.3g} to {high:.3g}) are not probabilities that sum to 1", advice="output_logits"
        )
    if requested == "auto" and low >= 0:
        looks_like = None
        if high <= 1:
            looks_like = "lie between 0 and 1 but do not sum to 1, as those of sigmoids"
        elif np.ptp(sums) <= 0.01 * sums.mean():
            looks_like = f"sum to {sums.mean():.4g}, as percentages sum to 100"
        if looks_like:
            raise ModelError(
                f"{path}: its outputs {looks_like}; export it with logits or with probabilities of exclusive classes",
                advice="output_logits_anyway",
            )
    return "logits"


def _raw_outputs(path: Path, raw: onnx.ModelProto, shape: tuple[int, int, int]) -> Probabilities:
    """Outputs for generated pictures, one picture at a time, float32 [pictures, classes]."""
    pictures = probe_pictures(shape, _PICTURES)
    try:
        session = create_session(raw.SerializeToString(), [(CPU, {})])
        outputs = [session.run(None, {INPUT_NAME: picture[None]})[0] for picture in pictures]
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ModelError(
            f"{path}: cannot compute a picture of {shape[0]} x {shape[1]} pixels ({first_line(error)}); if it takes "
            f"another size, give its height and width in a JSON file of the preprocessing"
        ) from error
    rows: Probabilities = np.concatenate(outputs)
    return rows


def _check_batches(model: Path, session: Session) -> None:
    """Raise ModelError unless pictures get the same answers one by one and as a batch."""
    pixels = probe_pictures(session.card.preprocess.shape, 3)
    single = np.concatenate([session.predict(pixels[index : index + 1]) for index in range(len(pixels))])
    try:
        batch = session.predict(pixels)
    except ModelError as error:
        raise ModelError(f"{model}: takes one picture at a time; export it with a dynamic batch dimension") from error
    if not np.abs(batch - single).max() <= _TOLERANCE:
        raise ModelError(f"{model}: answers differently in a batch; export it with a dynamic batch, in eval mode")

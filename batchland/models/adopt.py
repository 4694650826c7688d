"""Give an ONNX classifier from elsewhere a card, and the input and output that scoring wants.

Normalisation goes into the graph before it, softmax behind it where it is missing; its weights stay as they are.
"""

import logging
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import onnx
import onnx.compose
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field, ValidationError, field_validator

from batchland._version import __version__
from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.card import METADATA_KEY, ModelCard, class_names
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.fp16 import in_half_floats, require_agreement
from batchland.models.session import Session, open_session
from batchland.system.files import check_new_file, new_file
from batchland.system.text import near_miss

_log = logging.getLogger("batchland")

Channels = tuple[float, float, float]
OutputKind = Literal["auto", "logits", "probabilities"]
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_PREFIX: Final = "adopted/"
_TOLERANCE: Final = 1e-3


class ForeignPreprocess(PreprocessSpec):
    """A spec, and what the foreign model's floats are: `(pixel / 255 - mean) / std`, channel by channel, RGB."""

    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = Field(default=(1.0, 1.0, 1.0))

    @field_validator("std")
    @classmethod
    def _not_zero(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError("std must be positive")
        return std

    def spec(self) -> PreprocessSpec:
        """The part that the card keeps; mean and std go into the graph."""
        return PreprocessSpec.model_validate(self.model_dump(exclude={"mean", "std"}))


_BYTE: Final = 1 / 255
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "imagenet": {"fit": "crop", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "half": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "unit": {},
    "byte": {"std": (_BYTE, _BYTE, _BYTE)},
}
"""imagenet: shorter side, centre crop, ImageNet's statistics. The others squash: to -1..1, to 0..1, to 0..255."""


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
    """Write `model` to `out` with a card, and return the opened result.

    classes: a text file, one label a line, in the order of the model's outputs. preprocess: a name in PRESETS or a JSON
    file with the fields of ForeignPreprocess. output: what the model gives; `auto` looks whether it ends in a softmax.
    precision: `fp16` computes in half floats, all but normalisation and softmax.

    `out` appears only if it answers alike one by one and as a batch, with rows that are probabilities. Raises
    ModelError if the model cannot be adopted, UsageError if it need not be, or the other files or options do not fit,
    or `out` is one of the files or is not called *.onnx, OutputError if `out` cannot be written.
    """
    check_new_file(out, ".onnx", (model, classes, Path(preprocess)))
    foreign = _load(model)
    if any(entry.key == METADATA_KEY for entry in foreign.metadata_props):
        raise UsageError(f"{model}: has a card already, score with it as it is; adopt is for models from elsewhere")
    source, target = _input(model, foreign), _output(model, foreign)
    foreign_spec = _preprocess(preprocess, source)
    labels = _labels(classes)
    if target.classes is not None and target.classes != len(labels):
        raise ModelError(f"{model}: gives {target.classes} numbers an image, but {classes} has {len(labels)} labels")
    if source.kind == TensorProto.UINT8 and _normalises(foreign_spec):
        raise UsageError(f"{model}: takes uint8, so its normalisation is inside; use --preprocess byte")
    card = ModelCard(
        name=name or model.stem,
        architecture=foreign.graph.name or "unknown",
        classes=class_names(labels),
        preprocess=foreign_spec.spec(),
        created_at=datetime.now(UTC).isoformat("T", "seconds"),
        versions={"batchland": __version__, "onnx": onnx.__version__},
    )
    soft = _ends_in_softmax(foreign, target.name)
    if soft and output == "logits":
        raise UsageError(f"{model}: ends in a softmax, so it gives probabilities; use --output probabilities")
    softmax = output == "logits" or (output == "auto" and not soft)
    wrapped = partial(_wrapped, spec=foreign_spec, card=card, softmax=softmax)
    whole = wrapped(foreign, source, target)

    with new_file(out) as temporary:
        onnx.save(whole, temporary)
        session = open_session(temporary, "cpu")
        _check(model, session)
        if precision == "fp16":
            half = in_half_floats(foreign)
            try:
                onnx.save(wrapped(half, _input(model, half), _output(model, half)), temporary)
            except onnx.checker.ValidationError as error:  # its casts may miss branches
                raise ModelError(
                    f"{model}: onnxruntime's converter makes no sound model of it in half floats; use --precision fp32"
                ) from error
            require_agreement(model, open_session(temporary, "cpu"), session)

    return open_session(out, "cpu")


class _Input(NamedTuple):
    name: str
    kind: int
    channels_first: bool
    height: int | None
    width: int | None


class _Output(NamedTuple):
    name: str
    kind: int
    classes: int | None


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); give an ONNX file") from error
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: is not a sound ONNX file ({str(error).partition(chr(10))[0]})") from error
    return model


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """Dimensions of a tensor, None where they are open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _input(path: Path, model: onnx.ModelProto) -> _Input:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    shapes = ", ".join(f"{value.name} {_sizes(value)}" for value in inputs)
    kind = inputs[0].type.tensor_type.elem_type if inputs else 0
    sizes = _sizes(inputs[0]) if inputs else []
    if (
        len(inputs) != 1
        or len(sizes) != 4
        or 3 not in (sizes[1], sizes[3])
        or kind not in (*_FLOATS, TensorProto.UINT8)
    ):
        raise ModelError(
            f"{path}: its input is {shapes}; a classifier of pictures takes one tensor, float or uint8, "
            f"[batch, 3, H, W] or [batch, H, W, 3]"
        )
    channels_first = sizes[1] == 3
    height, width = sizes[2:] if channels_first else sizes[1:3]
    return _Input(inputs[0].name, kind, channels_first, height, width)


def _output(path: Path, model: onnx.ModelProto) -> _Output:
    outputs = list(model.graph.output)
    shapes = ", ".join(f"{value.name} {_sizes(value)}" for value in outputs)
    sizes = _sizes(outputs[0]) if outputs else []
    if len(outputs) != 1 or len(sizes) != 2 or outputs[0].type.tensor_type.elem_type not in _FLOATS:
        raise ModelError(f"{path}: its output is {shapes}; a classifier gives one float tensor [batch, classes]")
    return _Output(outputs[0].name, outputs[0].type.tensor_type.elem_type, sizes[1])


def _preprocess(text: str, source: _Input) -> ForeignPreprocess:
    if text in PRESETS:
        height, width = source.height or 224, source.width or 224
        size: dict[str, Any] = {"height": height, "width": width}
        if PRESETS[text].get("fit") == "crop":
            size["shorter_side"] = round(max(height, width) * 256 / 224)
        return ForeignPreprocess(**PRESETS[text], **size)
    path = Path(text)
    if not path.exists():
        near = near_miss(text, PRESETS)
        advice = f"did you mean {near!r}?" if near else f"known are {', '.join(PRESETS)}, or a JSON file"
        raise UsageError(f"--preprocess {text!r}: neither a name nor a file ({advice})")
    try:
        spec = ForeignPreprocess.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path}: {where}: {first['msg']}") from error
    for side, wanted in (("height", source.height), ("width", source.width)):
        if wanted not in (None, getattr(spec, side)):
            raise UsageError(f"{path}: {side} is {getattr(spec, side)}, but the model takes {wanted}")
    return spec


def _normalises(spec: ForeignPreprocess) -> bool:
    return (spec.mean, spec.std) != ((0.0, 0.0, 0.0), PRESETS["byte"]["std"])


def _labels(path: Path) -> list[str]:
    """Labels of a text file; where some are alike, each of them gets its place added."""
    try:
        labels = [line.strip() for line in path.read_text("utf-8").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error}); give one label a line") from error
    if "" in labels:
        raise UsageError(f"{path}: line {labels.index('') + 1} is empty; give one label a line, in the model's order")
    counts = Counter(labels)
    twice = [label for label, count in counts.items() if count > 1]
    if twice:
        verb = "stands" if len(twice) == 1 else "stand"
        _log.warning("%s: %s %s more than once; places are added to tell them apart", path, ", ".join(twice), verb)
    return [label if counts[label] == 1 else f"{label} ({place})" for place, label in enumerate(labels)]


def _ends_in_softmax(model: onnx.ModelProto, output: str) -> bool:
    """Whether the output is that of a softmax, seen through casts and the like."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(output)
    while node is not None and node.op_type in ("Cast", "Identity", "Flatten", "Reshape", "Squeeze"):
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _wrapped(
    foreign: onnx.ModelProto,
    source: _Input,
    target: _Output,
    *,
    spec: ForeignPreprocess,
    card: ModelCard,
    softmax: bool,
) -> onnx.ModelProto:
    """The foreign graph between two of ours, pixels to its floats, its output to probabilities; with the card."""
    classes = len(card.classes)
    foreign = onnx.compose.add_prefix(foreign, _PREFIX)
    for value in (*foreign.graph.input, *foreign.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_param = "batch"
    del foreign.graph.value_info[:]  # they may still speak of a fixed batch
    floats = source.kind in _FLOATS
    front = [helper.make_node("Cast", [INPUT_NAME], ["cast"], to=TensorProto.FLOAT if floats else source.kind)]
    last = "cast"
    if floats:
        front += [
            _constant("scale", 1 / (255 * np.array(spec.std))),
            _constant("shift", np.array(spec.mean) / np.array(spec.std)),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "shift"], ["shifted"]),
        ]
        last = "shifted"
    if source.channels_first:
        front.append(helper.make_node("Transpose", [last], ["turned"], perm=[0, 3, 1, 2]))
        last = "turned"
    front.append(helper.make_node("Cast", [last], ["input"], to=source.kind))
    sides = [spec.height, spec.width]
    taken = [3, *sides] if source.channels_first else [*sides, 3]
    before = _graph("before", front, (INPUT_NAME, TensorProto.UINT8, [*sides, 3]), ("input", source.kind, taken))
    back = [helper.make_node("Cast", ["output"], ["floats"], to=TensorProto.FLOAT)]
    back.append(
        helper.make_node("Softmax", ["floats"], [OUTPUT_NAME], axis=1)
        if softmax
        else helper.make_node("Identity", ["floats"], [OUTPUT_NAME])
    )
    after = _graph("after", back, ("output", target.kind, [classes]), (OUTPUT_NAME, TensorProto.FLOAT, [classes]))
    for part in (before, after):
        part.ir_version = foreign.ir_version
        del part.opset_import[:]
        part.opset_import.extend(foreign.opset_import)
    whole = onnx.compose.merge_models(before, foreign, [("input", _PREFIX + source.name)])
    whole = onnx.compose.merge_models(whole, after, [(_PREFIX + target.name, "output")])
    whole.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    return whole


def _constant(name: str, values: np.ndarray[Any, Any]) -> onnx.NodeProto:
    # a node, since old files want every initializer listed as an input, too
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values.astype(np.float32), name))


_Value = tuple[str, int, list[int]]


def _graph(name: str, nodes: list[onnx.NodeProto], taken: _Value, given: _Value) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, kind, shape in (taken, given)]
    return helper.make_model(helper.make_graph(nodes, name, values[:1], values[1:]))


def _check(model: Path, session: Session) -> None:
    """One by one and as a batch, the answers must be the same, and probabilities."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, *session.card.preprocess.shape), dtype=np.uint8)
    single = np.concatenate([session.predict(pixels[place : place + 1]) for place in range(len(pixels))])
    try:
        batch = session.predict(pixels)
    except ModelError as error:
        raise ModelError(f"{model}: takes one picture at a time; export it with a dynamic batch dimension") from error
    if not np.abs(batch - single).max() <= _TOLERANCE:
        raise ModelError(f"{model}: answers differently in a batch; export it with a dynamic batch, in eval mode")
    if not (batch.min() >= -_TOLERANCE and np.abs(batch.sum(axis=1) - 1).max() <= _TOLERANCE):
        raise ModelError(f"{model}: its outputs are not probabilities that sum to 1; use --output logits")

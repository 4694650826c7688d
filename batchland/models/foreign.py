"""Read an ONNX classifier from elsewhere: its input of pictures, its output of one number per class."""

import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto

from batchland.errors import ModelError, UsageError
from batchland.models.contract import require_content
from batchland.models.nodes import input_names, operators, opset_of
from batchland.models.ort import ort
from batchland.system.regular_files import read_regular
from batchland.system.text import first_line

FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_OUTPUT_TYPES: Final = (*FLOATS, TensorProto.DOUBLE)
_INPUT_TYPES: Final[dict[int, type[np.generic]]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.UINT8: np.uint8,
}


class ForeignInput(NamedTuple):
    """A tensor of pictures, [batch, 3, height, width] or [batch, height, width, 3]."""

    name: str
    dtype: int
    """Type number of TensorProto."""
    channels_first: bool
    height: int | None
    """None if the model leaves it open."""
    width: int | None
    batch: int | None
    """The only batch size it declares; None if it leaves it open."""

    @property
    def layout(self) -> Literal["NCHW", "NHWC"]:
        """Order of the axes."""
        return "NCHW" if self.channels_first else "NHWC"

    @property
    def type_name(self) -> str:
        """`float32`, `float16` or `uint8`."""
        return str(np.dtype(_INPUT_TYPES[self.dtype]))


class ForeignOutput(NamedTuple):
    """A float tensor with one number per class and picture."""

    name: str
    dtype: int
    """Type number of TensorProto."""
    classes: int | None
    """None if the model leaves it open."""
    flat: bool
    """Whether its shape is [batch, classes]; otherwise there are axes of length 1, as in [batch, classes, 1, 1]."""


def load_foreign(path: Path) -> onnx.ModelProto:
    """A model file, with the weights from the files beside it, and its local functions inlined. Raises ModelError."""
    try:
        require_content(path, content := read_regular(path))
        model = onnx.load_model_from_string(content)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
        if model.functions:
            model = _inlined(model)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); give an ONNX file") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        if "symbolic link" in str(error):
            raise ModelError(
                f"{path}: the file with its weights is a symbolic link, which is not followed; copy both files into a "
                f"folder (cp -L)"
            ) from error
        raise ModelError(f"{path}: is not a valid ONNX file ({first_line(error)})") from error
    return model


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A checked model without local functions. The check found that the opsets they import have the same operators."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            entry.version = opsets.get(entry.domain, entry.version)
    return onnx.inliner.inline_local_functions(model)


def foreign_input(path: Path, model: onnx.ModelProto, layout: Literal["NCHW", "NHWC"] | None = None) -> ForeignInput:
    """The model's only input. layout: for a model that leaves it open.

    Raises ModelError if it does not take pictures of three channels.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    dtype = inputs[0].type.tensor_type.elem_type if inputs else 0
    sizes = _sizes(inputs[0]) if inputs else []
    if len(inputs) != 1 or len(sizes) != 4 or not {3, None} & {sizes[1], sizes[3]} or dtype not in _INPUT_TYPES:
        raise ModelError(
            f"{path}: its input is {_shapes(inputs) or 'missing'}; a classifier of pictures takes one tensor, float "
            f"or uint8, [batch, 3, H, W] or [batch, H, W, 3]"
        )
    if layout is not None and sizes[1 if layout == "NCHW" else 3] not in (3, None):
        raise ModelError(f"{path}: its input is {_shapes(inputs)}, which is not {layout}")
    return _pictures(inputs[0], layout == "NCHW" if layout else _channels_first(path, inputs[0]))


def declared_sides(model: onnx.ModelProto) -> tuple[int | None, int | None]:
    """Height and width of the pictures that the first input takes; None where it leaves them open."""
    stored = {tensor.name for tensor in model.graph.initializer}
    sizes = next((_sizes(value) for value in model.graph.input if value.name not in stored), [])
    if len(sizes) != 4:
        return None, None
    height, width = sizes[1:3] if sizes[3] == 3 and sizes[1] != 3 else sizes[2:]
    return height, width


def depends_on_sorting(model: onnx.ModelProto, output: str) -> bool:
    """Whether the model sorts (TopK) anything that it computes an output from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    names, known = [output], set()
    while names:
        name = names.pop()
        node = makers.get(name)
        if node is None or name in known:
            continue
        known.add(name)
        if "TopK" in operators(node):
            return True
        names.extend(input_names(node))
    return False


def foreign_output(path: Path, model: onnx.ModelProto, classes: int, name: str | None = None) -> ForeignOutput:
    """The model's output of that name, or with `classes` numbers per picture.

    Raises ModelError if there is none, or more than one; UsageError if there is none of that name.
    """
    outputs = [_output(value) for value in model.graph.output if len(_sizes(value)) > 1]
    if name is not None:
        named = [output for output in outputs if output.name == name and output.dtype in _OUTPUT_TYPES]
        if not named:
            names = ", ".join(output.name for output in outputs if output.dtype in _OUTPUT_TYPES)
            raise UsageError(f"{path}: has no float output {name}; its outputs are {names or 'none'}")
        return named[0]
    floats = [output for output in outputs if output.dtype in _OUTPUT_TYPES]
    matching = [output for output in floats if output.classes == classes] if len(outputs) > 1 else floats
    if len(matching) == 1:
        return matching[0]
    shapes = _shapes(model.graph.output) or "missing"
    if len(matching) > 1:
        names = ", ".join(output.name for output in matching)
        raise ModelError(
            f"{path}: {len(matching)} of its outputs have {classes} numbers per picture, as there are labels: {names}",
            advice="output_name",
        )
    if len(outputs) > 1:
        raise ModelError(
            f"{path}: its outputs are {shapes}; none of them has {classes} float numbers per picture, as there are "
            f"labels"
        )
    raise ModelError(f"{path}: its output is {shapes}; a classifier gives one float tensor [batch, classes]")


def _output(value: onnx.ValueInfoProto) -> ForeignOutput:
    sizes = _sizes(value)[1:]
    numbers = [size for size in sizes if size is not None]
    classes = int(np.prod(numbers)) if numbers and len(numbers) == len(sizes) else None
    return ForeignOutput(value.name, value.type.tensor_type.elem_type, classes, flat=len(sizes) == 1)


def _pictures(value: onnx.ValueInfoProto, channels_first: bool) -> ForeignInput:
    sizes = _sizes(value)
    height, width = sizes[2:] if channels_first else sizes[1:3]
    return ForeignInput(value.name, value.type.tensor_type.elem_type, channels_first, height, width, sizes[0])


def _channels_first(path: Path, value: onnx.ValueInfoProto) -> bool:
    """Whether the axis of channels is the first after the batch; by its length, else its name."""
    sizes = _sizes(value)
    if 3 in (sizes[1], sizes[3]):
        return sizes[1] == 3
    named = ["channel" in value.type.tensor_type.shape.dim[axis].dim_param.lower() for axis in (1, 3)]
    if sum(named) == 1:
        return named[0]
    raise ModelError(
        f"{path}: its input {_shapes([value])} leaves open which axis holds the channels; export it with a fixed "
        f"length of 3, or give layout in a JSON file of the preprocessing"
    )


def uncomputable(path: Path, model: onnx.ModelProto, error: Exception, otherwise: str | None = None) -> ModelError:
    """The error for a model that onnxruntime cannot compute. otherwise: the problem if it can read the model."""
    reason = first_line(error)
    if re.search("opset|IR version", reason):
        return ModelError(
            f"{path}: has opset {opset_of(model)} and IR version {model.ir_version}, which onnxruntime "
            f"{ort.__version__} does not read; export it with opset 18, or update onnxruntime"
        )
    if re.search("not a registered|NOT_IMPLEMENTED", reason):
        return ModelError(
            f"{path}: has an operator that onnxruntime {ort.__version__} does not have ({reason}); export it with "
            f"opset 18 and the operators of ONNX"
        )
    return ModelError(f"{path}: {otherwise or f'cannot be computed by onnxruntime ({reason}); export it again'}")


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """Lengths of a tensor's axes, None for those left open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _shapes(values: Any) -> str:
    """Name, number type and lengths of each tensor."""
    types = (TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower() for value in values)
    return ", ".join(f"{value.name} {kind} {_sizes(value)}" for value, kind in zip(values, types, strict=True))

"""Give a model a second output, its features: the input of its last layer, as vectors of length 1.

The last layer is found by walking back from the probabilities. A model whose probabilities come from several layers,
or from a layer of another kind, gets no features.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.contract import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME
from batchland.models.nodes import branches, constant, opset_of
from batchland.models.ort import CPU, create_session

MAX_WIDTH: Final = 8192
"""A model with more features than this gets no output of them."""
_LAYERS: Final = ("Gemm", "MatMul", "Conv")
_HEAVY: Final = ("Conv", "Gemm", "MatMul", "Attention", "Einsum", "LSTM", "GRU", "RNN")
"""Parts of the names of operators at which the walk back ends."""
_EPSILON: Final = 1e-12
"""Added to the length of a vector before the division by it."""
_PICTURES: Final = 2
"""Number of pictures for which a tensor is computed, to find its shape."""
_AXES_AS_INPUT: Final = 18
"""Opset from which on the axes of a reduction are an input, not an attribute."""


def keep_features(path: Path) -> int | None:
    """Add the output `features` to the model in that file, and their number to its card. None if it has none."""
    model = onnx.load(path)
    (entry,) = (each for each in model.metadata_props if each.key == METADATA_KEY)
    width = add_features(model)
    entry.value = ModelCard.from_json(entry.value, str(path)).model_copy(update={"features": width}).to_json()
    onnx.save(model, path)
    return width


def add_features(model: onnx.ModelProto) -> int | None:
    """Add the output `features`, float32 [batch, features], to a model. Their number; None if the model has none."""
    layer = _last_layer(model.graph)
    if layer is None:
        return None
    pooled = layer.op_type == "Conv"
    width = _width(_computed(model, layer.input[0]), pooled=pooled)
    if width is None:
        return None
    model.graph.node.extend(normalised(layer.input[0], pooled=pooled, opset=opset_of(model)))
    batch = model.graph.output[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    model.graph.output.append(helper.make_tensor_value_info(FEATURES_NAME, TensorProto.FLOAT, [batch, width]))
    return width


def _last_layer(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The matrix product or 1x1 convolution that all probabilities come from, with no other layer between."""
    pictures = _computed_from_pictures(graph)
    needed = {OUTPUT_NAME}
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        if any(part in node.op_type for part in _HEAVY) or any(branches(node)):
            alone = needed <= set(node.output)
            return node if alone and _is_layer(node, pictures) else None
        needed = (needed - set(node.output)) | pictures.intersection(node.input)
    return None


def _computed_from_pictures(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that depend on the values of the pictures, not only on their number."""
    found = {INPUT_NAME}
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and (any(branches(node)) or found.intersection(node.input)):
            found.update(node.output)
    return found


def _is_layer(node: onnx.NodeProto, pictures: Iterable[str]) -> bool:
    """Whether it multiplies its first input with weights."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return (
        node.op_type in _LAYERS
        and [name for name in node.input if name in pictures] == [node.input[0]]
        and not attributes.get("transA")
        and (node.op_type != "Conv" or set(attributes.get("kernel_shape", ())) == {1})
    )


def _computed(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any]:
    """A tensor of the model for black pictures."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    session = create_session(probe.SerializeToString(), [(CPU, {})])
    shape = session.get_inputs()[0].shape[1:]
    (found,) = session.run([name], {INPUT_NAME: np.zeros((_PICTURES, *shape), np.uint8)})
    return np.asarray(found)


def _width(taken: np.ndarray[Any, Any], *, pooled: bool) -> int | None:
    """Length of the vectors made from a tensor; None if there is not one per picture, or they are too long."""
    one_each = len(taken) == _PICTURES and (pooled or taken.size == _PICTURES * taken.shape[-1])
    width = taken.shape[1 if pooled else -1]
    return width if one_each and 0 < width <= MAX_WIDTH else None


def normalised(name: str, *, pooled: bool, opset: int) -> list[onnx.NodeProto]:
    """Nodes that turn a tensor into vectors of length 1, with operators that GPUs support."""
    axes: dict[str, Any] = {} if opset >= _AXES_AS_INPUT else {"axes": [1]}
    return [
        helper.make_node("Cast", [name], ["features/floats"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool" if pooled else "Identity", ["features/floats"], ["features/pooled"]),
        helper.make_node("Flatten", ["features/pooled"], ["features/flat"], axis=1),
        constant("features/axes", np.array([1])),
        helper.make_node(
            "ReduceL2", ["features/flat", *([] if axes else ["features/axes"])], ["features/length"], keepdims=1, **axes
        ),
        constant("features/least", np.array(_EPSILON, np.float32)),
        helper.make_node("Add", ["features/length", "features/least"], ["features/divisor"]),
        helper.make_node("Div", ["features/flat", "features/divisor"], [FEATURES_NAME]),
    ]

"""Put an ONNX graph between normalisation and softmax, so that it takes uint8 pixels and gives probabilities."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.foreign import FLOATS, ForeignInput, ForeignOutput
from batchland.models.foreign_preprocess import ForeignPreprocess
from batchland.models.nodes import constant, input_names

_PREFIX: Final = "adopted/"
"""Prefix of all names of the foreign graph."""
_EPSILON: Final = 1e-12
"""Added to a probability before its logarithm."""
_Tensor = tuple[str, int, Sequence[int]]
"""Name, data type and shape without the batch."""


def wrap(
    foreign: onnx.ModelProto,
    source: ForeignInput,
    target: ForeignOutput,
    card: ModelCard,
    *,
    preprocess: ForeignPreprocess,
    softmax: bool,
    temperature: float | None = None,
) -> onnx.ModelProto:
    """The foreign graph with normalisation before it, softmax after it if requested, and the card.

    A foreign input of floats gets `(pixel / 255 - mean) / std` per channel; one of bytes gets the pixels. temperature:
    divides the logits; without `softmax`, the logarithms of the probabilities.
    """
    classes = len(card.classes)
    foreign = onnx.compose.add_prefix(foreign, _PREFIX)
    kept = [value for value in foreign.graph.output if value.name == _PREFIX + target.name]
    del foreign.graph.output[:]
    foreign.graph.output.extend(kept)
    for value in (*foreign.graph.input, *foreign.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_param = "batch"
    del foreign.graph.value_info[:]  # they may name a fixed batch size
    _drop_unused_weights(foreign.graph)
    if source.batch is not None:
        _reshape_any_batch(foreign.graph, source.batch)
    before = _normalisation(source, card, preprocess)
    after = _probabilities(target, classes, softmax=softmax, temperature=temperature)
    for part in (before, after):
        part.ir_version = foreign.ir_version
        del part.opset_import[:]
        part.opset_import.extend(foreign.opset_import)
    whole = onnx.compose.merge_models(before, foreign, [("input", _PREFIX + source.name)])
    whole = onnx.compose.merge_models(whole, after, [(_PREFIX + target.name, "output")])
    opsets = {entry.domain: entry.version for entry in whole.opset_import}  # merging repeats them
    del whole.opset_import[:]
    whole.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets.items())
    del whole.metadata_props[:]
    whole.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    return whole


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads, which only make the file larger."""
    read = {name for node in graph.node for name in input_names(node)} | {value.name for value in graph.output}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [value for value in graph.input if value.name in read]
    if len(used) < len(graph.initializer):
        del graph.initializer[:], graph.input[:]
        graph.initializer.extend(used)
        graph.input.extend(inputs)


def _reshape_any_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Let every Reshape to a fixed batch size take any batch size. torch's exporter writes fixed ones by default.

    If a shape begins with that number for another reason, answers in a batch become different; `adopt` checks that.
    """
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    shapes |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for number, node in enumerate(graph.node):
        if node.op_type == "Reshape" and node.input[1] in shapes:
            shape = numpy_helper.to_array(shapes[node.input[1]]).copy()
            if shape.ndim == 1 and len(shape) > 1 and shape[0] == batch and (shape > 0).all():
                shape[0] = -1
                node.input[1] = f"{_PREFIX}any batch {number}"
                graph.initializer.append(numpy_helper.from_array(shape, node.input[1]))


def _normalisation(source: ForeignInput, card: ModelCard, preprocess: ForeignPreprocess) -> onnx.ModelProto:
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    floats = source.dtype in FLOATS
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["cast"], to=TensorProto.FLOAT if floats else source.dtype)]
    last = "cast"
    if floats:
        nodes += [
            constant("scale", np.asarray(1 / (255 * std), np.float32)),
            constant("shift", np.asarray(mean / std, np.float32)),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "shift"], ["shifted"]),
        ]
        last = "shifted"
    if preprocess.channels == "bgr":
        nodes += [constant("order", np.array([2, 1, 0]))]
        nodes.append(helper.make_node("Gather", [last, "order"], ["reordered"], axis=3))
        last = "reordered"
    if source.channels_first:
        nodes.append(helper.make_node("Transpose", [last], ["turned"], perm=[0, 3, 1, 2]))
        last = "turned"
    nodes.append(helper.make_node("Cast", [last], ["input"], to=source.dtype))
    height, width, channels = card.preprocess.shape
    shape = [channels, height, width] if source.channels_first else [height, width, channels]
    return _model(
        "before", nodes, (INPUT_NAME, TensorProto.UINT8, card.preprocess.shape), ("input", source.dtype, shape)
    )


def _probabilities(target: ForeignOutput, classes: int, *, softmax: bool, temperature: float | None) -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", ["output"], ["floats"], to=TensorProto.FLOAT)]
    last = "floats"
    if not target.flat:
        nodes.append(helper.make_node("Flatten", [last], ["flat"], axis=1))
        last = "flat"
    if temperature is not None:
        if not softmax:
            nodes += [
                constant("least", np.array(_EPSILON, np.float32)),
                helper.make_node("Add", [last, "least"], ["positive"]),
                helper.make_node("Log", ["positive"], ["logs"]),
            ]
            last = "logs"
        nodes += [
            constant("sharpness", np.array(1 / temperature, np.float32)),
            helper.make_node("Mul", [last, "sharpness"], ["sharpened"]),
        ]
        last, softmax = "sharpened", True
    nodes.append(
        helper.make_node("Softmax", [last], [OUTPUT_NAME], axis=1)
        if softmax
        else helper.make_node("Identity", [last], [OUTPUT_NAME])
    )
    return _model("after", nodes, ("output", target.dtype, [classes]), (OUTPUT_NAME, TensorProto.FLOAT, [classes]))


def _model(name: str, nodes: list[onnx.NodeProto], taken: _Tensor, given: _Tensor) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, dtype, ["batch", *shape]) for name, dtype, shape in (taken, given)]
    return helper.make_model(helper.make_graph(nodes, name, values[:1], values[1:]))

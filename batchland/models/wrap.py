"""Put an ONNX graph between normalisation and softmax, so that it takes uint8 pixels and gives probabilities."""

from typing import Final

import numpy as np
import onnx
import onnx.checker
from onnx import TensorProto, helper, numpy_helper

from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.fold_shapes import fold_shapes
from batchland.models.foreign import FLOATS, ForeignInput, ForeignOutput
from batchland.models.foreign_preprocess import ForeignPreprocess
from batchland.models.nodes import branches, constant, input_names

_PREFIX: Final = "adopted/"
"""Prefix of all names of the foreign graph."""
_EPSILON: Final = 1e-12
"""Added to a probability before its logarithm."""


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

    Raises onnx.checker.ValidationError.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(foreign.graph)
    _add_prefix(graph)
    name_in, name_out = _PREFIX + source.name, _PREFIX + target.name
    _drop_unused_weights(graph, name_out)
    shapes = _reshape_any_batch(graph, source.batch) if source.batch is not None else []
    before = _normalisation(source, preprocess, name_in)
    after = _probabilities(target, name_out, softmax=softmax, temperature=temperature)
    classes = len(card.classes)
    whole = helper.make_model(
        helper.make_graph(
            [*before, *shapes, *graph.node, *after],
            graph.name or "adopted",
            [
                helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", *card.preprocess.shape]),
                *(value for value in graph.input if value.name != name_in),
            ],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", classes])],
            graph.initializer,
            sparse_initializer=graph.sparse_initializer,
        ),
        ir_version=foreign.ir_version,
        opset_imports=foreign.opset_import,
    )
    whole.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.checker.check_model(whole)
    fold_shapes(whole, card.preprocess.shape)
    return whole


def _add_prefix(graph: onnx.GraphProto) -> None:
    """Put the prefix before all names of tensors and nodes, also in branches and in the bodies of loops.

    onnx.compose.add_prefix leaves out the names of initializers that are read only in a branch.
    """
    del graph.value_info[:]  # they may name a fixed batch size
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = _PREFIX + value.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = _PREFIX + sparse.values.name
    for node in graph.node:
        node.name = node.name and _PREFIX + node.name
        for names in (node.input, node.output):
            names[:] = [name and _PREFIX + name for name in names]
        for branch in branches(node):
            _add_prefix(branch)


def _drop_unused_weights(graph: onnx.GraphProto, output: str) -> None:
    """Remove initializers that no node reads, which only make the file larger."""
    read = {name for node in graph.node for name in input_names(node)} | {output}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [value for value in graph.input if value.name in read]
    if len(used) < len(graph.initializer):
        del graph.initializer[:], graph.input[:]
        graph.initializer.extend(used)
        graph.input.extend(inputs)


def _reshape_any_batch(graph: onnx.GraphProto, batch: int) -> list[onnx.NodeProto]:
    """Let every Reshape to a fixed batch size take any batch size. torch's exporter writes fixed ones by default.

    The result is the new shapes.

    If a shape begins with that number for another reason, answers in a batch become different; `adopt` checks that.
    """
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    shapes |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    opened = []
    for number, node in enumerate(graph.node):
        if node.op_type == "Reshape" and node.input[1] in shapes:
            shape = numpy_helper.to_array(shapes[node.input[1]]).copy()
            if shape.ndim == 1 and len(shape) > 1 and shape[0] == batch and (shape > 0).all():
                shape[0] = -1
                node.input[1] = f"{_PREFIX}any batch {number}"
                opened.append(constant(node.input[1], shape))
    return opened


def _normalisation(source: ForeignInput, preprocess: ForeignPreprocess, name: str) -> list[onnx.NodeProto]:
    """Nodes from the pixels to the foreign input of that name."""
    # One value for each number in a row of pixels: onnxruntime is slow at repeating three values.
    mean, std = (np.tile(values, (preprocess.width, 1)) for values in (preprocess.mean, preprocess.std))
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
    return [*nodes, helper.make_node("Cast", [last], [name], to=source.dtype)]


def _probabilities(
    target: ForeignOutput, name: str, *, softmax: bool, temperature: float | None
) -> list[onnx.NodeProto]:
    """Nodes from the foreign output of that name to the probabilities."""
    nodes = [helper.make_node("Cast", [name], ["floats"], to=TensorProto.FLOAT)]
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
    return nodes

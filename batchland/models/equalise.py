"""Scale the channels of a network so that all of one tensor have the same range; its answers stay the same.

In int8, a tensor has one scale. A channel that is far smaller than the largest one gets few of its 256 steps. Channels
can be scaled where only operators with f(s * x) = s * f(x) lie between the convolutions that make a tensor and those
that take it: the former are divided by the scale, the latter multiplied by it. Residual additions tie tensors together.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME
from batchland.models.ort import CPU, create_session

_HOMOGENEOUS: Final = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Operators of one tensor that scale their output as their input is scaled."""
_LEAST: Final = 0.05
"""Smallest scale of a channel, as a share of the largest: others would drown the weights of their layer."""

Floats = npt.NDArray[np.float64]


class _Group(NamedTuple):
    """Tensors with the same channels, which have to be scaled alike."""

    tensors: list[str]
    makers: list[onnx.NodeProto]
    """Convolutions that give one of them."""
    takers: list[onnx.NodeProto]
    """Convolutions that take one of them."""


def equalised(model: onnx.ModelProto, pictures: Iterable[Pixels]) -> onnx.ModelProto | None:
    """A copy with scaled channels; None if no tensor can be scaled. pictures: batches that the ranges are measured on.

    model: prepared, so that batch norm is part of the convolutions.
    """
    model = copy.deepcopy(model)
    groups = list(_groups(model.graph))
    if not groups:
        return None
    largest = _largest(model, [name for group in groups for name in group.tensors], pictures)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for group in groups:
        reach = np.max([largest[name] for name in group.tensors], axis=0)
        scales = np.maximum(reach / max(reach.max(), 1e-9), _LEAST)
        for node in group.makers:
            _multiply(weights[node.input[1]], 1 / scales[:, None])
            if len(node.input) > 2:
                _multiply(weights[node.input[2]], 1 / scales)
        for node in group.takers:
            _multiply(weights[node.input[1]], _of_inputs(node, weights[node.input[1]].dims[0], scales))
    return model


def _groups(graph: onnx.GraphProto) -> Iterable[_Group]:
    """The tensors that can be scaled."""
    stored = {tensor.name for tensor in graph.initializer}
    used = Counter(name for node in graph.node for name in node.input)
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := root.setdefault(name, name)) != name:
            name = above
        return name

    fixed = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        tensors = [name for name in (*node.input, *node.output) if name and name not in stored]
        if node.op_type in _HOMOGENEOUS or (node.op_type == "Add" and stored.isdisjoint(node.input)):
            for name in tensors:
                root[find(name)] = find(node.output[0])
        elif node.op_type != "Conv" or not all(name in stored and used[name] == 1 for name in node.input[1:]):
            fixed.update(tensors)
        for name in tensors:
            find(name)
    members: dict[str, list[str]] = {}
    for name in list(root):
        members.setdefault(find(name), []).append(name)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for tensors in members.values():
        makers = [node for node in convolutions if node.output[0] in tensors]
        takers = [node for node in convolutions if node.input[0] in tensors]
        if makers and takers and fixed.isdisjoint(tensors):
            yield _Group(tensors, makers, takers)


def _largest(model: onnx.ModelProto, names: Sequence[str], pictures: Iterable[Pixels]) -> dict[str, Floats]:
    """The largest absolute value of each channel of tensors [batch, channels, ...]."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = create_session(probe.SerializeToString(), [(CPU, {})])
    found: dict[str, Floats] = {}
    for batch in pictures:
        for name, values in zip(names, session.run(list(names), {INPUT_NAME: batch}), strict=True):
            peaks = np.abs(values).max(axis=(0, *range(2, values.ndim)))
            found[name] = np.maximum(found.get(name, 0), peaks.astype(np.float64))
    return found


def _of_inputs(node: onnx.NodeProto, outputs: int, scales: Floats) -> Floats:
    """The scales of the input channels that each output channel of a convolution takes: [outputs, inputs of each]."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    groups = attributes.get("group", 1)
    return np.repeat(scales.reshape(groups, -1), outputs // groups, axis=0)


def _multiply(tensor: onnx.TensorProto, factors: Floats) -> None:
    """Multiply a stored tensor, whose first axes are those of the factors."""
    values: npt.NDArray[Any] = numpy_helper.to_array(tensor)
    scaled = values * factors.reshape(*factors.shape, *[1] * (values.ndim - factors.ndim))
    tensor.CopyFrom(numpy_helper.from_array(scaled.astype(values.dtype), tensor.name))

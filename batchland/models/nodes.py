"""ONNX nodes: make those that are valid in every opset, and find what a node reads."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def constant(name: str, values: np.ndarray[Any, Any]) -> onnx.NodeProto:
    """A tensor. It is a node, because old files require every initializer to be also an input."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))


def input_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names of its inputs, and of those of the nodes in its branches."""
    yield from filter(None, node.input)  # an omitted input has an empty name
    for branch in branches(node):
        for inner in branch.node:
            yield from input_names(inner)


def operators(node: onnx.NodeProto) -> Iterator[str]:
    """Its operator, and those of the nodes in its branches."""
    yield node.op_type
    for branch in branches(node):
        for inner in branch.node:
            yield from operators(inner)


def branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in its attributes: branches, and the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))

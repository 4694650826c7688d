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
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            for inner in branch.node:
                yield from input_names(inner)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))

"""Make ONNX nodes that are valid in every opset."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def constant(name: str, values: np.ndarray[Any, Any]) -> onnx.NodeProto:
    """A tensor. It is a node, because old files require every initializer to be also an input."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))

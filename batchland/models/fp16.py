"""Convert an ONNX network to half floats, without torch: half the bytes, and fastest on a GPU."""

import copy
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from batchland.errors import ModelError
from batchland.models.nodes import input_names
from batchland.models.ort import tools_importable
from batchland.models.probe_pictures import probe_pictures
from batchland.models.session import Session

TOLERANCE: Final = 0.02
"""Largest difference of a probability that rounding explains; the same as for batchland's own exports."""
_FLOAT32: Final = ("Softmax", "LogSoftmax")
"""Operators that stay in float32, besides those on the block list of onnxruntime's converter."""
_PICTURES: Final = 32
"""Number of generated pictures that the two models are compared on."""


def to_half_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float16 weights, products, input and output. Other types stay."""
    convert, block_list = _converter()
    half: onnx.ModelProto = convert(copy.deepcopy(model), op_block_list=[*block_list, *_FLOAT32])
    _sort(half.graph)
    return half


def require_agreement(path: Path, half: Session, full: Session) -> float:
    """The largest difference of a probability between the two models on generated pictures.

    Raises ModelError if it exceeds TOLERANCE.
    """
    pixels = probe_pictures(full.card.preprocess.shape, _PICTURES)
    difference = float(np.abs(half.predict(pixels) - full.predict(pixels)).max())
    if not difference <= TOLERANCE:  # `not <=`, so that a difference of nan does not pass
        raise ModelError(
            f"{path}: half floats change a probability by {difference:.2g} (allowed {TOLERANCE:g})", advice="fp32"
        )
    return difference


def _sort(graph: onnx.GraphProto) -> None:
    """Sort nodes topologically: the converter appends its casts at the end."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed = {
        index: {producer[name] for name in input_names(node) if name in producer}
        for index, node in enumerate(graph.node)
    }
    nodes = [graph.node[index] for index in TopologicalSorter(needed).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _converter() -> Any:
    """onnxruntime's converter and its block list."""
    with tools_importable():
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    return convert_float_to_float16, DEFAULT_OP_BLOCK_LIST

"""An ONNX network in half floats, without torch: half the bytes, and what a GPU computes fastest.

Besides `session` and the quantiser of training the only module that imports onnxruntime, for its converter; nothing
here runs when images are scored.
"""

import copy
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.models.session import Session

TOLERANCE: Final = 0.02
"""Largest difference of a probability that rounding explains, as for the project's own exports."""
_FLOAT32: Final = ("Softmax", "LogSoftmax")
"""Operators that stay in float32, besides those that onnxruntime's converter leaves there."""
_PICTURES: Final = 32


def in_half_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights and sums are float16, and so are its input and its output, if they were floats."""
    convert, float32_anyway = _converter()
    half: onnx.ModelProto = convert(copy.deepcopy(model), op_block_list=[*float32_anyway, *_FLOAT32])
    _sort(half.graph)
    return half


def require_agreement(path: Path, half: Session, full: Session) -> float:
    """The largest difference of a probability between the two, on drawn pictures.

    Raises ModelError if it is more than rounding explains.
    """
    pixels = _pictures(full.card.preprocess.shape)
    difference = float(np.abs(half.predict(pixels) - full.predict(pixels)).max())
    if not difference <= TOLERANCE:  # `not <=`, so that a difference of nan does not pass
        raise ModelError(
            f"{path}: in half floats it answers otherwise than before, by {difference:.2g} of a probability (allowed "
            f"{TOLERANCE:g}); use --precision fp32"
        )
    return difference


def _pictures(shape: tuple[int, int, int]) -> Pixels:
    """Half of them noise, half of them patches of colour, a different number in each."""
    height, width, _ = shape
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (_PICTURES, *shape), np.uint8)
    for number in range(0, _PICTURES, 2):
        patches = rng.integers(0, 256, (number // 2 + 1, number // 2 + 1, 3), np.uint8)
        rows, columns = (np.arange(side) * len(patches) // side for side in (height, width))
        pictures[number] = patches[rows][:, columns]
    return pictures


def _sort(graph: onnx.GraphProto) -> None:
    """Bring each node behind those whose outputs it takes: the converter puts its casts at the very end."""
    made_by = {name: place for place, node in enumerate(graph.node) for name in node.output}
    needed = {
        place: {made_by[name] for name in _taken(node) if name in made_by} for place, node in enumerate(graph.node)
    }
    nodes = [graph.node[place] for place in TopologicalSorter(needed).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _taken(node: onnx.NodeProto) -> Iterator[str]:
    """Names of its inputs, and of those of the nodes in its branches."""
    yield from filter(None, node.input)  # one that is left out has no name
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            for inner in branch.node:
                yield from _taken(inner)


def _converter() -> Any:
    before = list(sys.path)
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    finally:
        sys.path[:] = before  # its package puts itself there, with modules of the commonest names
    return convert_float_to_float16, DEFAULT_OP_BLOCK_LIST

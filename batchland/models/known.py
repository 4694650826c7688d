"""Compute in the graph how far pictures are from known photos, by the cosines of their features.

The model contains the features of known photos. Its output `distance` is 1 - mean cosine with the nearest of them.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from batchland.models.contract import DISTANCE_NAME, FEATURES_NAME, Features
from batchland.models.nodes import constant, opset_of

NEIGHBOURS: Final = 5
"""Number of nearest known photos that a picture is compared with."""
MAX_PHOTOS: Final = 2000
"""Largest number of known photos in a model; each takes two bytes a feature."""
MIN_PHOTOS: Final = 20
"""Least number of known photos: with fewer, a share of 5 % is less than one photo."""
_SAME: Final = 1e-5
"""Up to this distance two features are of the same picture."""
_PREFIX: Final = "known/"
_SIZE_AS_INPUT: Final = 10
"""Opset from which on TopK takes a number as input, not as attribute."""


def add_distance(model: onnx.ModelProto, photos: Features) -> None:
    """Add the output `distance` to a model with features, or replace it. photos: features [n, features]."""
    _remove(model.graph)
    size: dict[str, Any] = {} if opset_of(model) >= _SIZE_AS_INPUT else {"k": NEIGHBOURS}
    names = [f"{_PREFIX}cosines", *([] if size else [f"{_PREFIX}number"])]
    model.graph.node.extend(
        [
            constant(f"{_PREFIX}stored", photos.T.astype(np.float16)),
            helper.make_node("Cast", [f"{_PREFIX}stored"], [f"{_PREFIX}photos"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", [FEATURES_NAME, f"{_PREFIX}photos"], names[:1]),
            constant(f"{_PREFIX}number", np.array([NEIGHBOURS])),
            helper.make_node("TopK", names, [f"{_PREFIX}nearest", f"{_PREFIX}places"], axis=1, **size),
            constant(f"{_PREFIX}weights", np.full((NEIGHBOURS, 1), 1 / NEIGHBOURS, np.float32)),
            helper.make_node("MatMul", [f"{_PREFIX}nearest", f"{_PREFIX}weights"], [f"{_PREFIX}mean"]),
            constant(f"{_PREFIX}one", np.array(1, np.float32)),
            helper.make_node("Sub", [f"{_PREFIX}one", f"{_PREFIX}mean"], [DISTANCE_NAME]),
        ]
    )
    batch = model.graph.output[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    model.graph.output.append(helper.make_tensor_value_info(DISTANCE_NAME, TensorProto.FLOAT, [batch, 1]))


def different_pictures(photos: Features) -> Features:
    """The photos without copies of earlier ones. photos: features [n, features]."""
    unit = photos / np.linalg.norm(photos, axis=1, keepdims=True)
    is_copy = np.tril(unit @ unit.T > 1 - _SAME, -1).any(axis=1)
    return photos[~is_copy]


def distances_within(photos: Features) -> npt.NDArray[np.float32]:
    """The distance of each photo from the others, 0 to 2, ascending. photos: features [n, features]."""
    cosines = photos @ photos.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = -np.partition(-cosines, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
    return np.sort(1 - nearest.mean(axis=1).clip(-1, 1))  # float16 features are a little longer or shorter than 1


def _remove(graph: onnx.GraphProto) -> None:
    """Remove the output and what only it needs."""
    for values in (graph.node, graph.output):
        kept = [each for each in values if not _is_ours(each)]
        del values[:]
        values.extend(kept)


def _is_ours(part: onnx.NodeProto | onnx.ValueInfoProto) -> bool:
    names = part.output if isinstance(part, onnx.NodeProto) else [part.name]
    return any(name == DISTANCE_NAME or name.startswith(_PREFIX) for name in names)

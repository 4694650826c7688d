"""Round the weights of an int8 network so that its sums change as little as possible, and correct the biases.

The nearest 8-bit weight is not the best one: the inputs of a layer are correlated and their mean is not zero, so the
rounding errors of its weights add up. As in GPTQ (Frantar et al., 2023), weights are rounded one after the other, and
the remaining weights are adjusted to compensate the error, by the second moments of the layer's inputs. As in data-free
quantisation (Nagel et al., 2019), the mean error of each channel is subtracted from its bias.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME
from batchland.models.ort import CPU, create_session

_PLACES: Final = 32
"""Positions per picture at which the inputs of a convolution are sampled."""
_MAX_INPUTS: Final = 1536
"""Layers with more inputs per output are rounded to the nearest weights; only their biases are corrected."""
_DAMPING: Final = 0.01
"""Share of the mean second moment that is added to the diagonal, so that the matrix can be inverted."""

Floats = npt.NDArray[np.float64]


class _Moments(NamedTuple):
    """Moments of the inputs of a convolution, for each of its groups."""

    mean: Floats
    """Means, [groups, inputs per output]."""
    second: Floats | None
    """Means of products, [groups, inputs, inputs]; None for wide layers."""


def _measure_inputs(model: onnx.ModelProto, pictures: Iterable[Pixels]) -> dict[str, _Moments]:
    """Moments of the inputs of each convolution with stored weights, by the name of the node."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in stored]
    names = list(dict.fromkeys(node.input[0] for node in nodes))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = create_session(probe.SerializeToString(), [(CPU, {})])
    rng = np.random.default_rng(0)
    sums: dict[str, list[Any]] = {}
    for batch in pictures:
        inputs = dict(zip(names, session.run(names, {INPUT_NAME: batch}), strict=True))
        for node in nodes:
            rows = _patches(inputs[node.input[0]], node, stored[node.input[1]], rng)
            total = sums.setdefault(node.name, [0, 0.0, 0.0])
            total[0] += rows.shape[1]
            total[1] += rows.sum(axis=1, dtype=np.float64)
            if rows.shape[2] <= _MAX_INPUTS:
                total[2] += rows.swapaxes(1, 2) @ rows
    return {
        name: _Moments(mean / count, second / count if np.ndim(second) else None)
        for name, (count, mean, second) in sums.items()
    }


def _patches(
    values: npt.NDArray[np.float32], node: onnx.NodeProto, shape: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Inputs of sampled outputs of a convolution: [groups, samples, inputs per output]."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    groups, kernel = attributes.get("group", 1), shape[2:]
    steps, gaps = (attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = [(kernel[axis] - 1) * gaps[axis] for axis in range(2)]
    outputs = [(padded.shape[2 + axis] - reach[axis] - 1) // steps[axis] + 1 for axis in range(2)]
    count = min(_PLACES, outputs[0] * outputs[1])
    chosen = rng.choice(outputs[0] * outputs[1], count, replace=False)
    tops, lefts = (chosen // outputs[1]) * steps[0], (chosen % outputs[1]) * steps[1]
    rows = tops[:, None, None] + np.arange(kernel[0])[:, None] * gaps[0]
    columns = lefts[:, None, None] + np.arange(kernel[1]) * gaps[1]
    found = padded[:, :, rows, columns]  # [batch, channels, count, *kernel]
    found = found.reshape(len(values), groups, -1, *found.shape[2:]).transpose(1, 0, 3, 2, 4, 5)
    return found.reshape(groups, len(values) * count, -1)


class Rounding:
    """Rounds the weights of a quantised network; any of its layers may be in int8."""

    def __init__(self, model: onnx.ModelProto, pictures: Iterable[Pixels]) -> None:
        """model: the prepared fp32 model. pictures: batches, uint8 [batch, H, W, 3]."""
        self._moments = _measure_inputs(model, pictures)
        self._exact = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes = {node.name: node for node in model.graph.node}
        self._rounded: dict[tuple[str, int], Floats] = {}

    def apply(self, quantised: onnx.ModelProto) -> onnx.ModelProto:
        """The quantised model (QDQ) with new weights and biases of its convolutions, and the same scales."""
        stored = {tensor.name: tensor for tensor in quantised.graph.initializer}
        taken = {node.output[0]: node.input for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
        for node in quantised.graph.node:
            if node.name not in self._moments or len(node.input) < 3 or not {*node.input[1:3]} <= taken.keys():
                continue
            integers, scales = (stored[name] for name in taken[node.input[1]][:2])
            biases, bias_scales = (stored[name] for name in taken[node.input[2]][:2])
            shift = self._round(node.name, integers, numpy_helper.to_array(scales))
            exact = numpy_helper.to_array(self._exact[self._nodes[node.name].input[2]])
            _replace(biases, (exact - shift) / numpy_helper.to_array(bias_scales).astype(np.float64))
        return quantised

    def _round(self, name: str, integers: onnx.TensorProto, scales: npt.NDArray[np.float32]) -> Floats:
        """Replace the weights of a layer. Returns the mean change of each of its outputs."""
        weights = numpy_helper.to_array(self._exact[self._nodes[name].input[1]])
        nearest, moments = numpy_helper.to_array(integers).astype(np.float64), self._moments[name]
        groups, width = moments.mean.shape
        shape = (groups, len(weights) // groups, width)
        rows, steps = weights.reshape(shape).astype(np.float64), scales.reshape(*shape[:2], 1).astype(np.float64)
        limit = max(1, int(np.abs(nearest).max()))
        if (name, limit) not in self._rounded:
            found = nearest.reshape(shape)
            if moments.second is not None:
                found = _best_integers(rows, steps, moments.second, limit)
            self._rounded[name, limit] = found
        rounded = self._rounded[name, limit]
        _replace(integers, rounded.reshape(nearest.shape))
        return ((rounded * steps - rows) @ moments.mean[:, :, None]).reshape(-1)


def _best_integers(rows: Floats, steps: Floats, second: Floats, limit: int) -> Floats:
    """Weights as integers, [groups, outputs, inputs], by GPTQ."""
    width = rows.shape[2]
    diagonal = np.einsum("gii->gi", second).mean(axis=1)
    damped = second + (_DAMPING * diagonal + 1e-9)[:, None, None] * np.eye(width)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2)
    left, rounded = rows.copy(), np.empty_like(rows)
    for index in range(width):
        column = left[:, :, index]
        rounded[:, :, index] = np.clip(np.rint(column / steps[:, :, 0]), -limit, limit)
        error = (column - rounded[:, :, index] * steps[:, :, 0]) / factor[:, index, index, None]
        left[:, :, index:] -= error[:, :, None] * factor[:, index, None, index:]
    return rounded


def _replace(tensor: onnx.TensorProto, values: Floats) -> None:
    kind = numpy_helper.to_array(tensor).dtype
    limits = np.iinfo(kind)
    exact = np.clip(np.rint(values), limits.min, limits.max).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))

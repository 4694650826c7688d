"""Weights in int8 are rounded so that the outputs of layers change least."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchland.models.ort import CPU, create_session
from batchland.models.quantiser import measure_ranges, prepare, quantise
from batchland.models.rounding import Rounding

RNG = np.random.default_rng(0)


def smooth_pictures(count):
    """Pictures as real ones are: neighbouring pixels are alike, and their mean is not zero."""
    coarse = RNG.uniform(60, 255, (count, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(coarse + RNG.normal(0, 4, coarse.shape), 0, 255).astype(np.uint8)


def network():
    """A convolution, one that is depthwise and one in two groups; the output is the mean of each of 6 channels."""
    constants = {
        "scale": np.array(1 / 255), "axes": np.array([2, 3]),
        "w1": RNG.normal(0, 1, (8, 3, 3, 3)), "b1": RNG.uniform(0, 2, 8),
        "w2": RNG.normal(0, 1, (8, 1, 3, 3)), "b2": RNG.uniform(0, 2, 8),
        "w3": RNG.normal(0, 1, (6, 4, 1, 1)), "b3": RNG.normal(0, 1, 6),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["turned", "w1", "b1"], ["c1"], pads=[1] * 4, name="first"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], group=8, strides=[2, 2], name="depthwise"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], group=2, name="grouped"),
        helper.make_node("ReduceMean", ["c3"], ["probabilities"], axes=[2, 3], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layers",
        [value("images", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [value("probabilities", TensorProto.FLOAT, ["batch", 6])],
        [
            numpy_helper.from_array(array.astype(np.int64 if name == "axes" else np.float32), name)
            for name, array in constants.items()
        ],
    )
    return prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def outputs(model, pictures, names=("probabilities",)):
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    return create_session(probe.SerializeToString(), [(CPU, {})]).run(list(names), {"images": pictures})[0]


@pytest.mark.parametrize("bits", [7, 8])
def test_errors_are_smaller_than_with_the_nearest_weights(bits):
    model, pictures, others = network(), [smooth_pictures(8) for _ in range(8)], smooth_pictures(64)
    measured = measure_ranges(model, pictures, "minmax")
    nearest = quantise(model, measured, bits=bits)
    rounded = Rounding(model, pictures).apply(quantise(model, measured, bits=bits))
    exact = outputs(model, others)
    before, after = (np.square(outputs(each, others) - exact).mean() for each in (nearest, rounded))
    assert after < before / 2
    for one, other in zip(nearest.graph.initializer, rounded.graph.initializer, strict=True):
        assert (one.name, one.dims, one.data_type) == (other.name, other.dims, other.data_type)
        if other.name.endswith("weight_quantized") or other.data_type == TensorProto.INT8:
            limits = (-64, 64) if bits == 7 else (-127, 127)
            values = numpy_helper.to_array(other)
            assert limits[0] <= values.min() <= values.max() <= limits[1]


def test_layers_in_float32_are_left_alone():
    model, pictures = network(), [smooth_pictures(8)]
    measured = measure_ranges(model, pictures, "minmax")
    plain = quantise(model, measured, in_float=["depthwise"])
    rounded = Rounding(model, pictures).apply(quantise(model, measured, in_float=["depthwise"]))
    (one,), (other,) = ([each for each in part.graph.initializer if each.name == "w2"] for part in (plain, rounded))
    assert one == other

"""Channels are scaled to the same range, and the answers stay."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from batchland.models.equalise import equalised
from batchland.models.int8 import predictor
from batchland.models.ort import CPU, create_session

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (4, 12, 12, 3), dtype=np.uint8) for _ in range(2)]


def network(*, between="Add"):
    """Convolutions (one of them depthwise, one in two groups) around a residual addition, channels of many sizes."""
    sizes = np.geomspace(0.5, 5, 8)
    constants = {
        "scale": np.array(1 / 255), "shape": np.array([0, -1]), "zero": np.array(0.0), "six": np.array(6.0),
        "w1": RNG.normal(0, 1, (8, 3, 3, 3)) * sizes[:, None, None, None], "b1": RNG.normal(0, 1, 8) * sizes,
        "w2": RNG.normal(0, 1, (8, 1, 3, 3)), "w3": RNG.normal(0, 1, (8, 4, 1, 1)) * sizes[::-1, None, None, None],
        "w4": RNG.normal(0, 0.1, (5, 8, 3, 3)), "w5": RNG.normal(0, 0.05, (5 * 12 * 12, 3)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["turned", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, group=8),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], group=2),
        helper.make_node(between, ["r1", "c3"], ["sum"]),
        helper.make_node("Conv", ["sum", "w4"], ["c4"], pads=[1] * 4),
        helper.make_node("Clip", ["c4", "zero", "six"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w5"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "residual",
        [value("images", TensorProto.UINT8, ["batch", 12, 12, 3])],
        [value("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(array.astype(np.int64 if name == "shape" else np.float32), name)
            for name, array in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def largest(model, name):
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    session = create_session(probe.SerializeToString(), [(CPU, {})])
    return np.max([np.abs(session.run([name], {"images": each})[0]).max(axis=(0, 2, 3)) for each in PICTURES], axis=0)


def test_the_answers_stay_and_the_ranges_become_equal():
    model = network()
    scaled = equalised(model, PICTURES)
    np.testing.assert_allclose(predictor(scaled)(PICTURES[0]), predictor(model)(PICTURES[0]), atol=1e-5)
    before, after = (np.max([largest(each, name) for name in ("c1", "r1", "c3", "sum")], 0) for each in (model, scaled))
    assert before.max() / before.min() > 4
    np.testing.assert_allclose(after, after.max(), rtol=1e-4)
    np.testing.assert_allclose(largest(scaled, "c2"), largest(scaled, "c2").max(), rtol=1e-4)
    np.testing.assert_allclose(largest(scaled, "c4"), largest(model, "c4"), rtol=1e-4)


def test_tensors_that_another_operator_takes_are_left_alone():
    """A product scales otherwise than a sum; only the convolutions between are scaled."""
    model = network(between="Mul")
    scaled = equalised(model, PICTURES)
    np.testing.assert_allclose(predictor(scaled)(PICTURES[0]), predictor(model)(PICTURES[0]), atol=1e-5)
    for name in ("r1", "c3", "sum"):
        np.testing.assert_allclose(largest(scaled, name), largest(model, name), rtol=1e-4)
    np.testing.assert_allclose(largest(scaled, "c2"), largest(scaled, "c2").max(), rtol=1e-4)


def test_a_network_without_such_tensors_gives_nothing():
    model = network()
    del model.graph.node[4:9]
    model.graph.node[3].output[0] = "c4"
    model.graph.node[3].input[1] = "w6"
    model.graph.node[3].input.pop()
    model.graph.initializer.append(numpy_helper.from_array(RNG.normal(0, 1, (5, 3, 3, 3)).astype(np.float32), "w6"))
    assert equalised(model, PICTURES) is None

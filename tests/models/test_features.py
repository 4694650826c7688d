"""Features: the input of the last layer, as vectors of length 1; the probabilities stay the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import toy_card, write_toy_model

from batchland.errors import ModelError
from batchland.models.card import METADATA_KEY
from batchland.models.features import MAX_WIDTH, add_features, keep_features
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.device import Device
from batchland.models.ort import CPU, create_session
from batchland.models.session import open_session

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 8, 3), np.uint8)
FIRST = RNG.normal(size=(6, 3, 1, 1)).astype(np.float32) / 255
LAST = RNG.normal(size=(6, 3)).astype(np.float32)
MAPS = np.maximum(np.einsum("nhwc,mc->nmhw", PIXELS.astype(np.float32), FIRST[:, :, 0, 0]), 0)
POOLED = MAPS.mean(axis=(2, 3))

node = helper.make_node
POOL = [node("GlobalAveragePool", ["maps"], ["pooled"]), node("Flatten", ["pooled"], ["flat"])]
SOFTMAX = [node("Softmax", ["logits"], ["probabilities"], axis=1)]
GEMM = node("Gemm", ["flat", "last"], ["logits"])
HEADS = {
    "Gemm": [*POOL, GEMM, *SOFTMAX],
    "MatMul and bias": [
        *POOL,
        node("MatMul", ["flat", "last"], ["plain"]),
        node("Add", ["plain", "bias"], ["logits"]),
        *SOFTMAX,
    ],
    "softmax by exp": [
        *POOL,
        GEMM,
        node("Exp", ["logits"], ["powers"]),
        node("ReduceSum", ["powers", "one"], ["sums"]),
        node("Div", ["powers", "sums"], ["probabilities"]),
    ],
    "1x1 convolution, pooled": [
        POOL[0],
        node("Conv", ["pooled", "kernel"], ["scores"], kernel_shape=[1, 1]),
        node("Flatten", ["scores"], ["logits"]),
        *SOFTMAX,
    ],
    "1x1 convolution, not pooled": [
        node("Conv", ["maps", "kernel"], ["scores"], kernel_shape=[1, 1]),
        node("GlobalAveragePool", ["scores"], ["means"]),
        node("Flatten", ["means"], ["logits"]),
        *SOFTMAX,
    ],
    "shape of another tensor": [
        *POOL,
        node("Gemm", ["flat", "last"], ["plain"]),
        node("Shape", ["flat"], ["shape"]),
        node("Gather", ["shape", "zero"], ["count"]),
        node("Concat", ["count", "three"], ["wanted"], axis=0),
        node("Reshape", ["plain", "wanted"], ["logits"]),
        *SOFTMAX,
    ],
}
WITHOUT = {
    "two last layers": [
        *POOL,
        node("Gemm", ["flat", "last"], ["a"]),
        node("MatMul", ["flat", "last"], ["b"]),
        node("Add", ["a", "b"], ["logits"]),
        *SOFTMAX,
    ],
    "a layer of another kind": [*POOL, node("Einsum", ["flat", "last"], ["logits"], equation="nc,ck->nk"), *SOFTMAX],
    "a product of two results": [
        *POOL,
        node("Transpose", ["flat"], ["turned"]),
        node("MatMul", ["turned", "flat"], ["square"]),
        node("MatMul", ["flat", "square"], ["mixed"]),
        node("Slice", ["mixed", "zero", "three", "one"], ["logits"]),
        *SOFTMAX,
    ],
    "a 3x3 convolution": [
        node("Conv", ["maps", "wide"], ["scores"], kernel_shape=[3, 3]),
        node("GlobalAveragePool", ["scores"], ["means"]),
        node("Flatten", ["means"], ["logits"]),
        *SOFTMAX,
    ],
    "no layer": [node("GlobalAveragePool", ["floats"], ["means"]), node("Flatten", ["means"], ["logits"]), *SOFTMAX],
}


def network(head, opset=13):
    """A convolution with ReLU, and a head on its maps."""
    nodes = [
        node("Cast", ["images"], ["bytes"], to=TensorProto.FLOAT),
        node("Transpose", ["bytes"], ["floats"], perm=[0, 3, 1, 2]),
        node("Conv", ["floats", "first"], ["linear"], kernel_shape=[1, 1]),
        node("Relu", ["linear"], ["maps"]),
        *head,
    ]
    constants = {
        "first": FIRST, "last": LAST, "kernel": LAST.T[:, :, None, None], "bias": np.zeros(3, np.float32),
        "zero": np.array([0]), "one": np.array([1]), "three": np.array([3]), "wide": np.ones((3, 6, 3, 3), np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key=METADATA_KEY, value=toy_card().to_json())
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.onnx"


def save(model, path):
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("head", HEADS)
def test_features_are_the_pooled_input_of_the_last_layer(path, head, opset):
    save(network(HEADS[head], opset), path)
    before = open_session(path, "cpu").predict(PIXELS)
    assert keep_features(path) == 6
    session = open_session(path, "cpu", features=True)
    answer = session.answer(PIXELS)
    assert (session.card.features, answer.features.dtype) == (6, np.float32)
    np.testing.assert_allclose(answer.features, POOLED / np.linalg.norm(POOLED, axis=1, keepdims=True), atol=1e-5)
    for given in (answer, open_session(path, "cpu").answer(PIXELS)):
        np.testing.assert_array_equal(given.probabilities, before)
    assert open_session(path, "cpu").answer(PIXELS).features is None


@pytest.mark.parametrize("head", WITHOUT)
def test_a_model_without_one_last_layer_gets_no_features(path, head):
    save(network(WITHOUT[head]), path)
    assert keep_features(path) is None
    assert [value.name for value in onnx.load(path).graph.output] == ["probabilities"]
    with pytest.raises(ModelError) as caught:
        open_session(path, "cpu", features=True)
    assert str(caught.value) == f"{path}: gives no features; export or adopt it again to add them"


def test_half_floats_become_float32(path):
    half = [
        node("Cast", ["flat"], ["half"], to=TensorProto.FLOAT16),
        node("Cast", ["last"], ["narrow"], to=TensorProto.FLOAT16),
        node("MatMul", ["half", "narrow"], ["product"]),
        node("Cast", ["product"], ["logits"], to=TensorProto.FLOAT),
    ]
    save(network([*POOL, *half, *SOFTMAX]), path)
    assert keep_features(path) == 6
    found = open_session(path, "cpu", features=True).answer(PIXELS).features
    np.testing.assert_allclose(found, POOLED / np.linalg.norm(POOLED, axis=1, keepdims=True), atol=1e-3)


def test_a_picture_without_features_gets_zeros(path):
    save(network(HEADS["Gemm"]), path)
    keep_features(path)
    found = open_session(path, "cpu", features=True).answer(np.zeros((1, 8, 8, 3), np.uint8)).features
    np.testing.assert_array_equal(found, np.zeros((1, 6)))


def test_very_long_vectors_are_not_kept(path):
    wide = node("Tile", ["flat", "times"], ["tiled"])
    many = [wide, node("ReduceMean", ["tiled"], ["mean"], axes=[1]), node("MatMul", ["tiled", "long"], ["logits"])]
    model = network([*POOL, *many, *SOFTMAX])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, MAX_WIDTH // 6 + 1]), "times"))
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((6 * (MAX_WIDTH // 6 + 1), 3), np.float32), "long"),
    )
    assert add_features(model) is None


def test_a_card_that_promises_other_features_is_an_error(path):
    write_toy_model(path, toy_card())
    model = onnx.load(path)
    card = toy_card().model_copy(update={"features": 9})
    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    save(model, path)
    with pytest.raises(ModelError, match="its card has features of width 9; export it again"):
        open_session(path, "cpu")


@pytest.mark.parametrize("batch_size", [2, 5, 8])
def test_batches_of_a_fixed_shape_give_the_same_features(path, batch_size):
    write_toy_model(path, toy_card().model_copy(update={"features": 3}))
    plain = open_session(path, "cpu", features=True).answer(PIXELS)
    session = create_session(path.read_bytes(), [(CPU, {})])
    answer = BatchRunner(session, Device("cpu"), batch_size, (8, 8, 3), 3, {"features": 3}).answer(PIXELS)
    np.testing.assert_array_equal(answer.probabilities, plain.probabilities)
    np.testing.assert_array_equal(answer.features, plain.features)
    without = BatchRunner(session, Device("cpu"), batch_size, (8, 8, 3), 3).answer(PIXELS)
    np.testing.assert_array_equal(without.probabilities, plain.probabilities)
    assert without.features is None

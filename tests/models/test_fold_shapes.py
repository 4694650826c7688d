"""fold_shapes(): what depends only on shapes becomes constant, unless it depends on the batch size."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchland.models.contract import INPUT_NAME
from batchland.models.fold_shapes import fold_shapes
from batchland.models.ort import CPU, create_session

SHAPE = (8, 8, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def padded(batch="batch"):
    """A network that pads by height - 6 = 2 rows below, and flattens to its batch size, as torch exports it."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["floats"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["height"]),
        helper.make_node("Sub", ["height", "six"], ["rows"]),
        helper.make_node("Concat", ["zeros", "rows", "two zeros"], ["pads"], axis=0),
        helper.make_node("Pad", ["floats", "pads"], ["padded"]),
        helper.make_node("Gather", ["shape", "zero"], ["pictures"]),
        helper.make_node("Concat", ["pictures", "minus one"], ["flat shape"], axis=0),
        helper.make_node("Reshape", ["padded", "flat shape"], ["flat"]),
    ]
    constants = {"zero": [0], "one": [1], "six": [6], "minus one": [-1], "zeros": [0] * 5, "two zeros": [0] * 2}
    graph = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [batch, *SHAPE])],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 240])],
        [numpy_helper.from_array(np.array(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def answers(model):
    return create_session(model.SerializeToString(), [(CPU, {})]).run(None, {INPUT_NAME: PIXELS})[0]


def test_paddings_become_constant_and_the_batch_size_stays_dynamic():
    model, folded = padded(), padded()
    fold_shapes(folded, SHAPE)
    onnx.checker.check_model(folded, full_check=True)
    kinds = Counter(node.op_type for node in folded.graph.node)
    assert kinds == {"Cast": 1, "Constant": 1, "Pad": 1, "Shape": 1, "Gather": 1, "Concat": 1, "Reshape": 1}
    (pads,) = (node for node in folded.graph.node if node.op_type == "Constant")
    np.testing.assert_array_equal(numpy_helper.to_array(pads.attribute[0].t), [0, 0, 0, 0, 0, 2, 0, 0])
    np.testing.assert_array_equal(answers(folded), answers(model))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_model_that_cannot_compute_both_batches_stays_as_it_is(batch):
    model = padded(batch)
    before = model.SerializeToString()
    fold_shapes(model, SHAPE)
    assert model.SerializeToString() == before

"""Conversion to half floats, and the comparison with the original."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import write_toy_model

from batchland.errors import ModelError
from batchland.models.fp16 import require_agreement, to_half_floats
from batchland.models.session import open_session


def test_weights_become_half_floats_in_a_copy(tmp_path):
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    before = list(sys.path)
    half = to_half_floats(model)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {"axes": TensorProto.INT64, "scale": TensorProto.FLOAT16}
    assert model == onnx.load(tmp_path / "toy.onnx")
    assert sys.path == before


def test_nodes_are_sorted(tmp_path):
    half = to_half_floats(onnx.load(write_toy_model(tmp_path / "toy.onnx")))
    onnx.checker.check_model(half)
    assert [node.op_type for node in half.graph.node] == ["Cast", "ReduceMean", "Mul", "Cast", "Softmax", "Cast"]


def test_nodes_that_only_a_branch_uses_are_sorted_before_it(tmp_path):
    """An If whose branches use the softmax's output, without listing it as an input."""
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", ["soft"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])],
        )
        for name in ("then", "else")
    }
    model.graph.node[-1].output[0] = "soft"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["probabilities"], **branches))
    onnx.checker.check_model(model)
    half = to_half_floats(model)
    onnx.checker.check_model(half)
    assert [node.op_type for node in half.graph.node] == ["Cast", "ReduceMean", "Mul", "Cast", "Softmax", "Cast", "If"]


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.005, True), (1.5, False), (np.nan, False)])
def test_differences_by_rounding_are_accepted_and_larger_ones_refused(tmp_path, factor, agrees):
    path = write_toy_model(tmp_path / "toy.onnx")
    model = onnx.load(path)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(scale) * factor).astype(np.float32), "scale"))
    onnx.save(model, tmp_path / "other.onnx")
    other, toy = open_session(tmp_path / "other.onnx", "cpu"), open_session(path, "cpu")
    if agrees:
        assert 0 <= require_agreement(path, other, toy) <= 0.02
        return
    with pytest.raises(ModelError) as caught:
        require_agreement(path, other, toy)
    message = str(caught.value)
    assert message.startswith(f"{path}: half floats change a probability by ")
    assert message.endswith(" (allowed 0.02)")
    assert caught.value.advice == "fp32"

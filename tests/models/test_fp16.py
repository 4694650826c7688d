"""A network in half floats answers as before, or is refused."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import write_toy_model

from batchland.errors import ModelError
from batchland.models.fp16 import in_half_floats, require_agreement
from batchland.models.session import open_session


def test_weights_become_half_floats_and_the_model_stays_as_it_was(tmp_path):
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    before = list(sys.path)
    half = in_half_floats(model)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {"axes": TensorProto.INT64, "scale": TensorProto.FLOAT16}
    assert model == onnx.load(tmp_path / "toy.onnx")
    assert sys.path == before


def test_casts_stand_before_the_softmax_that_takes_them(tmp_path):
    half = in_half_floats(onnx.load(write_toy_model(tmp_path / "toy.onnx")))
    onnx.checker.check_model(half)
    assert [node.op_type for node in half.graph.node] == ["Cast", "ReduceMean", "Mul", "Cast", "Softmax", "Cast"]


def test_what_a_branch_takes_stands_before_it(tmp_path):
    """An If whose branches take the softmax's answer, which comes through a cast, without listing it as an input."""
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
    half = in_half_floats(model)
    onnx.checker.check_model(half)
    assert [node.op_type for node in half.graph.node] == ["Cast", "ReduceMean", "Mul", "Cast", "Softmax", "Cast", "If"]


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.005, True), (1.5, False), (np.nan, False)])
def test_rounding_is_let_through_and_more_is_not(tmp_path, factor, agrees):
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
    said = str(caught.value)
    assert said.startswith(f"{path}: in half floats it answers otherwise than before, by ")
    assert said.endswith(" of a probability (allowed 0.02); use --precision fp32")

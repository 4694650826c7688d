"""Checks of a model file: a regular, self-contained file with a model that returns probabilities."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import toy_card, write_toy_model

from batchland.errors import ModelError
from batchland.models.contract import are_probabilities, check_answer, read_model
from batchland.models.session import open_session


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing"])
def test_a_model_must_be_a_regular_file(tmp_path, kind):
    path = tmp_path / "model.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(ModelError) as caught:
        read_model(path)
    reason = {"missing": "No such file or directory", "folder": "Is a directory"}.get(kind, "not a regular file")
    assert str(caught.value) == f"{path}: cannot be read ({reason}); give an exported or adopted model"


def test_a_registry_name_is_rejected_as_a_file():
    with pytest.raises(ModelError) as caught:
        read_model(Path("toy@production"))
    assert str(caught.value) == (
        "toy@production: cannot be read (No such file or directory); give the file of that version, "
        "models/toy/NUMBER/toy.onnx; only jobs take NAME@VERSION (`batchland models show toy` names the versions)"
    )


def test_a_name_without_a_suffix_may_be_meant_for_the_registry():
    with pytest.raises(ModelError) as caught:
        read_model(Path("models/toy"))
    assert str(caught.value) == (
        "models/toy: cannot be read (No such file or directory); give an exported or adopted model; "
        "a job names a version in the registry as toy@ALIAS"
    )


def as_weight(model, tensor):
    return next(weight for weight in model.graph.initializer if weight.name == tensor.name)


def as_constant(model, tensor):
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    return model.graph.node[0].attribute[0].t


def as_constant_in_a_branch(model, tensor):
    branches = {
        name: helper.make_graph(
            [helper.make_node("Constant", [], [f"in_{name}"], value=tensor)],
            name,
            [],
            [helper.make_tensor_value_info(f"in_{name}", TensorProto.FLOAT, [])],
        )
        for name in ("then_branch", "else_branch")
    }
    model.graph.initializer.remove(tensor)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.insert(0, helper.make_node("If", ["yes"], [tensor.name], **branches))
    return model.graph.node[0].attribute[0].g.node[0].attribute[0].t


@pytest.mark.parametrize("location", ["weights.bin", "below/weights.bin", "../weights.bin", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("move", [as_weight, as_constant, as_constant_in_a_branch])
def test_a_model_with_weights_in_another_file_is_an_error(tmp_path, monkeypatch, move, location):
    """onnxruntime would read such a file below the current folder, but the model's sha256 does not cover it."""
    (tmp_path / "here").mkdir()
    path = write_toy_model(tmp_path / "toy.onnx").rename(tmp_path / "here" / "toy.onnx")
    for folder in (tmp_path, tmp_path / "here", tmp_path / "here" / "below"):
        folder.mkdir(exist_ok=True)
        (folder / "weights.bin").write_bytes(np.array(10 / 255, np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "here")
    model = onnx.load(path)
    tensor = move(model, next(weight for weight in model.graph.initializer if weight.name == "scale"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        open_session(path, "cpu")
    assert str(caught.value) == f"{path}: keeps its weights in another file (scale); save it as one ONNX file"


def test_a_model_may_have_a_node_called_location(tmp_path):
    path = write_toy_model(tmp_path / "toy.onnx")
    model = onnx.load(path)
    model.graph.node[0].name = "location"
    onnx.save(model, path)
    assert open_session(path, "cpu").card == toy_card()


def test_rows_of_probabilities_are_recognised():
    rows = np.array(
        [
            [0.2, 0.3, 0.5],
            [0.2, 0.3, 0.495],
            [-0.005, 0.5, 0.5],
            [0, 0, 0],
            [0.2, 0.3, 0.48],
            [0.9, 0.9, 0.9],
            [-0.5, 0.5, 1],
            [np.nan, 0.5, 0.5],
            [np.inf, 0, 0],
            [np.inf, -np.inf, 1],
        ],
        np.float32,
    )
    with np.errstate(invalid="ignore"):
        assert are_probabilities(rows).tolist() == [True] * 3 + [False] * 7


NAN = [np.nan, 0.5, 0.5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.2, 0.3, 0.5], [0, 0, 0]], None),
        ([[0.2, 0.3, 0.5], NAN], None),
        ([NAN, NAN], None),
        ([[0, 0, 0], [0, 0, 0]], "they lie between 0 and 0 and sum to 0"),
        ([[0, 0, 0], NAN], "they lie between 0 and 0 and sum to 0"),
        ([[3, -1, 2], [1, 1, 1]], "they lie between -1 and 3 and sum to 4"),
        ([[0.5, 0.75, 1], [0.5, 0.5, 0.5]], "they lie between 0.5 and 1 and sum to 2.25"),
    ],
)
def test_a_batch_without_a_row_of_probabilities_is_an_error(tmp_path, rows, message):
    answer = np.array(rows, np.float32)
    if message is None:
        check_answer(tmp_path, toy_card(), 2, answer)
        return
    with pytest.raises(ModelError) as caught:
        check_answer(tmp_path, toy_card(), 2, answer)
    assert str(caught.value) == (
        f"{tmp_path}: its outputs are not probabilities: {message}; export or adopt the model again"
    )

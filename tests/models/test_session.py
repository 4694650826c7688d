"""Opening models: valid and invalid files, the error messages, and no silent fallback to another device."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import toy_card, write_toy_model

import batchland.models.session
from batchland.errors import DeviceError, ModelError
from batchland.models.devices import gpu_problem
from batchland.models.gpu import create
from batchland.models.gpu import open as gpu
from batchland.models.gpu.create import require_gpu_nodes
from batchland.models.gpu.problems import Unusable
from batchland.models.ort import Placement, create_session, placement
from batchland.models.session import open_session

GPU = gpu_problem() is None


def test_probabilities_are_in_the_order_of_the_card(toy_model):
    session = open_session(toy_model, "cpu")
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    pixels = np.broadcast_to(colours[:, None, None], (3, 8, 8, 3))
    probabilities = session.predict(np.ascontiguousarray(pixels))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert [session.card.labels[index] for index in probabilities.argmax(axis=1)] == list(session.card.labels)
    assert (session.device, session.provider, session.fallback) == ("cpu", "CPUExecutionProvider", None)


def refusal(path, error=ModelError, device="cpu"):
    with pytest.raises(error) as caught:
        open_session(path, device)
    return str(caught.value)


def test_a_file_that_is_not_a_model_is_an_error(tmp_path, toy_model):
    path = tmp_path / "m.onnx"
    assert refusal(path) == f"{path}: cannot be read (No such file or directory); give an exported or adopted model"
    path.write_bytes(b"")
    assert refusal(path) == f"{path}: is empty; export the model again"
    path.write_bytes(toy_model.read_bytes()[:200])
    assert refusal(path).startswith(f"{path}: onnxruntime cannot load it: ")
    path.write_bytes(b"text")
    assert refusal(path).startswith(f"{path}: onnxruntime cannot load it: ")


def test_a_model_without_a_card_is_an_error(tmp_path, toy_model):
    model = onnx.load(toy_model)
    del model.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        open_session(path, "cpu")
    assert str(caught.value) == f"{path}: has no batchland card (class names and preprocessing)"
    assert (caught.value.advice, caught.value.values) == ("adopt", {"model": path})


def test_a_card_that_does_not_match_its_graph_is_an_error(tmp_path, toy_model):
    model = onnx.load(toy_model)
    path = tmp_path / "other.onnx"
    model.metadata_props[0].value = toy_card(size=16).to_json()
    onnx.save(model, path)
    assert "its card asks for images uint8 [batch, 16, 16, 3]" in refusal(path)
    model.metadata_props[0].value = toy_card(folders=("a", "b")).to_json()
    onnx.save(model, path)
    assert "its card names 2 classes" in refusal(path)


def test_a_fixed_batch_size_is_an_error(tmp_path, toy_model):
    model = onnx.load(toy_model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    path = tmp_path / "fixed.onnx"
    onnx.save(model, path)
    assert "its input is {'images': ('tensor(uint8)', [1, 8, 8, 3])}" in refusal(path)


@pytest.mark.skipif(GPU, reason="this machine has a GPU")
def test_cuda_does_not_fall_back_and_auto_records_the_reason(toy_model):
    assert refusal(toy_model, DeviceError, "cuda").startswith("device cuda cannot be used here: ")
    session = open_session(toy_model, "auto")
    assert (session.device, session.provider) == ("cpu", "CPUExecutionProvider")
    assert session.fallback


def test_a_provider_that_onnxruntime_drops_silently_is_noticed(toy_model, monkeypatch):
    """onnxruntime may list CUDA as available, but create a CPU session without an error."""
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 1)
    monkeypatch.setattr(create, "library_problem", lambda kind: "libcublas.so.13 is missing; install it")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda c, o, providers, **rest: real(c, o, ["CPUExecutionProvider"], **rest)
    )
    message = refusal(toy_model, DeviceError, "cuda")
    assert message == "device cuda cannot be used here: libcublas.so.13 is missing; install it"
    session = open_session(toy_model, "auto")
    assert session.provider == "CPUExecutionProvider"
    assert session.fallback == "libcublas.so.13 is missing; install it"


def test_onnxruntime_does_not_fall_back_to_the_cpu(toy_model):
    """By default, onnxruntime falls back after a failed creation or a failed run, and prints that on stdout."""
    assert create_session(toy_model.read_bytes(), [("CPUExecutionProvider", {})])._enable_fallback is False


def test_the_placement_of_nodes_is_recorded(toy_model):
    session = create_session(toy_model.read_bytes(), [("CPUExecutionProvider", {})], record_placement=True)
    assert placement(session) == Placement({"CPUExecutionProvider": 4}, ())


class Subgraph(NamedTuple):
    """Replacement for the objects that onnxruntime returns for a session on a GPU."""

    ep_name: str
    nodes: list[SimpleNamespace]

    def get_nodes(self):
        return self.nodes


def test_nodes_of_a_gpu_session_on_the_cpu_are_named():
    def node(kind, name=""):
        return SimpleNamespace(op_type=kind, name=name)

    session = SimpleNamespace(
        get_provider_graph_assignment_info=lambda: [
            Subgraph("CUDAExecutionProvider", [node("Conv", "/stem/Conv"), node("Relu")]),
            Subgraph("CPUExecutionProvider", [node("Shape")]),
            Subgraph("CPUExecutionProvider", [node("Gather", "/head/Gather")]),
        ]
    )
    placed = placement(session)
    assert placed == Placement(
        {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 2}, ("Shape", "Gather /head/Gather")
    )
    require_gpu_nodes(placed)
    with pytest.raises(Unusable) as caught:
        require_gpu_nodes(placed._replace(on_cpu=("Shape", "QLinearConv /stem/Conv_quant")))
    assert str(caught.value) == (
        "onnxruntime would run 1 heavy nodes of the model on the CPU (QLinearConv /stem/Conv_quant); export it in fp32 "
        "or fp16"
    )


def test_a_failed_inference_is_a_model_error(toy_model):
    with pytest.raises(ModelError, match="inference failed on cpu"):
        open_session(toy_model, "cpu").predict(np.zeros((1, 9, 9, 3), np.uint8))


def test_an_answer_without_one_row_per_image_is_a_model_error(tmp_path, toy_model):
    model = onnx.load(toy_model)
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    mean.input[1] = "all_axes"  # over the batch as well: one row for all images
    axes = numpy_helper.from_array(np.array([0, 1, 2], np.int64), "all_axes")
    model.graph.initializer.append(axes)
    next(attribute for attribute in mean.attribute if attribute.name == "keepdims").i = 0
    model.graph.node.insert(2, helper.make_node("Reshape", [mean.output[0], "row"], ["row_of_means"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "row"))
    model.graph.node[3].input[0] = "row_of_means"
    path = tmp_path / "one_row.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        open_session(path, "cpu").predict(np.zeros((4, 8, 8, 3), np.uint8))
    assert str(caught.value) == (
        f"{path}: returned probabilities of shape [1, 3] for 4 images and 3 classes; export the model again"
    )


def test_a_custom_operator_is_an_error(tmp_path):
    node = helper.make_node("Evil", ["images"], ["probabilities"], domain="custom")
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("custom", 1)]
    path = tmp_path / "custom.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    assert refusal(path).startswith(f"{path}: onnxruntime cannot load it: ")


def test_the_toy_model_has_opset_18(tmp_path):
    assert onnx.load(write_toy_model(tmp_path / "t.onnx")).opset_import[0].version == 18


def test_onnxruntime_collects_no_telemetry(tmp_path):
    """By default, importing onnxruntime writes telemetry files to the user's cache."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "import batchland.models.session"
    subprocess.run([sys.executable, "-c", code], env=os.environ | home, check=True)
    assert list(tmp_path.iterdir()) == []

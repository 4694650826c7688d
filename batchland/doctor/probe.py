"""Run a tiny classifier with one convolution (which needs cuDNN on a GPU) to test whether a device works."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from batchland.images.preprocess import PreprocessSpec
from batchland.models.card import METADATA_KEY, ModelCard, class_names
from batchland.models.session import Session, open_session


def run_probe(device: str) -> Session:
    """Classify two images on `device`; return the session. Raises DeviceError and ModelError."""
    with tempfile.TemporaryDirectory(prefix="batchland-") as folder:
        session = open_session(_write_probe(Path(folder) / "probe.onnx"), device)
        session.predict(np.zeros((2, *session.card.preprocess.shape), np.uint8))
    return session


def _write_probe(path: Path) -> Path:
    """Write an ONNX model of one convolution, pooling and softmax. Returns `path`."""
    card = ModelCard(
        name="probe",
        architecture="one convolution",
        classes=class_names(["first", "second"]),
        preprocess=PreprocessSpec(height=8, width=8),
        created_at="1970-01-01T00:00:00+00:00",
    )
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "weights"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *card.preprocess.shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(card.classes)])],
        [numpy_helper.from_array(_weights(), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def _weights() -> npt.NDArray[np.float32]:
    """Random weights of the convolution, [classes, channels, height, width]."""
    return np.random.default_rng(0).normal(0, 0.002, (2, 3, 3, 3)).astype(np.float32)

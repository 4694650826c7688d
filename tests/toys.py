"""A three-class toy model that predicts the dominant colour, and pictures for it."""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from batchland import ScoreOptions
from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, read_image
from batchland.models.card import METADATA_KEY, ModelCard, class_names
from batchland.models.contract import FEATURES_NAME
from batchland.models.gpu.cpu_check import cpu_check
from batchland.models.gpu.device import Device
from batchland.models.gpu.runners import BatchModel
from batchland.models.gpu.tuning import Settings
from batchland.models.known import add_distance
from batchland.models.ort import CPU, create_session
from batchland.models.session import open_session
from batchland.scoring.account import Progress

needs_codec = pytest.mark.skipif(
    find_spec("nvidia") is None or find_spec("nvidia.nvimgcodec") is None, reason="nvImageCodec is not installed"
)

COLOURS = {"00.Red_Tower": (255, 0, 0), "01.Green_Hill": (0, 255, 0), "02.Blue_Lake": (0, 0, 255)}


def toy_card(size: int = 8, folders: tuple[str, ...] = tuple(COLOURS)) -> ModelCard:
    return ModelCard(
        name="toy",
        architecture="dominant-colour",
        classes=class_names(folders),
        preprocess=PreprocessSpec(height=size, width=size),
        created_at="2026-11-23T00:00:00Z",
    )


def write_toy_model(path: Path, card: ModelCard | None = None) -> Path:
    """Probabilities are the softmax of ten times the mean of each colour channel, 0 to 1.

    If the card has features, they are these means, divided by their length. If it knows photos, they have one colour.
    """
    card = card or toy_card()
    height, width, _ = card.preprocess.shape
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])]
    if card.features:
        nodes.append(helper.make_node("LpNormalization", ["means"], ["features"], axis=1))
        outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        outputs,
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array(10 / 255, np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card.known:
        add_distance(model, np.tile(np.eye(3, dtype=np.float32), (10, 1)))
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def write_dense_model(path: Path, size: int = 8, features: int = 0) -> Path:
    """Probabilities, and features if wanted, are softmaxes of matrix products: what stand-ins for a GPU can compute."""
    card = toy_card(size).model_copy(update={"features": features or None})
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(size * size * 3, 3)).astype(np.float32) / (25 * size)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    if features:
        other = rng.normal(size=(size * size * 3, features)).astype(np.float32) / (25 * size)
        graph.initializer.append(numpy_helper.from_array(other, "other"))
        graph.node.append(helper.make_node("MatMul", ["flat", "other"], ["products"]))
        graph.node.append(helper.make_node("Softmax", ["products"], [FEATURES_NAME], axis=1))
        graph.output.append(helper.make_tensor_value_info(FEATURES_NAME, TensorProto.FLOAT, ["batch", features]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def write_wide_model(path: Path) -> Path:
    """Next to no weights, and 13 MB of activations for each picture of 224 x 224 pixels."""
    card = toy_card(224)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "weight"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 224, 224, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(rng.normal(size=(64, 3, 1, 1)).astype(np.float32) / 255, "weight"),
            numpy_helper.from_array(rng.normal(size=(64, 3)).astype(np.float32), "head"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def picture(colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (32, 24), kind: str = "JPEG") -> bytes:
    """Bytes of a picture of one colour, (width, height) pixels."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def write_photos(root: Path) -> Path:
    """Sixty images in folders, of colours that say their labels, some of them broken."""
    for number in range(60):
        folder = root / f"camera-{number // 20}"
        folder.mkdir(parents=True, exist_ok=True)
        data = picture(list(COLOURS.values())[number % 3])
        if number % 10 == 7:
            data = data[: len(data) // 2]
        (folder / f"{number:03}.jpg").write_bytes(data)
    return root


def options(model: Path, **changes: Any) -> ScoreOptions:
    """Small batches and parts, so that a few dozen images make many."""
    return ScoreOptions(model=model, **{"batch_size": 4, "part_size": 16} | changes)


class Stop(Exception):  # noqa: N818
    """Raised in a callback to end a run with an error."""


def stop_after(images: int) -> Callable[[Progress], None]:
    """A callback for progress that ends a run after a number of images."""

    def on_progress(progress: Progress) -> None:
        if progress.done >= images:
            raise Stop

    return on_progress


def read_all(images: Path | str) -> list[tuple[str, bytes | str]]:
    """Names of a source's images with their contents, or with the error code if reading failed."""
    found: list[tuple[str, bytes | str]] = []
    for ref in open_source(images).images(Ignored()):
        try:
            found.append((ref.name, read_image(ref).data))
        except ImageError as error:
            found.append((ref.name, error.code))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All files below, hidden ones as well; manifests, which hold times, aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("manifest.json")
    }


def batch_model_on_cpu(
    path: Path, batch_size: int, create: Any = None, settings_seen: list[tuple[Device, dict[str, str]]] | None = None
) -> BatchModel:
    """What runners on GPUs open, with the CPU in place of every GPU. create: makes the sessions."""
    content = path.read_bytes()

    def on_cpu(device: Device, settings: Settings) -> Any:
        if settings_seen is not None:
            settings_seen.append((device, dict(settings)))
        return create_session(content, [(CPU, {})], 1, record_placement=True)

    card = open_session(path, "cpu").card
    check = cpu_check(content, hashlib.sha256(content).hexdigest(), card.preprocess.shape, 1e-6)
    return BatchModel(create or on_cpu, card, batch_size, check)

"""Where onnxruntime's CUDA provider runs the nodes of batchland's exports, and whether it captures them as a graph."""

import numpy as np
import onnx
import pytest
import torch
from models.gpu.stub.programs import graphs, placements
from onnx import helper, numpy_helper

from batchland.images.preprocess import PreprocessSpec
from batchland.models.adopt import AdoptOptions, adopt
from batchland.models.card import ModelCard, class_names
from batchland.models.quantiser import measure_ranges, prepare, quantise
from batchland.training.export import write_onnx
from batchland.training.models import build
from batchland.training.precision import half, quantisable

SPEC = PreprocessSpec(height=64, width=64)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SHAPE_ARITHMETIC = {
    "Shape", "Size", "Gather", "Range", "Squeeze", "Unsqueeze", "Slice", "Expand", "ConstantOfShape", "Where",
}  # fmt: skip


def export_untrained(folder, name, architecture, backbone="resnet50"):
    """An export in each precision."""
    torch.manual_seed(0)
    card = ModelCard(
        name=name,
        architecture=architecture,
        classes=class_names(["a", "b", "c"]),
        preprocess=SPEC,
        created_at="2026-11-29T00:00:00Z",
    )
    model = build(architecture, 3, SPEC, backbone).eval()
    paths = []
    for precision in ("fp32", "fp16"):
        paths.append(folder / f"{name}-{precision}.onnx")
        write_onnx(half(model) if precision == "fp16" else model, card, paths[-1])
    return model, card, paths


def require_gpu(paths, found):
    """Assert that all nodes run on the GPU, and that none of them computes shapes."""
    for path in paths:
        operators = {node.op_type for node in onnx.load(path).graph.node}
        assert not operators & SHAPE_ARITHMETIC
        assert found[path.name]["cpu"] == []
        assert set(found[path.name]["nodes"]) == {CUDA}


@pytest.mark.parametrize(
    "settings",
    [
        {"prefer_nhwc": "1", "enable_cuda_graph": "1"},
        pytest.param({"prefer_nhwc": "1"}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_exports_run_on_the_gpu_as_a_whole(stub, exported, fp16, settings):
    paths = [exported["transfer"].path, fp16[0]]
    require_gpu(paths, stub.run(placements, paths, settings).result)
    captured = stub.run(graphs, paths)
    assert captured.result == {path.name: True for path in paths}
    assert not [line for line in captured.trace if "FORBIDDEN" in line]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "densenet121"])
def test_every_kind_of_backbone_runs_on_the_gpu_as_a_whole(stub, tmp_path, backbone):
    _, _, paths = export_untrained(tmp_path, backbone, "transfer", backbone)
    require_gpu(paths, stub.run(placements, paths, {}).result)
    assert stub.run(graphs, paths).result == {path.name: True for path in paths}


@pytest.mark.slow
def test_dequantising_nodes_of_an_int8_export_stay_on_the_cpu_with_a_warning(stub, tmp_path):
    model, card, _ = export_untrained(tmp_path, "scratch", "scratch")
    path = tmp_path / "int8.onnx"
    write_onnx(quantisable(model), card, path)
    pictures = np.random.default_rng(0).integers(0, 256, (8, *SPEC.shape), np.uint8)
    prepared = prepare(onnx.load(path))
    onnx.save(quantise(prepared, measure_ranges(prepared, [pictures], "minmax")), path)
    ran = stub.run(placements, [path], {})
    nodes = ran.result["int8.onnx"]["nodes"]
    assert ran.result["int8.onnx"]["cpu"] == ["DequantizeLinear"]
    assert ran.stderr == (
        f"{path}: an int8 model is slow on a GPU: {nodes[CPU]} DequantizeLinear nodes run on the CPU; export it in "
        f"fp16\n"
    )


def test_an_adopted_efficientnet_lite_runs_on_the_gpu_as_a_whole(stub, tmp_path):
    """Its kind: depthwise convolutions, ReLU6 as Clip, a mean at the end; in half floats by onnxruntime's converter."""
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array((rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
        helper.make_node("Conv", ["b", "depth"], ["c"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "zero", "six"], ["d"]),
        helper.make_node("Conv", ["d", "project"], ["e"]),
        helper.make_node("Add", ["b", "e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"], axis=1),
        helper.make_node("Gemm", ["h", "head", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "lite0",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [
            weight("stem", 8, 3, 3, 3),
            weight("depth", 8, 1, 3, 3),
            weight("project", 8, 8, 1, 1),
            weight("head", 3, 8),
            weight("bias", 3),
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(6), "six"),
        ],
    )
    foreign, labels = tmp_path / "lite0.onnx", tmp_path / "labels.txt"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), foreign)
    labels.write_text("a\nb\nc\n")
    paths = [tmp_path / f"lite0-{precision}.onnx" for precision in ("fp32", "fp16")]
    for path in paths:
        precision = path.stem.rpartition("-")[2]
        adopt(foreign, path, AdoptOptions(classes=labels, preprocess="imagenet", precision=precision))
    require_gpu(paths, stub.run(placements, paths, {}).result)
    assert stub.run(graphs, paths).result == {path.name: True for path in paths}

"""Options of onnxruntime's CUDA provider by a model's precision: those always set, and those tried by tuning."""

from typing import Final, NamedTuple

import onnx

from batchland.models.gpu.tuning import Settings


class GpuSettings(NamedTuple):
    """Provider options for models of one precision. None depends on timing, so every run computes the same bytes."""

    base: Settings
    """Always set."""
    changes: tuple[Settings, ...]
    """Tried in this order, each kept if it is faster."""
    tolerance: float
    """Largest difference of a probability that a change may make."""
    cpu_tolerance: float
    """Largest difference of a probability between the GPU and the CPU."""


_BASE: Final[Settings] = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
FP32: Final = GpuSettings(
    {**_BASE, "use_tf32": "0"},  # float32 as the CPU computes it; for speed there are fp16 files
    # not EXHAUSTIVE: it chooses a convolution that is fused with its ReLU by timing, but only in float32
    ({"prefer_nhwc": "1"}, {"fuse_conv_bias": "1"}, {"enable_cuda_graph": "1"}),
    1e-4,  # less than tf32 makes, which onnxruntime uses without asking where cuDNN has nothing else
    0.01,
)
FP16: Final = GpuSettings(
    {**_BASE, "use_tf32": "1"},  # with "0", onnxruntime does not use the tensor cores for half floats either
    (
        {"prefer_nhwc": "1"},
        {"cudnn_conv_algo_search": "EXHAUSTIVE"},
        {"fuse_conv_bias": "1"},
        {"enable_cuda_graph": "1"},
    ),
    0.02,
    0.05,
)
INT8: Final = FP32._replace(cpu_tolerance=0.05)  # a value that rounds to another level changes more than in FP32
TF32_TOLERANCE: Final = 0.05
"""The `cpu_tolerance` if float32 is rounded to tf32."""


def settings_for(content: bytes) -> GpuSettings:
    """FP16 if an ONNX file has half-float weights, INT8 if it is quantised, else FP32; also if it is not ONNX."""
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception:  # protobuf has its own exceptions; onnxruntime will report the problem
        return FP32
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer):
        return FP16
    return INT8 if any(node.op_type == "DequantizeLinear" for node in graph.node) else FP32

"""Options of onnxruntime's CUDA provider for fp32 and fp16 models: those always set, and those tried by tuning."""

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


_BASE: Final[Settings] = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
FP32: Final = GpuSettings(
    {**_BASE, "use_tf32": "0"},  # float32 as the CPU computes it; for speed there are fp16 files
    # not EXHAUSTIVE: it chooses a convolution that is fused with its ReLU by timing, but only in float32
    ({"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"}),
    1e-4,  # less than tf32 makes, which onnxruntime uses without asking where cuDNN has nothing else
)
FP16: Final = GpuSettings(
    {**_BASE, "use_tf32": "1"},  # with "0", onnxruntime does not use the tensor cores for half floats either
    ({"prefer_nhwc": "1"}, {"cudnn_conv_algo_search": "EXHAUSTIVE"}, {"enable_cuda_graph": "1"}),
    0.02,
)


def settings_for(content: bytes) -> GpuSettings:
    """FP16 if an ONNX file has half-float weights, else FP32; also for bytes that are not ONNX."""
    try:
        weights = onnx.load_model_from_string(content).graph.initializer
    except Exception:  # protobuf's errors are its own; onnxruntime will say what is wrong
        return FP32
    return FP16 if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in weights) else FP32

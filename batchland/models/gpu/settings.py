"""How onnxruntime's CUDA provider is set up, by a model's precision: what always holds, and what is tried out."""

from typing import Final, NamedTuple

import onnx

from batchland.models.gpu.tuning import Settings


class Recipe(NamedTuple):
    """Settings for models of one precision. None of them goes by timing, so that every run computes the same."""

    base: Settings
    changes: tuple[Settings, ...]
    """What may be faster."""
    tolerance: float
    """Largest difference of a probability that a change may make."""


_BASE: Final[Settings] = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
SINGLE: Final = Recipe(
    {**_BASE, "use_tf32": "0"},  # float32 as the CPU computes it; who wants speed takes an fp16 file
    # not EXHAUSTIVE: a convolution that is fused with its ReLU is then chosen by timing, but only in float32
    ({"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"}),
    1e-4,  # less than tf32 makes, which onnxruntime takes unasked where cuDNN has nothing else
)
HALF: Final = Recipe(
    {**_BASE, "use_tf32": "1"},  # without it, onnxruntime keeps the tensor cores from half floats, too
    ({"prefer_nhwc": "1"}, {"cudnn_conv_algo_search": "EXHAUSTIVE"}, {"enable_cuda_graph": "1"}),
    0.02,
)


def recipe_for(content: bytes) -> Recipe:
    """That of an ONNX file, by its weights; of one that cannot be read SINGLE, for onnxruntime to say why."""
    try:
        weights = onnx.load_model_from_string(content).graph.initializer
    except Exception:  # protobuf's errors are its own
        return SINGLE
    return HALF if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in weights) else SINGLE

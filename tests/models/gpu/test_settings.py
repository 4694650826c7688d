"""How CUDA is set up follows from the precision of a model's weights."""

import onnx
from toys import write_toy_model

from batchland.models.fp16 import to_half_floats
from batchland.models.gpu.settings import FP16, FP32, settings_for


def test_tensor_cores_are_used_for_fp16_models_only(tmp_path):
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    half = to_half_floats(model)
    assert settings_for(model.SerializeToString()) is FP32
    assert settings_for(half.SerializeToString()) is FP16
    assert (FP32.base["use_tf32"], FP16.base["use_tf32"]) == ("0", "1")


def test_unreadable_model_gets_the_float32_settings():
    assert settings_for(b"") is FP32
    assert settings_for(b"junk") is FP32


def test_float32_excludes_timed_search_and_tf32_tolerance():
    assert {"cudnn_conv_algo_search": "EXHAUSTIVE"} not in FP32.changes
    assert FP32.tolerance < 1e-3 < FP16.tolerance

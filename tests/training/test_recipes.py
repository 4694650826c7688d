"""How CUDA is set up follows from the precision of a model's weights."""

import onnx
from toys import write_toy_model

from batchland.models.fp16 import to_half_floats
from batchland.models.gpu.settings import FP16, FP32, settings_for


def test_a_model_to_half_floats_gets_tensor_cores_and_one_in_floats_gets_none(tmp_path):
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    half = to_half_floats(model)
    assert settings_for(model.SerializeToString()) is FP32
    assert settings_for(half.SerializeToString()) is FP16
    assert (FP32.base["use_tf32"], FP16.base["use_tf32"]) == ("0", "1")


def test_what_cannot_be_read_is_left_to_onnxruntime_to_explain():
    assert settings_for(b"") is FP32
    assert settings_for(b"junk") is FP32


def test_float32_is_never_searched_by_timing_nor_let_drift_as_far_as_tf32():
    assert {"cudnn_conv_algo_search": "EXHAUSTIVE"} not in FP32.changes
    assert FP32.tolerance < 1e-3 < FP16.tolerance

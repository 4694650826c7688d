"""How CUDA is set up follows from the precision of a model's weights."""

import onnx
from toys import write_toy_model

from batchland.models.fp16 import in_half_floats
from batchland.models.gpu.settings import HALF, SINGLE, recipe_for


def test_tensor_cores_are_used_for_fp16_models_only(tmp_path):
    model = onnx.load(write_toy_model(tmp_path / "toy.onnx"))
    half = in_half_floats(model)
    assert recipe_for(model.SerializeToString()) is SINGLE
    assert recipe_for(half.SerializeToString()) is HALF
    assert (SINGLE.base["use_tf32"], HALF.base["use_tf32"]) == ("0", "1")


def test_an_unreadable_model_gets_the_float32_settings():
    assert recipe_for(b"") is SINGLE
    assert recipe_for(b"junk") is SINGLE


def test_float32_excludes_timed_search_and_tf32_tolerance():
    assert {"cudnn_conv_algo_search": "EXHAUSTIVE"} not in SINGLE.changes
    assert SINGLE.tolerance < 1e-3 < HALF.tolerance

"""int8: quantised right where that is worth it, refused with the figures elsewhere."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from toys import COLOURS

from batchland.errors import ModelError, UsageError
from batchland.models.adopt import AdoptOptions, adopt
from batchland.models.int8 import processor, required_agreement, speed
from batchland.models.ort import CPU, create_session, has_vnni

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def write_network(path, *, common=0.0):
    """Convolutions with batch norm, Clip and SiLU, and a layer that gives the mean colours back.

    common: a multiple of the brightness added to every logit; a large one drowns their differences.
    """
    identity = np.eye(3, 8)[:, :, None, None].transpose(1, 0, 2, 3)
    first = np.pad(identity, ((0, 0), (0, 0), (1, 1), (1, 1))) + RNG.normal(0, 1e-3, (8, 3, 3, 3))
    last = 8 * np.eye(8, 3) + common * np.pad(np.ones((3, 3)), ((0, 5), (0, 0)))
    constants = {
        "first": first, "gain": np.ones(8), "shift": np.zeros(8), "mean": np.zeros(8), "variance": np.ones(8),
        "zero": np.array(0.0), "six": np.array(6.0), "second": np.eye(8)[:, :, None, None], "last": last,
        "bias": np.zeros(3),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "gain", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("Clip", ["n1", "zero", "six"], ["a1"]),
        helper.make_node("Conv", ["a1", "second"], ["c2"]),
        helper.make_node("Sigmoid", ["c2"], ["s2"]),
        helper.make_node("Mul", ["c2", "s2"], ["a2"]),
        helper.make_node("GlobalAveragePool", ["a2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last", "bias"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "colours",
        [value("images", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [value("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture
def photos(tmp_path):
    for folder, colour in COLOURS.items():
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(60 + 0.3 * np.array(colour) + RNG.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def options(tmp_path, photos):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(COLOURS) + "\n")
    return AdoptOptions(
        classes=labels, preprocess="unit", calibrate=photos, precision="int8", max_drop=0, allow_slower=True
    )


def test_an_int8_model_gives_the_answers_of_the_network(tmp_path, options):
    network = write_network(tmp_path / "f.onnx")
    full = adopt(network, tmp_path / "full.onnx", options.model_copy(update={"precision": "fp32"}))
    small = adopt(network, tmp_path / "small.onnx", options)
    np.testing.assert_allclose(small.predict(PIXELS), full.predict(PIXELS), atol=0.05)
    model = onnx.load(tmp_path / "small.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 6
    assert not {"BatchNormalization", "Clip"} & set(kinds)  # folded into the convolution and its range
    assert kinds.count("Softmax") == 1
    summary = small.card.int8
    assert (summary.layers, summary.images, summary.agreement) == (3, 24, 1.0)
    assert (summary.accuracy, summary.accuracy_fp32, summary.float_layers) == (1.0, 1.0, ())
    assert (summary.measured_on, summary.weight_bits) == (processor(), 8 if has_vnni() else 7)
    assert summary.speed > 0
    assert small.card.adoption.precision == "int8"
    assert small.card.adoption.temperature == full.card.adoption.temperature


def test_a_network_that_int8_spoils_is_refused_with_the_figures(tmp_path, options):
    """The differences of its logits are far below the step of their range."""
    network = write_network(tmp_path / "f.onnx", common=5000)
    with pytest.raises(ModelError) as caught:
        adopt(network, tmp_path / "o.onnx", options)
    message = str(caught.value)
    assert message.startswith(f"{network}: not written, int8 gives ")
    assert " of 24 labelled photos the same first class as fp32 (at least 99.0% needed) and " in message
    assert message.endswith(" top-1 after 100.0% (at most 0 points may be lost), with 0 of 3 layers in float32")
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(("reencoded", "required"), [(None, 0.99), (1.0, 0.99), (0.973, 0.973), (0.8, 0.95)])
def test_int8_may_change_as_many_first_classes_as_a_jpeg(reencoded, required):
    assert required_agreement(reencoded) == required


def test_products_of_8_bit_weights_do_not_saturate():
    """CPUs without VNNI add two products in 16 bits: 2 x 255 x 127 is more than they hold."""
    weights = np.full((1, 8, 1, 1), 127, np.int8)
    pixels = np.full((1, 8, 4, 4), 255, np.uint8)
    constants = {
        "weights": weights, "one": np.float32(1), "no": np.uint8(0), "none": np.int8(0),
        "step": np.float32(8 * 127 * 255 / 200),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", "one", "no", "weights", "one", "none", "step", "no"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "convolution",
        [value("x", TensorProto.UINT8, [1, 8, 4, 4])],
        [value("y", TensorProto.UINT8, [1, 1, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = create_session(model.SerializeToString(), [(CPU, {})])
    np.testing.assert_array_equal(session.run(None, {"x": pixels})[0], np.full((1, 1, 4, 4), 200, np.uint8))


def test_int8_needs_labelled_photos(tmp_path, options):
    network = write_network(tmp_path / "f.onnx")
    with pytest.raises(UsageError) as caught:
        adopt(network, tmp_path / "o.onnx", options.model_copy(update={"calibrate": None}))
    assert (str(caught.value), caught.value.advice) == (
        f"{network}: int8 is measured on labelled photos; none are given", "calibrate",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rounds_under_load", "slowdowns", "expected"),
    [
        (0, (1, 1), 2.0),
        (4, (5, 1), 2.0),
        (14, (5, 5), 2.0),
        (14, (5, 1), 2.0),  # the median of 15 rounds would be 10
        (25, (1, 5), 2.0),
        (60, (5, 1), None),
        (60, (1, 5), None),
    ],
)
def test_the_speed_of_int8_is_measured_right_or_not_at_all(monkeypatch, rounds_under_load, slowdowns, expected):
    """By a clock that only the calls move. Under load, each call of fp32 and of int8 is slowed down by a factor."""
    clock = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])

    def network(seconds, slowdown):
        calls = []

        def predict(pixels):
            calls.append(seconds * (1 if len(calls) % 15 == 5 or len(calls) > rounds_under_load else slowdown))
            clock[0] += calls[-1]
            return pixels

        return predict

    networks = network(1.0, slowdowns[0]), network(0.5, slowdowns[1])
    if expected:
        assert speed(Path("m.onnx"), *networks, PIXELS) == pytest.approx(expected)
        return
    with pytest.raises(ModelError) as caught:
        speed(Path("m.onnx"), *networks, PIXELS)
    factor = slowdowns[0] / slowdowns[1]
    assert str(caught.value) == (
        "m.onnx: not written, the speed of int8 cannot be measured beside the other programs on this machine "
        f"({2 * factor:.2f} or 2.00 times as fast as fp32); run the command again when they have ended"
    )
    networks = network(1.0, slowdowns[0]), network(0.5, slowdowns[1])
    assert speed(Path("m.onnx"), *networks, PIXELS, rough=True) == pytest.approx(2 * factor)


def test_onnxruntimes_tools_can_be_imported_in_any_order():
    program = (
        "from batchland.models.fp16 import _converter\n"
        "from batchland.models.ort import tools_importable\n"
        "_converter()\n"
        "with tools_importable():\n"
        "    import onnxruntime.quantization\n"
        "import sys\n"
        "print([path for path in sys.path if path.endswith('transformers')])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"

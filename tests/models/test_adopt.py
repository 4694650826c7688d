"""adopt(): a classifier from elsewhere answers as it did there, through our bytes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import write_toy_model

from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.adopt import PRESETS, adopt
from batchland.models.session import open_session

WEIGHT = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def foreign(path, *, layout="NCHW", kind=TensorProto.FLOAT, softmax=False, batch="N", opset=13, labels=4):
    """Logits are a linear map of the channels' means; names and shapes are not ours."""
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    shape = [batch, 3, 8, 8] if layout == "NCHW" else [batch, 8, 8, 3]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], keepdims=0, axes=axes),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
        *([helper.make_node("Softmax", ["logits"], ["soft"], axis=1)] if softmax else []),
        helper.make_node("Cast", ["soft" if softmax else "logits"], ["scores"], to=kind if kind != 2 else 1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("scores", kind if kind != TensorProto.UINT8 else 1, [batch, labels])],
        [numpy_helper.from_array(WEIGHT[:, :labels], "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def expected(preset):
    mean, std = (np.array(PRESETS[preset].get(key, value)) for key, value in (("mean", [0] * 3), ("std", [1] * 3)))
    logits = ((PIXELS / 255 - mean) / std).mean(axis=(1, 2)) @ WEIGHT
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("tench\ngreat white shark\nEiffel Tower\ncock\n")
    return path


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"layout": "NHWC"},
        {"softmax": True},
        {"batch": 1},
        {"opset": 17},
    ],
)
def test_answers_are_those_of_the_foreign_model_on_normalised_floats(tmp_path, labels, preset, given):
    session = adopt(foreign(tmp_path / "f.onnx", **given), labels, tmp_path / "out.onnx", preprocess=preset)
    np.testing.assert_allclose(session.predict(PIXELS), expected(preset), atol=1e-5)
    assert session.card.labels == ("tench", "great white shark", "Eiffel Tower", "cock")
    crop = {"fit": "crop", "shorter_side": 9} if preset == "imagenet" else {}
    assert session.card.preprocess == PreprocessSpec(height=8, width=8, **crop)


def test_half_precision_comes_out_as_float32(tmp_path, labels):
    session = adopt(foreign(tmp_path / "f.onnx", kind=TensorProto.FLOAT16), labels, tmp_path / "o.onnx")
    probabilities = session.predict(PIXELS)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected("imagenet"), atol=1e-2)


def test_a_model_of_bytes_takes_them_as_they_are(tmp_path, labels):
    path = foreign(tmp_path / "f.onnx", layout="NHWC", kind=TensorProto.UINT8)
    with pytest.raises(UsageError, match="takes uint8, so its normalisation is inside; use --preprocess byte"):
        adopt(path, labels, tmp_path / "o.onnx")
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="byte")
    np.testing.assert_allclose(session.predict(PIXELS), expected("byte"), atol=1e-5)


def test_preprocessing_from_a_file(tmp_path, labels):
    spec = tmp_path / "spec.json"
    spec.write_text('{"height": 8, "width": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "filter": "bicubic"}')
    session = adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx", preprocess=str(spec))
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)
    assert session.card.preprocess.filter == "bicubic"


def test_the_result_is_an_ordinary_model_file(tmp_path, labels):
    adopt(foreign(tmp_path / "linear.onnx"), labels, tmp_path / "models" / "o.onnx")
    session = open_session(tmp_path / "models" / "o.onnx", "cpu")
    assert (session.card.name, session.card.architecture) == ("linear", "linear")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["o.onnx"]


def test_labels_that_stand_twice_get_their_place(tmp_path, caplog):
    labels = tmp_path / "labels.txt"
    labels.write_text("crane\nmaillot\ncrane\nbird\n")
    session = adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")
    assert session.card.labels == ("crane (0)", "maillot", "crane (2)", "bird")
    assert "crane stands more than once" in caplog.text
    labels.write_text("crane\nmaillot\ncrane\nmaillot\n")
    adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")
    assert "crane, maillot stand more than once" in caplog.text


def test_a_model_with_a_card_is_left_as_it_is(tmp_path, labels):
    """Adopted once more, it would lose its classes, preprocessing and provenance."""
    with pytest.raises(UsageError) as caught:
        adopt(write_toy_model(tmp_path / "toy.onnx"), labels, tmp_path / "o.onnx", preprocess="byte")
    assert str(caught.value) == (
        f"{tmp_path}/toy.onnx: has a card already, score with it as it is; adopt is for models from elsewhere"
    )


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({"labels": 3}, {}, ModelError, r"gives 3 numbers an image, but .*labels.txt has 4 labels"),
        ({}, {"preprocess": "imagnet"}, UsageError, r"neither a name nor a file \(did you mean 'imagenet'\?\)"),
        ({"softmax": True}, {"output": "logits"}, UsageError, "ends in a softmax, so it gives probabilities"),
        ({}, {"output": "probabilities"}, ModelError, r"are not probabilities that sum to 1; use --output logits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_and_nothing_is_written(tmp_path, labels, given, options, error, message):
    with pytest.raises(error, match=message):
        adopt(foreign(tmp_path / "f.onnx", **given), labels, tmp_path / "o.onnx", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.onnx", "labels.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels.txt", "give a name that ends in .onnx"),
        ("labels.onnx", "is an input and would be replaced; give another name"),
        ("f.onnx", "is an input and would be replaced; give another name"),
        ("models", "is a folder; give the name of a file that ends in .onnx"),
    ],
)
def test_nothing_that_is_read_or_no_model_is_replaced(tmp_path, labels, name, message):
    (tmp_path / "models").mkdir()
    (tmp_path / "labels.onnx").hardlink_to(labels)
    model = foreign(tmp_path / "f.onnx")
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        adopt(model, labels, tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message}"
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_are_not_models_or_labels(tmp_path, labels):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match="is not a sound ONNX file"):
        adopt(tmp_path / "text.onnx", labels, tmp_path / "o.onnx")
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read"):
        adopt(tmp_path / "none.onnx", labels, tmp_path / "o.onnx")
    labels.write_text("tench\n\nshark\n")
    with pytest.raises(UsageError, match="line 2 is empty"):
        adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")


def test_a_model_of_something_else_is_refused(tmp_path, labels):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["tokens"], ["out"])],
        "language",
        [value("tokens", TensorProto.FLOAT, ["batch", 77])],
        [value("out", TensorProto.FLOAT, ["batch", 77])],
    )
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "f.onnx")
    with pytest.raises(ModelError, match=r"its input is tokens \[None, 77\]; a classifier of pictures takes"):
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")


def test_a_batch_that_cannot_be_batched_is_found_out(tmp_path, labels):
    """A fixed batch of one, held in place by a reshape: it opens, and fails at the first batch."""
    model = onnx.load(foreign(tmp_path / "f.onnx", batch=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4], np.int64), "fixed"))
    model.graph.node[-1].input[0] = "reshaped"
    model.graph.node.insert(3, helper.make_node("Reshape", ["logits", "fixed"], ["reshaped"]))
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(ModelError, match="takes one picture at a time; export it with a dynamic batch"):
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")


@pytest.mark.parametrize("softmax", [False, True])
def test_half_floats_on_request(tmp_path, labels, softmax):
    path = foreign(tmp_path / "f.onnx", softmax=softmax)
    full = adopt(path, labels, tmp_path / "full.onnx")
    half = adopt(path, labels, tmp_path / "half.onnx", precision="fp16")
    assert half.card.model_dump(exclude={"created_at"}) == full.card.model_dump(exclude={"created_at"})
    assert 0 < np.abs(half.predict(PIXELS) - full.predict(PIXELS)).max() < 2e-3
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kinds["adopted/weight"] == TensorProto.FLOAT16


def test_a_model_that_cannot_be_converted_to_half_floats_is_not_written(tmp_path, labels):
    """Its softmax stands in the branches of an If, where the converter puts no casts."""
    path = foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Softmax", ["logits"], [name], axis=1)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])],
        )
        for name in ("then", "else")
    }
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.insert(3, helper.make_node("If", ["yes"], ["soft"], **branches))
    model.graph.node[-1].input[0] = "soft"
    onnx.save(model, path)
    adopt(path, labels, tmp_path / "full.onnx", output="probabilities")
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "half.onnx", output="probabilities", precision="fp16")
    assert str(caught.value) == (
        f"{path}: onnxruntime's converter makes no sound model of it in half floats; use --precision fp32"
    )
    assert not (tmp_path / "half.onnx").exists()


def test_a_model_that_half_floats_cannot_hold_is_not_written(tmp_path, labels):
    path = foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(1e5 * WEIGHT, "weight"))
    down = numpy_helper.from_array(np.array(1e-5, np.float32), "down")
    model.graph.initializer.append(down)
    model.graph.node[2].output[0] = "large"  # far beyond 65504, the largest half float
    model.graph.node.insert(3, helper.make_node("Mul", ["large", "down"], ["logits"]))
    onnx.save(model, path)
    adopt(path, labels, tmp_path / "full.onnx")
    with pytest.raises(ModelError, match="in half floats it answers otherwise than before"):
        adopt(path, labels, tmp_path / "half.onnx", precision="fp16")
    assert not (tmp_path / "half.onnx").exists()

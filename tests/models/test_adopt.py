"""adopt(): a foreign classifier gives the same answers after adoption, from uint8 pixels."""

import json
import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from toys import write_toy_model

from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.adopt import AdoptOptions
from batchland.models.adopt import adopt as run
from batchland.models.foreign_preprocess import PRESETS
from batchland.models.session import open_session

WEIGHT = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def adopt(model, classes, out, *, preprocess="imagenet", **options):
    """Adopt with labels and preprocessing given."""
    return run(model, out, AdoptOptions(classes=classes, preprocess=preprocess, **options))


def foreign(path, *, layout="NCHW", kind=TensorProto.FLOAT, softmax=False, batch="N", opset=13, labels=4):
    """Write a foreign model whose logits are a linear map of the channels' means."""
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
def test_the_answers_are_those_of_the_foreign_model_on_normalised_floats(tmp_path, labels, preset, given):
    session = adopt(foreign(tmp_path / "f.onnx", **given), labels, tmp_path / "out.onnx", preprocess=preset)
    np.testing.assert_allclose(session.predict(PIXELS), expected(preset), atol=1e-5)
    assert session.card.labels == ("tench", "great white shark", "Eiffel Tower", "cock")
    crop = {"fit": "crop", "shorter_side": 9} if preset == "imagenet" else {}
    assert session.card.preprocess == PreprocessSpec(height=8, width=8, **crop)


def test_a_half_float_output_becomes_float32(tmp_path, labels):
    session = adopt(foreign(tmp_path / "f.onnx", kind=TensorProto.FLOAT16), labels, tmp_path / "o.onnx")
    probabilities = session.predict(PIXELS)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected("imagenet"), atol=1e-2)


def test_a_double_output_becomes_float32(tmp_path, labels):
    path = with_tail(tmp_path / "f.onnx", [node("Cast", "logits", "scores", to=TensorProto.DOUBLE)])
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, path)
    probabilities = adopt(path, labels, tmp_path / "o.onnx").predict(PIXELS)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected("imagenet"), atol=1e-5)


def test_an_answer_that_depends_on_the_other_pictures_is_an_error(tmp_path, labels):
    tail = [
        node("ReduceMax", "logits", "largest", axes=[0], keepdims=1),
        node("Mul", "logits largest", "scores"),
    ]
    path = with_tail(tmp_path / "f.onnx", tail)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{path}: gives a picture other numbers in a batch than alone, so its answers depend on the other pictures; "
        f"export it with a dynamic batch, in eval mode, without operators across the batch"
    )


def node(kind, taken, given, **attributes):
    return helper.make_node(kind, taken.split(), given.split(), **attributes)


LARGE = [node("Shape", "images", "shape"), node("Gather", "shape zero", "size"), node("Greater", "size many", "yes")]
DARK = [node("ReduceMean", "images", "mean", keepdims=0), node("Less", "mean little", "yes")]


@pytest.mark.parametrize("condition", [LARGE, DARK], ids=["large", "dark"])
def test_an_answer_that_differs_only_in_large_or_dark_batches_is_an_error(tmp_path, labels, condition):
    tail = [
        *condition, node("Cast", "yes", "added", to=TensorProto.FLOAT), node("Mul", "added first", "more"),
        node("Add", "logits more", "scores"),
    ]  # fmt: skip
    first = np.array([1, 0, 0, 0], np.float32)
    constants = [("zero", 0), ("many", 20), ("little", np.float32(0.3)), ("first", first)]
    with pytest.raises(ModelError, match="gives a picture other numbers in a batch than alone"):
        adopt(with_tail(tmp_path / "f.onnx", tail, constants), labels, tmp_path / "o.onnx", preprocess="unit")


def test_an_output_with_the_pictures_on_another_axis_is_an_error(tmp_path, labels):
    path = with_tail(tmp_path / "f.onnx", [node("Transpose", "logits", "scores")], axes=[4, "N"])
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{path}: gives an output of shape [4, 1] for one picture; the first axis must be that of the pictures"
    )


def test_what_the_checker_of_onnx_refuses_is_an_error(tmp_path, labels, monkeypatch):
    path = foreign(tmp_path / "f.onnx")
    real = onnx.checker.check_model

    def refuse(model):
        if model.metadata_props:
            raise onnx.checker.ValidationError("wrong\nhere")
        real(model)

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == f"{path}: cannot be joined with normalisation and softmax (wrong)"


def test_weights_that_nothing_reads_are_left_out(tmp_path, labels):
    model = onnx.load(foreign(tmp_path / "f.onnx"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1000, np.float32), "unused"))
    onnx.save(model, tmp_path / "f.onnx")
    session = adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")
    names = [tensor.name for tensor in onnx.load(tmp_path / "o.onnx").graph.initializer]
    assert "adopted/weight" in names
    assert "adopted/unused" not in names
    np.testing.assert_allclose(session.predict(PIXELS), expected("imagenet"), atol=1e-5)


def test_a_uint8_input_gets_the_pixels_unchanged(tmp_path, labels):
    path = foreign(tmp_path / "f.onnx", layout="NHWC", kind=TensorProto.UINT8)
    with pytest.raises(UsageError, match="takes uint8, so it normalises pixels itself; preprocess must be byte"):
        adopt(path, labels, tmp_path / "o.onnx")
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="byte")
    np.testing.assert_allclose(session.predict(PIXELS), expected("byte"), atol=1e-5)


def test_preprocessing_from_a_json_file(tmp_path, labels):
    spec = tmp_path / "spec.json"
    spec.write_text('{"height": 8, "width": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "filter": "bicubic"}')
    session = adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx", preprocess=str(spec))
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)
    assert session.card.preprocess.filter == "bicubic"


def test_the_result_is_an_ordinary_model_file(tmp_path, labels):
    adopt(foreign(tmp_path / "linear.onnx"), labels, tmp_path / "models" / "o.onnx")
    session = open_session(tmp_path / "models" / "o.onnx", "cpu")
    assert (session.card.name, session.card.architecture) == ("linear", "linear")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["o.canaries.parquet", "o.onnx"]


def test_normalisation_has_a_value_for_each_number_in_a_row(tmp_path, labels):
    """onnxruntime takes 0.7 ms to multiply 224 x 224 pixels by three values, and 0.06 ms by a row of them."""
    adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "out.onnx")
    nodes = onnx.load(tmp_path / "out.onnx").graph.node
    sizes = {node.output[0]: [*node.attribute[0].t.dims] for node in nodes if node.op_type == "Constant"}
    assert (sizes["scale"], sizes["shift"]) == ([8, 3], [8, 3])


def test_duplicate_labels_get_their_index(tmp_path, caplog):
    labels = tmp_path / "labels.txt"
    labels.write_text("crane\nmaillot\ncrane\nbird\n")
    session = adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")
    assert session.card.labels == ("crane (0)", "maillot", "crane (2)", "bird")
    assert "crane appears more than once" in caplog.text
    labels.write_text("crane\nmaillot\ncrane\nmaillot\n")
    adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")
    assert "crane, maillot appear more than once" in caplog.text


def test_a_model_with_a_card_is_an_error(tmp_path, labels):
    """Adopted once more, it would lose its classes, preprocessing and provenance."""
    with pytest.raises(UsageError) as caught:
        adopt(write_toy_model(tmp_path / "toy.onnx"), labels, tmp_path / "o.onnx", preprocess="byte")
    assert str(caught.value) == (f"{tmp_path}/toy.onnx: already has a batchland card; score with it")


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (
            {"labels": 3}, {}, ModelError,
            r"gives 3 numbers per picture, but .*labels.txt has 4 labels; check that they belong together$",
        ),
        ({}, {"preprocess": "imagnet"}, UsageError, r"neither a known name nor a file \(did you mean 'imagenet'\?\)"),
        ({"softmax": True}, {"output": "logits"}, UsageError, "gives probabilities, not logits"),
        ({}, {"output": "probabilities"}, ModelError, r"are not probabilities that sum to 1"),
    ],
)  # fmt: skip
def test_contradictions_are_errors_and_nothing_is_written(tmp_path, labels, given, options, error, message):
    with pytest.raises(error, match=message):
        adopt(foreign(tmp_path / "f.onnx", **given), labels, tmp_path / "o.onnx", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.onnx", "labels.txt"]


def test_a_label_for_the_background_may_be_missing(tmp_path, labels):
    """TensorFlow's classifiers of ImageNet have 1,001 classes."""
    labels.write_text("tench\ngreat white shark\ncock\n")
    with pytest.raises(ModelError) as caught:
        adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{tmp_path}/f.onnx: gives 4 numbers per picture, but {labels} has 3 labels; if the first is that of the "
        f"background, as in TensorFlow, give it a label, too"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels.txt", "give a name that ends in .onnx"),
        ("labels.onnx", "is an input and would be replaced; give another name"),
        ("f.onnx", "is an input and would be replaced; give another name"),
        ("models", "is a folder; give the name of a file that ends in .onnx"),
    ],
)
def test_out_replaces_neither_inputs_nor_other_files(tmp_path, labels, name, message):
    (tmp_path / "models").mkdir()
    (tmp_path / "labels.onnx").hardlink_to(labels)
    model = foreign(tmp_path / "f.onnx")
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        adopt(model, labels, tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message}"
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_a_model_with_a_card_is_replaced(tmp_path, labels, caplog):
    out = foreign(tmp_path / "o.onnx")
    before = out.read_bytes()
    with pytest.raises(UsageError) as caught:
        adopt(foreign(tmp_path / "f.onnx"), labels, out)
    assert str(caught.value) == f"{out}: exists and is not a model with a batchland card; give another name"
    assert out.read_bytes() == before
    out.unlink()
    caplog.set_level("INFO", "batchland")
    first = adopt(tmp_path / "f.onnx", labels, out)
    assert [line for line in caplog.messages if "replace" in line] == []
    adopt(tmp_path / "f.onnx", labels, out)
    day = first.card.created_at[:10]
    assert [line for line in caplog.messages if "replace" in line] == [f"{out}: will replace the model f of {day}"]


def test_invalid_models_and_label_files_are_errors(tmp_path, labels):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match="is not a valid ONNX file"):
        adopt(tmp_path / "text.onnx", labels, tmp_path / "o.onnx")
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read"):
        adopt(tmp_path / "none.onnx", labels, tmp_path / "o.onnx")
    labels.write_text("tench\n\nshark\n")
    with pytest.raises(UsageError, match="line 2 is empty"):
        adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx")


def test_an_output_without_an_axis_of_pictures_is_an_error(tmp_path, labels):
    model = onnx.load(foreign(tmp_path / "f.onnx", batch=1))
    model.graph.node.append(helper.make_node("Squeeze", ["scores"], ["flat"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [4]))
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(
        ModelError, match=r"f\.onnx: its output is flat float \[4\]; a classifier gives one float tensor"
    ):
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")


def test_a_model_without_pictures_as_input_is_an_error(tmp_path, labels):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["tokens"], ["out"])],
        "language",
        [value("tokens", TensorProto.FLOAT, ["batch", 77])],
        [value("out", TensorProto.FLOAT, ["batch", 77])],
    )
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "f.onnx")
    with pytest.raises(ModelError, match=r"its input is tokens float \[None, 77\]; a classifier of pictures takes"):
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")


@pytest.mark.parametrize(("batch", "ir_version"), [(1, 8), (2, 8), (1, 3)])
def test_a_batch_size_in_a_reshape_is_opened(tmp_path, labels, batch, ir_version):
    """As torch exports a model if no axis is declared dynamic."""
    model = onnx.load(foreign(tmp_path / "f.onnx", batch=batch))
    model.graph.initializer.append(numpy_helper.from_array(np.array([batch, 4], np.int64), "fixed"))
    model.graph.node[-1].input[0] = "reshaped"
    model.graph.node.insert(3, helper.make_node("Reshape", ["logits", "fixed"], ["reshaped"]))
    if ir_version == 3:  # every initializer must be an input
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
    onnx.save(model, tmp_path / "f.onnx")
    session = adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")
    np.testing.assert_allclose(session.predict(PIXELS), expected("imagenet"), atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "message"),
    [(1, "computes a picture alone, but not a batch of 3"), (2, "takes batches of 2 pictures only")],
)
def test_a_model_that_cannot_compute_batches_is_an_error(tmp_path, labels, batch, message):
    """A product fixes the batch size."""
    model = onnx.load(foreign(tmp_path / "f.onnx", batch=batch))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(batch, dtype=np.float32), "fixed"))
    model.graph.node[-1].input[0] = "product"
    model.graph.node.insert(3, helper.make_node("MatMul", ["fixed", "logits"], ["product"]))
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(ModelError) as caught:
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")
    assert str(caught.value) == f"{tmp_path}/f.onnx: {message}; export it with a dynamic batch dimension"


@pytest.mark.parametrize("softmax", [False, True])
def test_conversion_to_half_floats(tmp_path, labels, softmax):
    path = foreign(tmp_path / "f.onnx", softmax=softmax)
    full = adopt(path, labels, tmp_path / "full.onnx")
    half = adopt(path, labels, tmp_path / "half.onnx", precision="fp16")
    assert (full.card.adoption.precision, half.card.adoption.precision) == ("fp32", "fp16")
    varying = {"created_at": True, "adoption": {"precision"}}
    assert half.card.model_dump(exclude=varying) == full.card.model_dump(exclude=varying)
    assert 0 < np.abs(half.predict(PIXELS) - full.predict(PIXELS)).max() < 2e-3
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kinds["adopted/weight"] == TensorProto.FLOAT16


def test_a_model_that_the_converter_cannot_convert_is_not_written(tmp_path, labels):
    """Its softmax is in the branches of an If, where the converter inserts no casts."""
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
        f"{path}: onnxruntime's converter cannot change a network with branches (If) to half floats"
    )
    assert not (tmp_path / "half.onnx").exists()


def test_a_model_that_overflows_half_floats_is_not_written(tmp_path, labels):
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
    with pytest.raises(ModelError, match="half floats change a probability by"):
        adopt(path, labels, tmp_path / "half.onnx", precision="fp16")
    assert not (tmp_path / "half.onnx").exists()


def with_tail(path, nodes, constants=(), *, axes=("N", 4), outputs=None, classes=4):
    """A foreign model on 8 x 8 pictures whose last nodes turn `logits` into `scores`."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"], axis=1),
            helper.make_node("MatMul", ["means", "weight"], ["logits"]),
            *nodes,
        ],
        "tail",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        outputs or [helper.make_tensor_value_info("scores", TensorProto.FLOAT, axes)],
        [
            numpy_helper.from_array(WEIGHT[:, :classes], "weight"),
            *(numpy_helper.from_array(np.array(value), name) for name, value in constants),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def branch(*nodes, takes=(), gives):
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in takes]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in gives.items()]
    return helper.make_graph(nodes, "branch", values, outputs)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_weights_that_only_a_branch_reads(tmp_path, labels, kind):
    if kind == "If":
        pooled = [node("GlobalAveragePool", "images", "own"), node("Flatten", "own", "flat")]
        doubled = branch(*pooled, node("MatMul", "flat twice", "sum"), gives={"sum": 1})
        plain = branch(node("Identity", "logits", "same"), gives={"same": 1})
        tail = [node("If", "yes", "scores", then_branch=doubled, else_branch=plain)]
        constants = [("yes", True), ("twice", 2 * WEIGHT)]
    else:
        body = branch(
            node("Identity", "go", "still"), node("Mul", "sum two", "more"),
            takes=[("turn", 7, []), ("go", 9, []), ("sum", 1, None)], gives={"still": 9, "more": 1},
        )  # fmt: skip
        tail = [node("Loop", "turns yes logits", "scores", body=body)]
        constants = [("turns", 1), ("yes", True), ("two", np.float32(2))]
    session = adopt(with_tail(tmp_path / "f.onnx", tail, constants), labels, tmp_path / "o.onnx", preprocess="unit")
    squared = expected("unit") ** 2  # the logits are doubled
    np.testing.assert_allclose(session.predict(PIXELS), squared / squared.sum(axis=1, keepdims=True), atol=1e-5)


SOFTMAX = node("Softmax", "logits", "soft", axis=1)
PROBABILITIES = {
    "decomposed": (
        [node("Exp", "logits", "e"), node("ReduceSum", "e axis", "sum"), node("Div", "e sum", "scores")],
        [("axis", [1])],
    ),
    "clipped": (
        [SOFTMAX, node("Clip", "soft low high", "scores")],
        [("low", np.float32(1e-7)), ("high", np.float32(1))],
    ),
    "transposed": (
        [
            node("Transpose", "logits", "turned", perm=[1, 0]),
            node("Softmax", "turned", "soft", axis=0),
            node("Transpose", "soft", "scores", perm=[1, 0]),
        ],
        [],
    ),
    "exponent of log-softmax": ([node("LogSoftmax", "logits", "logs", axis=1), node("Exp", "logs", "scores")], []),
    "mean of two": (
        [SOFTMAX, node("Add", "soft soft", "twice"), node("Mul", "twice half", "scores")],
        [("half", np.float32(0.5))],
    ),
    "gathered": ([SOFTMAX, node("Gather", "soft all", "scores", axis=1)], [("all", [0, 1, 2, 3])]),
    "in half floats": ([SOFTMAX, node("Cast", "soft", "half", to=10), node("Cast", "half", "scores", to=1)], []),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_auto_puts_no_second_softmax_over_probabilities(tmp_path, labels, name):
    path = with_tail(tmp_path / "f.onnx", *PROBABILITIES[name])
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-3)
    with pytest.raises(UsageError) as caught:
        adopt(path, labels, tmp_path / "other.onnx", preprocess="half", output="logits")
    assert str(caught.value) == f"{path}: gives probabilities, not logits"
    assert caught.value.advice == "output_probabilities"


TOP = node("TopK", "logits four", "best where", axis=1)
SORTED = {
    "as it is": [node("Identity", "best", "scores")],
    "softmax": [node("Softmax", "best", "scores", axis=1)],
    "softmax of relu": [node("Relu", "best", "positive"), node("Softmax", "positive", "scores", axis=1)],
    "power": [node("Softmax", "best", "soft", axis=1), node("Pow", "soft one", "scores")],
    "turned twice": [node("Transpose", "best", "turned", perm=[1, 0]),
                     node("Transpose", "turned", "scores", perm=[1, 0])],
    "gathered": [node("GatherElements", "logits where", "scores", axis=1)],
    "smallest first": [node("Neg", "best", "scores")],
    "in a branch": [node("If", "yes", "scores",
                         then_branch=branch(node("TopK", "logits four", "a b", axis=1), gives={"a": 1}),
                         else_branch=branch(node("Identity", "logits", "c"), gives={"c": 1}))],
}  # fmt: skip


@pytest.mark.parametrize("name", SORTED)
def test_sorted_outputs_are_refused(tmp_path, labels, name):
    """TopK of as many as there are classes: the first number would be taken for the first class."""
    constants = [("four", [4]), ("one", np.float32(1)), ("yes", np.array(True))]
    path = with_tail(tmp_path / "f.onnx", [TOP, *SORTED[name]], constants)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    assert str(caught.value) == (
        f"{path}: its output scores is sorted (TopK), so its numbers may not be those of the classes in their "
        f"order; export it without TopK, or name another output"
    )


@pytest.mark.parametrize("opset", [17, 11])
@pytest.mark.parametrize("nested", [False, True], ids=["", "nested"])
def test_sorting_in_a_local_function_is_seen(tmp_path, labels, opset, nested):
    """Also if the function is of another opset than the model."""
    path = with_tail(tmp_path / "f.onnx", [node("Sorted", "logits four", "scores", domain="own")], [("four", [4])])
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]

    def function(name, inner, **attributes):
        nodes = [node(inner, "x k", "y where" if inner == "TopK" else "y", **attributes)]
        return helper.make_function("own", name, ["x", "k"], ["y"], nodes, opsets)

    outer = function("Sorted", "Inner", domain="own") if nested else function("Sorted", "TopK", axis=1)
    model.functions.extend([outer, *([function("Inner", "TopK", axis=1)] if nested else [])])
    model.opset_import.append(opsets[1])
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"its output scores is sorted \(TopK\), so its numbers may not be those"):
        adopt(path, labels, tmp_path / "o.onnx", preprocess="half")


def test_outputs_that_are_not_finite_are_not_blamed_on_the_batch(tmp_path, labels):
    """Those of dark pictures alone, so that the first look does not find them."""
    means = [node("ReduceMean", "images", "mean", keepdims=1, axes=[1, 2, 3]), node("Squeeze", "mean side", "dark")]
    tail = [SOFTMAX, *means, node("Unsqueeze", "dark one", "column"), node("Less", "column little", "yes"),
            node("Where", "yes nothing soft", "scores")]  # fmt: skip
    constants = [("side", [1, 2, 3]), ("one", [1]), ("little", np.float32(0.1)), ("nothing", np.float32(np.nan))]
    path = with_tail(tmp_path / "f.onnx", tail, constants)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx", preprocess="unit")
    assert str(caught.value) == (f"{path}: gives numbers that are not finite for some pictures, such as 0 divided by 0")


def test_negative_logarithms_are_refused_since_a_softmax_would_reverse_the_classes(tmp_path, labels):
    tail = [node("LogSoftmax", "logits", "logs", axis=1), node("Neg", "logs", "scores")]
    path = with_tail(tmp_path / "f.onnx", tail, [])
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    assert (str(caught.value), caught.value.advice) == (
        f"{path}: its outputs may be negative logarithms of probabilities (smallest for the likeliest class); export "
        f"it with logits or with probabilities of exclusive classes",
        None,
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [node("Sigmoid", "logits", "scores")],
            [],
            "its outputs lie between 0 and 1 but do not sum to 1, as those of sigmoids; export it with logits or with "
            "probabilities of exclusive classes",
        ),
        (
            [node("HardSigmoid", "logits", "scores")],
            [],
            "its outputs lie between 0 and 1 but do not sum to 1, as those of sigmoids; export it with logits or with "
            "probabilities of exclusive classes",
        ),
        (
            [node("Softmax", "logits", "scores", axis=0)],
            [],
            "gives every picture the same numbers when it is computed alone; check how it was trained and exported "
            "(its weights may be zero, or an operator may work across the batch)",
        ),
        (
            [SOFTMAX, node("Mul", "soft hundred", "scores")],
            [("hundred", np.float32(100))],
            "its outputs sum to 100, as percentages sum to 100; export it with logits or with probabilities of "
            "exclusive classes",
        ),
    ],
    ids=["sigmoid", "hard sigmoid", "softmax over the batch", "percent"],
)
def test_auto_refuses_outputs_that_are_neither_logits_nor_probabilities(tmp_path, labels, nodes, constants, message):
    path = with_tail(tmp_path / "f.onnx", nodes, constants)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    assert str(caught.value) == f"{path}: {message}"
    assert not (tmp_path / "o.onnx").exists()


def test_auto_puts_a_softmax_behind_log_probabilities_and_behind_positive_logits(tmp_path, labels):
    path = with_tail(tmp_path / "logs.onnx", [node("LogSoftmax", "logits", "scores", axis=1)])
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)
    shifted = [node("Add", "logits ten", "scores")]
    path = with_tail(tmp_path / "positive.onnx", shifted, [("ten", np.float32(10))])
    session = adopt(path, labels, tmp_path / "p.onnx", preprocess="half")
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)


def confident(path, outputs, tail=None):
    """A model with two classes, of which the pictures decide by little between outputs near `outputs`."""
    nodes = [node("Slice", "logits from to one", "two"), node("Mul", "two little", "small"),
             node("Add", "small outputs", "sure" if tail else "scores"), *(tail or [])]  # fmt: skip
    constants = [
        ("from", [0]),
        ("to", [2]),
        ("one", [1]),
        ("little", np.float32(0.01)),
        ("outputs", np.float32(outputs)),
    ]
    model = onnx.load(with_tail(path, nodes, constants))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, path)
    return path


@pytest.fixture
def two_labels(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text("good\nbad\n")
    return path


@pytest.mark.parametrize("output", ["auto", "logits"])
@pytest.mark.parametrize("outputs", [(10, -9), (9, -1), (30, -7), (-30, 3), (8, -0.5)])
def test_logits_of_a_network_that_is_sure_of_every_picture_are_logits(tmp_path, two_labels, outputs, output):
    path = confident(tmp_path / "f.onnx", outputs)
    session = adopt(path, two_labels, tmp_path / "o.onnx", preprocess="half", output=output)
    assert session.predict(PIXELS).argmax(axis=1).tolist() == [int(np.argmax(outputs))] * len(PIXELS)
    assert session.card.adoption.softmax == "added"


def test_outputs_that_may_be_negative_logarithms_are_believed_to_be_logits_if_the_user_says_so(tmp_path, two_labels):
    path = confident(tmp_path / "f.onnx", (9, -9), [node("Relu", "sure", "scores")])
    with pytest.raises(ModelError) as caught:
        adopt(path, two_labels, tmp_path / "o.onnx", preprocess="half")
    assert (str(caught.value), caught.value.advice) == (
        f"{path}: its outputs may be negative logarithms of probabilities (smallest for the likeliest class); "
        f"export it with logits or with probabilities of exclusive classes",
        None,
    )
    session = adopt(path, two_labels, tmp_path / "o.onnx", preprocess="half", output="logits")
    assert session.predict(PIXELS).argmax(axis=1).tolist() == [0] * len(PIXELS)


def test_outputs_that_are_not_finite_are_an_error(tmp_path, labels):
    path = with_tail(tmp_path / "f.onnx", [node("Log", "logits", "scores")])
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    assert str(caught.value) == f"{path}: gives numbers that are not finite; check its preprocessing"


@pytest.mark.parametrize("count", [1, "classes"], ids=["declared", "open"])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_model_with_one_number_for_each_picture_is_refused(tmp_path, labels, count, softmax):
    """Its only class would have 100% in every picture."""
    model = onnx.load(foreign(tmp_path / "f.onnx", labels=1, softmax=softmax))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", count]))
    onnx.save(model, tmp_path / "f.onnx")
    for text in ("cat\n", "cat\ndog\n"):
        labels.write_text(text)
        with pytest.raises(ModelError) as caught:
            adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx")
        assert str(caught.value) == (
            f"{tmp_path}/f.onnx: gives one number per picture, and a softmax over one class is always 100%; export it "
            f"with two classes, for a sigmoid with the outputs 1 - p and p"
        )


@pytest.mark.parametrize(
    ("kind", "side"),
    [
        ("unknown operator", 8),
        ("unknown operator", "side"),
        ("wrong type", 8),
        ("no output", 8),
    ],
)
def test_errors_of_onnxruntime_are_not_blamed_on_the_picture_size(tmp_path, labels, kind, side):
    model = onnx.load(foreign(tmp_path / "f.onnx"))
    shape = ["N", 3, side, side]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, shape))
    if kind == "no output":
        del model.graph.output[:]
    else:
        operator, domain = ("Foo", "my.ops") if kind == "unknown operator" else ("Not", "")
        model.graph.node.append(helper.make_node(operator, ["logits"], ["other"], domain=domain))
        model.opset_import.append(helper.make_opsetid("my.ops", 1))
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(ModelError) as caught:
        adopt(tmp_path / "f.onnx", labels, tmp_path / "o.onnx", preprocess="unit")
    start = {
        "unknown operator": f"has an operator that onnxruntime {ort.__version__} does not have ([ONNXRuntimeError]",
        "wrong type": "cannot be computed by onnxruntime ([ONNXRuntimeError]",
        "no output": "its output is missing; a classifier gives one float tensor [batch, classes]",
    }
    assert str(caught.value).startswith(f"{tmp_path}/f.onnx: {start[kind]}")
    assert "its height" not in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "nodes"),
    [
        (["N", 4, 1, 1], [node("Unsqueeze", "logits last", "scores")]),
        (["N", 1, 1, 4], [node("Unsqueeze", "logits first", "scores")]),
        (["N", 4, "height", "width"], [node("Unsqueeze", "logits last", "scores")]),
        (["N", 4, 1], [node("Unsqueeze", "logits one", "scores")]),
        (["N", "classes"], [node("Identity", "logits", "scores")]),
        ([1, 4, 1, 1], [node("Unsqueeze", "logits last", "scores")]),
    ],
)
def test_axes_of_length_one_are_removed_from_the_output(tmp_path, labels, axes, nodes):
    constants = [("last", [2, 3]), ("first", [1, 2]), ("one", [2])]
    path = with_tail(tmp_path / "f.onnx", nodes, constants, axes=axes)
    for precision in ("fp32", "fp16"):
        out = tmp_path / f"{precision}.onnx"
        session = adopt(path, labels, out, preprocess="half", precision=precision)
        np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=2e-3)


def test_a_map_of_classes_is_an_error(tmp_path, labels):
    path = with_tail(
        tmp_path / "f.onnx",
        [node("Unsqueeze", "logits last", "one"), node("Expand", "one shape", "scores")],
        [("last", [2, 3]), ("shape", [1, 4, 7, 7])],
        axes=["N", 4, 7, 7],
    )
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert (
        str(caught.value)
        == f"{path}: gives 196 numbers per picture, but {labels} has 4 labels; check that they belong together"
    )


def test_the_output_with_as_many_numbers_as_labels_is_chosen(tmp_path, labels):
    def values(*widths):
        names = ["scores", "means"]
        return [helper.make_tensor_value_info(name, 1, ["N", width]) for name, width in zip(names, widths, strict=True)]

    path = with_tail(tmp_path / "f.onnx", [node("Identity", "logits", "scores")], outputs=values(4, 3))
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)
    labels.write_text("a\nb\nc\nd\ne\n")
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "p.onnx", preprocess="half")
    assert str(caught.value) == (
        f"{path}: its outputs are scores float [None, 4], means float [None, 3]; none of them has 5 float numbers per "
        f"picture, as there are labels"
    )


@pytest.mark.parametrize(
    ("layout", "axes"),
    [
        ("NCHW", ["batch_size", "num_channels", "height", "width"]),
        ("NHWC", ["batch_size", "height", "width", "channels"]),
        ("NCHW", ["s0", 3, "s1", "s2"]),
    ],
)
def test_an_open_axis_of_channels_is_found_by_its_name(tmp_path, labels, layout, axes):
    path = foreign(tmp_path / "f.onnx", layout=layout)
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, axes))
    onnx.save(model, path)
    (tmp_path / "spec.json").write_text('{"height": 8, "width": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess=str(tmp_path / "spec.json"))
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)


def test_an_axis_of_channels_that_cannot_be_found_is_an_error(tmp_path, labels):
    path = foreign(tmp_path / "f.onnx")
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["a", "b", "c", "d"]))
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{path}: its input images float [None, None, None, None] leaves open which axis holds the channels; export it "
        f"with a fixed length of 3, or give layout in a JSON file of the preprocessing"
    )


def of_one_size(path, side):
    """A model that leaves the size of pictures open, but computes one size only, as those with a fixed Flatten do."""
    model = onnx.load(foreign(path))
    axes = ["batch_size", "num_channels", "height", "width"]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, axes))
    model.graph.node[1].input[0] = "sized"
    model.graph.node.insert(1, helper.make_node("Add", ["floats", "zeros"], ["sized"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((3, side, side), np.float32), "zeros"))
    onnx.save(model, path)
    return path


def test_an_open_size_is_taken_as_224(tmp_path, labels, caplog):
    path = of_one_size(tmp_path / "f.onnx", 224)
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    assert session.card.preprocess == PreprocessSpec(height=224, width=224)
    assert caplog.messages == [
        f"{path}: leaves the size of its pictures open; taken as 224 x 224. If it was trained on others, give height "
        f"and width in a JSON file of the preprocessing"
    ]


def test_another_size_must_be_given(tmp_path, labels):
    path = of_one_size(tmp_path / "f.onnx", 8)
    spec = tmp_path / "spec.json"
    spec.write_text('{"height": 9, "width": 9}')
    with pytest.raises(
        ModelError, match=r"cannot compute a picture of 9 x 9 pixels \(.*; if it takes another size, give"
    ):
        adopt(path, labels, tmp_path / "o.onnx", preprocess=str(spec))
    spec.write_text('{"height": 8, "width": 8}')
    assert adopt(path, labels, tmp_path / "o.onnx", preprocess=str(spec)).card.preprocess.height == 8


def test_keras_in_its_mode_caffe(tmp_path, labels):
    """BGR pixels from 0 to 255, minus ImageNet's means, as its ResNet50 and VGG take them."""
    means = np.array([103.939, 116.779, 123.68])
    spec = tmp_path / "caffe.json"
    spec.write_text(json.dumps({"channels": "bgr", "mean": list(means[::-1] / 255), "std": [1 / 255] * 3}))
    path = foreign(tmp_path / "f.onnx", layout="NHWC", softmax=True)
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess=str(spec))
    logits = (PIXELS[..., ::-1] - means).mean(axis=(1, 2)) @ WEIGHT
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(session.predict(PIXELS), powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


def test_a_json_file_without_a_size_takes_that_of_the_model(tmp_path, labels):
    spec = tmp_path / "spec.json"
    spec.write_text('{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    session = adopt(foreign(tmp_path / "f.onnx"), labels, tmp_path / "o.onnx", preprocess=str(spec))
    assert session.card.preprocess == PreprocessSpec(height=8, width=8)


def test_weights_in_a_file_beside_the_model_come_into_the_adopted_one(tmp_path, labels):
    model = onnx.load(foreign(tmp_path / "f.onnx"))
    path = tmp_path / "apart" / "f.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0, convert_attribute=True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["f.onnx", "weights"]
    session = adopt(path, labels, tmp_path / "o.onnx", preprocess="half")
    np.testing.assert_allclose(session.predict(PIXELS), expected("half"), atol=1e-5)
    assert b"external" not in (tmp_path / "o.onnx").read_bytes()
    (path.parent / "weights").unlink()
    with pytest.raises(ModelError, match=r"f\.onnx: is not a valid ONNX file \(.*weights"):
        adopt(path, labels, tmp_path / "p.onnx")
    os.mkfifo(path.parent / "weights")
    with pytest.raises(ModelError, match=r"f\.onnx: is not a valid ONNX file \(.*weights"):
        adopt(path, labels, tmp_path / "p.onnx")


def test_weights_in_a_file_that_is_a_link_are_refused_with_advice(tmp_path, labels):
    path = tmp_path / "apart" / "f.onnx"
    path.parent.mkdir()
    model = onnx.load(foreign(tmp_path / "f.onnx"))
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0, convert_attribute=True)
    (path.parent / "weights").rename(tmp_path / "blob")
    (path.parent / "weights").symlink_to(tmp_path / "blob")
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{path}: the file with its weights is a symbolic link, which is not followed; copy both files into a folder "
        f"(cp -L)"
    )


def test_the_pointer_that_git_lfs_leaves_for_a_model_is_named(tmp_path, labels):
    path = tmp_path / "f.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = f"{path}: is only the pointer of Git LFS to the model; get the file itself with `git lfs pull`"
    with pytest.raises(ModelError) as caught:
        adopt(path, labels, tmp_path / "o.onnx")
    assert str(caught.value) == message
    with pytest.raises(ModelError) as caught:
        open_session(path, "cpu")
    assert str(caught.value) == message


@pytest.mark.parametrize("what", ["model", "preprocess"])
def test_a_fifo_is_an_error(tmp_path, labels, what):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    model = fifo if what == "model" else foreign(tmp_path / "f.onnx")
    with pytest.raises((ModelError, UsageError)) as caught:
        adopt(model, labels, tmp_path / "o.onnx", preprocess=str(fifo) if what == "preprocess" else "half")
    kind = "an ONNX file" if what == "model" else "a JSON file"
    assert str(caught.value) == f"{fifo}: cannot be read (not a regular file); give {kind}"

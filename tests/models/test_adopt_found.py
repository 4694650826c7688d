"""adopt() with what comes with the model: configurations beside it, metadata in it, labelled photos."""

import contextlib
import hashlib
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import batchland
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from batchland._version import __version__
from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.adopt import AdoptOptions, adopt
from batchland.models.adopt_check import Alternative, undecided
from batchland.models.card import AdoptionSummary
from batchland.models.foreign_preprocess import ForeignPreprocess
from batchland.models.ort import CPU, create_session
from batchland.models.session import open_session

LABELS = ("red", "green", "blue")
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
WEIGHT = np.array([[3.0, -1, 0], [0, 2, -1], [-1, 0, 2]], np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def write_model(path, *, shape=("N", 3, 8, 8), outputs=("scores",), metadata=None, softmax=False):
    """A model whose logits are WEIGHT times the channels' means; further outputs are twice as large."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], keepdims=0, axes=[2, 3]),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
        helper.make_node("Softmax" if softmax else "Identity", ["logits"], [outputs[0]]),
        *(helper.make_node("Add", ["logits", "logits"], [name]) for name in outputs[1:]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "linear",
        [value("images", TensorProto.FLOAT, shape)],
        [value(name, TensorProto.FLOAT, ["N", 3]) for name in outputs],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def expected(pixels, mean=MEAN, std=STD, *, bgr=False, temperature=1.0):
    means = ((pixels / 255 - mean) / std).mean(axis=(1, 2))
    logits = (means[:, ::-1] if bgr else means) @ WEIGHT / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def write_json(path, values):
    path.write_text(json.dumps(values))


HUGGING_FACE = {
    "image_mean": list(MEAN), "image_std": list(STD), "size": {"height": 8, "width": 8}, "resample": 3,
    "image_processor_type": "ViTImageProcessor",
}  # fmt: skip


def test_hugging_face_files_beside_the_model(tmp_path):
    """As Optimum lays them: the model in onnx/, the files above it."""
    (tmp_path / "onnx").mkdir()
    model = write_model(tmp_path / "onnx" / "model.onnx")
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    write_json(tmp_path / "config.json", {"id2label": {str(index): name for index, name in enumerate(LABELS)}})
    session = adopt(model, tmp_path / "out.onnx")
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS), atol=1e-5)
    assert session.card.labels == LABELS
    assert (session.card.preprocess.fit, session.card.preprocess.filter) == ("squash", "bicubic")
    assert session.card.adoption == AdoptionSummary(
        source="model.onnx",
        source_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        classes_from="config.json",
        preprocess_from="preprocessor_config.json (Hugging Face)",
        mean=tuple(MEAN),
        std=tuple(STD),
        channels="rgb",
        layout="NCHW",
        input_type="float32",
        output_name="scores",
        softmax="added",
    )


def test_a_network_with_several_labels_for_an_image_is_rejected(tmp_path):
    model = write_model(tmp_path / "model.onnx")
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    write_json(
        tmp_path / "config.json", {"problem_type": "multi_label_classification", "id2label": dict(enumerate(LABELS))}
    )
    with pytest.raises(ModelError, match=r"config\.json: its model gives several labels to one image \(problem_type\)"):
        adopt(model, tmp_path / "out.onnx")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('{"id2label": {"0": "a", "1": "b", "9": "c"}}', "id2label does not give a label for each index from 0"),
        ('{"id2label": {"0": "a", "1": null, "2": "c"}}', "id2label does not give a label for each index from 0"),
        ('{"id2label": {"0": "a", "0": "b"}}', "has the key '0' 2 times"),
        ("[]", "is not a JSON object"),
        ("{", "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
    ],
)
def test_labels_of_a_configuration_that_cannot_be_used(tmp_path, labels, config, problem):
    """They matter only if no others are given."""
    model = write_model(tmp_path / "model.onnx")
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError) as caught:
        adopt(model, tmp_path / "out.onnx")
    assert str(caught.value) == f"{tmp_path / 'config.json'}: {problem}; correct it"
    assert caught.value.advice == "classes_instead"
    assert adopt(model, tmp_path / "out.onnx", AdoptOptions(classes=labels)).card.labels == LABELS


def test_labels_that_are_only_numbers_give_a_warning(tmp_path, caplog):
    """Those that transformers writes if nobody named the classes."""
    write_json(tmp_path / "config.json", {"id2label": {str(number): f"LABEL_{number}" for number in range(3)}})
    model = write_model(tmp_path / "model.onnx")
    adopt(model, tmp_path / "out.onnx", AdoptOptions(preprocess="unit"))
    assert caplog.messages == [
        f"{model}: the labels in config.json are only numbers (LABEL_0, ...); give a file with their names"
    ]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"image_mean": [0.5, 0.5]}, "mean: should be three finite numbers, of red, green and blue"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "std: should be three finite numbers, of red, green and blue"),
        (
            {"image_mean": [123.7, 116.3, 103.5]},
            "mean and std are for pixels from 0 to 1; divide values for 0 to 255 by 255",
        ),
    ],
)
def test_statistics_that_cannot_be_used(tmp_path, labels, values, problem):
    file = tmp_path / "preprocessor_config.json"
    write_json(file, HUGGING_FACE | values)
    with pytest.raises(UsageError) as caught:
        adopt(write_model(tmp_path / "f.onnx"), tmp_path / "o.onnx", AdoptOptions(classes=labels))
    assert str(caught.value) == f"{file}: {problem}"


def test_a_configuration_that_cannot_be_expressed_matters_only_if_it_is_needed(tmp_path):
    names = {str(index): name for index, name in enumerate(LABELS)}
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE | {"resample": 1})
    write_json(tmp_path / "config.json", {"id2label": names, "width": 3, "filter": "unrelated"})
    model = write_model(tmp_path / "f.onnx")
    with pytest.raises(UsageError) as caught:
        adopt(model, tmp_path / "o.onnx")
    assert str(caught.value) == (
        f"{tmp_path}/preprocessor_config.json: resample 1 is not supported; give a JSON file with a similar "
        f"preprocessing"
    )
    session = adopt(model, tmp_path / "o.onnx", AdoptOptions(preprocess="unit"))
    assert (session.card.labels, session.card.adoption.preprocess_from) == (LABELS, "the option unit")


def test_a_named_preprocessing_that_contradicts_the_model_s_own_gives_a_warning(tmp_path, labels, caplog):
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    model = write_model(tmp_path / "f.onnx")
    session = adopt(model, tmp_path / "o.onnx", AdoptOptions(classes=labels, preprocess="half"))
    assert session.card.adoption.mean == (0.5, 0.5, 0.5)
    assert caplog.messages == [
        f"{model}: preprocessor_config.json (Hugging Face) says mean (0.4, 0.5, 0.6), std (0.1, 0.2, 0.3), rgb; taken "
        f"as named: mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5), rgb"
    ]


def test_a_preset_takes_the_size_of_the_configuration(tmp_path, labels, caplog):
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    model = write_model(tmp_path / "f.onnx", shape=("batch_size", "num_channels", "height", "width"))
    session = adopt(model, tmp_path / "o.onnx", AdoptOptions(classes=labels, preprocess="half"))
    assert session.card.preprocess == PreprocessSpec(height=8, width=8)
    assert [message for message in caplog.messages if "leaves" in message] == []


def test_timm_config_with_labels(tmp_path):
    config = {
        "input_size": [3, 8, 8],
        "mean": list(MEAN),
        "std": list(STD),
        "crop_pct": 0.8,
        "interpolation": "bicubic",
    }
    names = {"n1": "red", "n2": "green", "n3": "blue"}
    write_json(
        tmp_path / "config.json",
        {"pretrained_cfg": config, "label_names": list(names), "label_descriptions": names},
    )
    session = adopt(write_model(tmp_path / "f.onnx"), tmp_path / "out.onnx")
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS), atol=1e-5)
    assert session.card.labels == LABELS
    assert session.card.preprocess.shorter_side == 10
    assert session.card.adoption.preprocess_from == "config.json (timm)"


def test_ultralytics_metadata(tmp_path):
    metadata = {"task": "classify", "names": "{0: 'red', 1: 'green', 2: 'blue'}", "imgsz": "[8, 8]"}
    model = write_model(tmp_path / "yolo.onnx", metadata=metadata, softmax=True)
    session = adopt(model, tmp_path / "out.onnx")
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS, 0, 1), atol=1e-5)
    assert session.card.labels == LABELS
    assert (session.card.preprocess.fit, session.card.preprocess.shorter_side) == ("crop", 8)
    assert (session.card.adoption.softmax, session.card.adoption.classes_from) == (
        "found", "the model's metadata (Ultralytics)",
    )  # fmt: skip


YOLOV8 = {
    "description": "Ultralytics YOLOv8n-cls model trained on colours", "author": "Ultralytics", "version": "8.2.103",
    "date": "2024-09-30T10:00:00", "license": "AGPL-3.0 License (https://ultralytics.com/license)", "stride": "1",
    "docs": "https://docs.ultralytics.com", "task": "classify", "batch": "1", "imgsz": "[8, 8]",
    "names": "{0: 'red', 1: \"painter's green\", 2: 'red'}",
}  # fmt: skip
YOLO11 = YOLOV8 | {
    "description": "Ultralytics YOLO11n-cls model trained on colours", "version": "8.3.200", "channels": "3",
    "args": "{'batch': 1, 'half': False, 'dynamic': True, 'simplify': True, 'opset': 19, 'nms': False}",
    "end2end": "False",
}  # fmt: skip


@pytest.mark.parametrize("metadata", [YOLOV8, YOLO11])
def test_metadata_of_ultralytics_exports(tmp_path, metadata, caplog):
    """Also with equal labels, of which ImageNet has several."""
    model = write_model(tmp_path / "yolo.onnx", metadata=metadata, softmax=True)
    session = adopt(model, tmp_path / "out.onnx")
    assert session.card.labels == ("red (0)", "painter's green", "red (2)")
    assert caplog.messages == [f"{model}: red appears more than once; their indices are appended"]
    assert session.card.preprocess == PreprocessSpec(height=8, width=8, fit="crop", shorter_side=8)
    assert (session.card.adoption.mean, session.card.adoption.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("names", ["['red', 'green', 'blue']", "{1: 'red', 2: 'green', 3: 'blue'}", "open('x', 'w')"])
def test_names_of_ultralytics_may_be_a_list(tmp_path, names):
    model = write_model(tmp_path / "yolo.onnx", metadata=YOLO11 | {"names": names}, softmax=True)
    if names.startswith("["):
        assert adopt(model, tmp_path / "out.onnx").card.labels == LABELS
        return
    with pytest.raises(UsageError) as caught:
        adopt(model, tmp_path / "out.onnx")
    assert str(caught.value) == (
        f"{model}: names in its metadata does not give a label for each index from 0; correct it"
    )


def test_no_other_task_of_ultralytics_is_adopted(tmp_path):
    model = write_model(tmp_path / "yolo.onnx", metadata=YOLO11 | {"task": "detect"})
    with pytest.raises(ModelError) as caught:
        adopt(model, tmp_path / "o.onnx")
    assert str(caught.value) == f"{model}: its metadata says task detect; only classifiers can be adopted"


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS) + "\n")
    return path


def test_nothing_is_assumed(tmp_path, labels):
    model = write_model(tmp_path / "f.onnx")
    done = batchland("adopt", model, "--out", tmp_path / "o.onnx", "--preprocess", "unit")
    assert (done.exit_code, done.stderr) == (
        2,
        f"batchland: {model}: there are no labels in the model, nor in config.json beside it; give them with "
        f"--classes\n",
    )
    done = batchland("adopt", model, "--out", tmp_path / "o.onnx", "--classes", labels)
    assert (done.exit_code, done.stderr) == (
        2,
        f"batchland: {model}: there is no preprocessing in the model, nor in a configuration beside it; name it "
        f"with --preprocess\n",
    )


def test_bgr_is_part_of_the_graph(tmp_path, labels):
    spec = tmp_path / "spec.json"
    write_json(spec, {"height": 8, "width": 8, "mean": list(MEAN), "std": list(STD), "channels": "bgr"})
    session = adopt(
        write_model(tmp_path / "f.onnx"), tmp_path / "o.onnx", AdoptOptions(classes=labels, preprocess=str(spec))
    )
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS, bgr=True), atol=1e-5)
    assert session.card.adoption.channels == "bgr"


def test_the_output_of_a_name_is_taken(tmp_path, labels):
    model = write_model(tmp_path / "f.onnx", outputs=("scores", "aux"))
    done = batchland("adopt", model, "--out", tmp_path / "o.onnx", "--classes", labels, "--preprocess", "unit")
    assert (done.exit_code, done.stderr) == (
        5,
        f"batchland: {model}: 2 of its outputs have 3 numbers per picture, as there are labels: scores, aux; name it "
        f"with --output-name\n",
    )
    options = AdoptOptions(classes=labels, preprocess="unit", output_name="aux")
    session = adopt(model, tmp_path / "o.onnx", options)
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS, 0, 1, temperature=0.5), atol=1e-5)
    assert session.card.adoption.output_name == "aux"
    with pytest.raises(UsageError) as caught:
        adopt(model, tmp_path / "p.onnx", options.model_copy(update={"output_name": "loss"}))
    assert str(caught.value) == f"{model}: has no float output loss; its outputs are scores, aux"


def with_opset(path, opset, ir_version, weight=WEIGHT):
    """A model of operators that are the same in all of them."""
    value = helper.make_tensor_value_info
    constants = {"weight": weight, "bias": np.zeros(len(weight.T))}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [value("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("scores", TensorProto.FLOAT, ["N", weight.shape[1]])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("opset", "ir_version"), [(9, 4), (13, 8), (18, 10), (20, 10)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_opset_and_the_ir_version_stay(tmp_path, labels, opset, ir_version, precision):
    """TensorRT 10 takes opset 9 to 20, TensorRT 11 to 25. Each domain is imported once."""
    options = AdoptOptions(classes=labels, preprocess="unit", precision=precision)
    adopt(with_opset(tmp_path / "f.onnx", opset, ir_version), tmp_path / "o.onnx", options)
    model = onnx.load(tmp_path / "o.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
    assert model.ir_version == ir_version


@pytest.mark.parametrize(("opset", "ir_version"), [(18, onnx.IR_VERSION), (onnx.defs.onnx_opset_version(), 10)])
def test_an_opset_that_onnxruntime_does_not_read_is_named(tmp_path, labels, opset, ir_version):
    """onnx knows the next version of both before onnxruntime does."""
    model = with_opset(tmp_path / "f.onnx", opset, ir_version)
    with contextlib.suppress(Exception):
        create_session(model.read_bytes(), [(CPU, {})])
        pytest.skip("onnxruntime reads it")
    with pytest.raises(ModelError) as caught:
        adopt(model, tmp_path / "o.onnx", AdoptOptions(classes=labels, preprocess="unit"))
    assert str(caught.value) == (
        f"{model}: has opset {opset} and IR version {ir_version}, which onnxruntime {onnxruntime.__version__} does not "
        f"read; export it with opset 18, or update onnxruntime"
    )


def test_a_thousand_classes_read_well(tmp_path):
    """The first ones, two of one name, commas in names, and lines broken after commas."""
    names = ["crane, bird", *(f"name {number}, other name {number}" for number in range(1, 999)), "crane, bird"]
    write_json(tmp_path / "config.json", {"id2label": dict(enumerate(names))})
    write_json(tmp_path / "preprocessor_config.json", HUGGING_FACE)
    weight = np.zeros((3, 1000), np.float32)
    weight[:, [0, 7, 999]] = 5 * np.eye(3)
    model = with_opset(tmp_path / "f.onnx", 13, 8, weight)
    adopt(model, tmp_path / "o.onnx")
    lines = batchland("inspect", tmp_path / "o.onnx").stdout.splitlines()
    assert lines[6:] == [
        "features      3",
        f"versions      batchland {__version__}, onnx {onnx.__version__}",
        f"adoption      source f.onnx, source_sha256 {hashlib.sha256(model.read_bytes()).hexdigest()},",
        "              classes_from config.json, preprocess_from preprocessor_config.json (Hugging Face),",
        "              mean (0.4, 0.5, 0.6), std (0.1, 0.2, 0.3), channels rgb, layout NCHW, input_type float32,",
        "              output_name scores, softmax added, precision fp32",
        "classes       1000",
        "            0 crane, bird (0)",
        *(f"            {number} name {number}, other name {number}" for number in range(1, 10)),
        "              and 990 more; --json lists all",
    ]
    for name, colour in {"red": (130, 128, 150), "blue": (102, 128, 255)}.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    shown = batchland("predict", tmp_path / "red.png", tmp_path / "blue.png", "-m", tmp_path / "o.onnx", "-k", 2)
    assert shown.stdout.splitlines() == [
        str(tmp_path / "red.png"),
        "  1  crane, bird (0)       19.5%",
        "  2  name 7, other name 7   0.1%",
        str(tmp_path / "blue.png"),
        "  1  crane, bird (999)     44.0%",
        "  2  name 7, other name 7   0.1%",
    ]


@pytest.fixture
def photos(tmp_path):
    """Twenty photos a class, whose mean colours lie around MEAN: only its statistics tell them apart."""
    rng = np.random.default_rng(0)
    colours = {"red": [0.3, -0.1, -0.1], "green": [0.0, 0.3, 0.0], "blue": [-0.05, -0.1, 0.3]}
    for name, colour in colours.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            mean = 255 * (MEAN + STD * (np.array(colour) + rng.normal(0, 0.3, 3)))
            pixels = np.clip(mean + rng.normal(0, 5, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def right_spec(tmp_path):
    path = tmp_path / "right.json"
    write_json(path, {"height": 8, "width": 8, "mean": list(MEAN), "std": list(STD)})
    return path


def test_check_prints_every_preprocessing_and_refuses_a_worse_one(tmp_path, labels, photos, right_spec):
    model = write_model(tmp_path / "f.onnx")
    options = ["--classes", labels, "--check", photos]
    done = batchland("adopt", model, "--out", tmp_path / "o.onnx", "--preprocess", right_spec, *options)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split(None, 1) == ["top-1", "preprocessing"]
    assert lines[1].endswith("as chosen")
    assert {line.split(None, 1)[1] for line in lines[2:-1]} == {
        "fit crop", "channels bgr", *(f"mean and std of {name}" for name in ("imagenet", "half", "unit", "byte")),
        *(f"{name}, fit crop" for name in ("imagenet", "half", "unit", "byte")),
    }  # fmt: skip
    adoption = open_session(tmp_path / "o.onnx", "cpu").card.adoption
    assert adoption.checked_images == 60
    assert adoption.checked_accuracy > 0.6
    right = f"{adoption.checked_accuracy:.1%}"
    swapped = tmp_path / "swapped.json"
    write_json(swapped, json.loads(right_spec.read_text()) | {"channels": "bgr"})
    done = batchland("adopt", model, "--out", tmp_path / "p.onnx", "--preprocess", swapped, *options)
    assert done.exit_code == 5
    assert done.stderr.startswith(f"batchland: {model}: the preprocessing is wrong: ")
    assert done.stderr.endswith("; give that with --preprocess\n")
    assert f"of 60 labelled photos are right with it, {right} with " in done.stderr
    assert not (tmp_path / "p.onnx").exists()


def test_a_check_says_what_it_does_not_decide():
    def alternative(name, right, fit="squash"):
        spec = ForeignPreprocess(height=8, width=8, fit=fit, shorter_side=9 if fit == "crop" else None)
        return Alternative(name, spec, np.array(right, bool))

    chosen = alternative("as chosen", [1, 1, 0, 0] * 5)
    worse = alternative("unit", [1, 0, 0, 0] * 5)
    assert undecided([chosen, worse]) == ""
    assert undecided([chosen, alternative("half", [0, 0, 1, 1] * 5), worse]) == (
        "note: half is as good: these photos do not tell which one is right\n"
    )
    equal = [alternative(name, [1, 1, 0, 0] * 5) for name in ("half", "channels bgr")]
    assert undecided([chosen, *equal, worse]) == (
        "note: half, channels bgr are as good: these photos do not tell which one is right\n"
    )
    assert undecided([chosen, alternative("half", [1, 1, 1, 0] + [1, 1, 0, 0] * 4), worse]) == (
        "note: half is better, but within chance (p = 1.000): check on more photos\n"
    )
    assert undecided([chosen, alternative("fit crop", [1] * 20, "crop"), worse]) == (
        "note: fit crop is better (p = 0.002); the check does not decide about the fit\n"
    )


def test_a_close_check_is_decided_on_more_photos(tmp_path, labels, photos, right_spec, monkeypatch):
    """Six photos do not tell the order of the channels; sixty do."""
    monkeypatch.setattr("batchland.models.adopt._MAX_CHECKED", 6)
    swapped = tmp_path / "swapped.json"
    write_json(swapped, json.loads(right_spec.read_text()) | {"channels": "bgr"})
    model = write_model(tmp_path / "f.onnx")
    done = batchland(
        "adopt", model, "--out", tmp_path / "p.onnx", "--preprocess", swapped, "--classes", labels, "--check", photos
    )
    assert done.exit_code == 5
    assert [line.partition(", ")[2] for line in done.stdout.splitlines() if " photos" in line] == ["60 photos"] * 2
    assert done.stderr.startswith(f"batchland: {model}: the preprocessing is wrong: ")
    assert " of 60 labelled photos are right with it, " in done.stderr


@pytest.mark.parametrize("softmax", [False, True])
def test_calibrate_fits_the_temperature(tmp_path, labels, photos, right_spec, softmax):
    """For logits and for probabilities alike."""
    options = AdoptOptions(classes=labels, preprocess=str(right_spec), calibrate=photos)
    session = adopt(write_model(tmp_path / "f.onnx", softmax=softmax), tmp_path / "o.onnx", options)
    adoption = session.card.adoption
    assert adoption.calibration_images == 60
    assert adoption.temperature == pytest.approx(0.72, abs=0.01)
    np.testing.assert_allclose(session.predict(PIXELS), expected(PIXELS, temperature=adoption.temperature), atol=1e-4)


@pytest.mark.parametrize("option", ["check", "calibrate"])
def test_labels_in_another_order_give_a_warning(tmp_path, labels, photos, right_spec, option, caplog):
    labels.write_text("green\nblue\nred\n")
    options = AdoptOptions(classes=labels, preprocess=str(right_spec), **{option: photos})
    adopt(model := write_model(tmp_path / "f.onnx"), tmp_path / "o.onnx", options)
    (message,) = (message for message in caplog.messages if "guessing" in message)
    assert re.fullmatch(
        rf"{model}: \d+ of 60 labelled photos are right, which is not clearly better than guessing; do the labels have "
        r"the order of the model's outputs\?",
        message,
    )


def test_few_photos_for_the_temperature_give_a_warning(tmp_path, labels, photos, right_spec, caplog):
    kept = next(photos.glob("*/*"))
    for path in photos.glob("*/*"):
        if path != kept:
            path.unlink()
    options = AdoptOptions(classes=labels, preprocess=str(right_spec), calibrate=photos)
    adopt(write_model(tmp_path / "f.onnx"), tmp_path / "o.onnx", options)
    assert caplog.messages == [f"{photos}: 1 photo is too few to fit a temperature; give 50 or more"]


def test_photos_of_unknown_classes_are_an_error(tmp_path, labels, photos, right_spec):
    (photos / "blue").rename(photos / "bluu")
    with pytest.raises(UsageError) as caught:
        adopt(
            write_model(tmp_path / "f.onnx"),
            tmp_path / "o.onnx",
            AdoptOptions(classes=labels, preprocess=str(right_spec), check=photos),
        )
    assert str(caught.value) == (
        f"{photos}: 1 class name that the model does not have: 'bluu' (did you mean 'blue'?); the model's classes are "
        f"'red', 'green', 'blue'; correct the names"
    )

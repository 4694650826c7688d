"""Export: one ONNX file, and only if it agrees with PyTorch."""

import logging
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from commands import batchland
from PIL import Image

from batchland.cli.train import print_export
from batchland.errors import ModelError, OutputError, UsageError
from batchland.images.preprocess import preprocess
from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.session import open_session
from batchland.training import export as export_module
from batchland.training.agreement import TOLERANCES
from batchland.training.export import export
from batchland.training.models import ServedModel, build
from batchland.training.options import ExportOptions, Precision, TrainOptions
from batchland.training.precision import quantise
from batchland.training.train import TrainedModel, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedModel]:
    """Both models, after eight epochs on ten pictures of each of three colours."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, colour in {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}.items():
        (root / "train" / folder).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / folder / f"{number}.jpg")
    options = TrainOptions(size=32, num_workers=0, batch_size=8, weights="none", views=1, epochs=8, device="cpu")
    models = train(root, tmp_path_factory.mktemp("runs"), options)
    return {model.card.name: model for model in models}


def in_torch(model: TrainedModel, pixels: np.ndarray, temperature: float) -> np.ndarray:
    served = build(model.card.name, 3, model.card.preprocess)  # type: ignore[arg-type]
    served.load_state_dict(torch.load(model.checkpoint, weights_only=True)["state"])
    served.temperature.fill_(temperature)
    with torch.inference_mode():
        probabilities: np.ndarray = served.eval()(torch.from_numpy(pixels)).numpy()
    return probabilities


@pytest.mark.parametrize("name", ["scratch", "transfer"])
def test_the_exported_model_answers_as_the_checkpoint(
    trained: dict[str, TrainedModel], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, out = trained[name], tmp_path / "models" / f"{name}.onnx"
    report = export(model.checkpoint.parent, out)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in out.parent.iterdir()] == [f"{name}.onnx"]
    session = open_session(out, "cpu")
    assert session.card == report.card
    assert session.card.model_copy(update={"export": None}) == model.card
    summary = session.card.export
    assert summary is not None
    assert (summary.precision, summary.validation_images) == ("fp32", 6)
    assert summary.validation_accuracy == summary.accuracy_fp32 == model.card.training.validation_accuracy
    assert (report.sha256, report.size, report.opset) == (session.sha256, out.stat().st_size, 18)
    for count in (1, 2, 7, 40):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        probabilities = session.predict(pixels)
        assert probabilities.shape == (count, 3)
        assert np.abs(probabilities - in_torch(model, pixels, summary.temperature)).max() < 5e-5
    assert report.images == 6
    assert [(each.batch, each.same_top1) for each in report.agreement] == [(1, 1), (32, 32), (13, 13)]
    assert report.largest_difference == max(each.largest_difference for each in report.agreement) < 5e-5


def test_the_file_keeps_the_contract(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    export(trained["scratch"].checkpoint, tmp_path / "scratch.onnx")
    model = onnx.load(tmp_path / "scratch.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    (image_input,), (output,) = model.graph.input, model.graph.output
    assert (image_input.name, image_input.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert (output.name, output.type.tensor_type.elem_type) == ("probabilities", onnx.TensorProto.FLOAT)
    dims = [dim.dim_param or dim.dim_value for dim in image_input.type.tensor_type.shape.dim]
    assert dims == ["batch", 32, 32, 3]
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["batch", 3]
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    assert ModelCard.from_json(entry.value, "file").classes == trained["scratch"].card.classes


@pytest.mark.parametrize(
    ("name", "precision", "share"),
    [
        ("scratch", "fp16", 0.5),
        ("scratch", "int8", 0.25),
        pytest.param("transfer", "fp16", 0.5, marks=pytest.mark.slow),
    ],
)
def test_fewer_bits_keep_the_contract_and_nearly_the_answers(
    trained: dict[str, TrainedModel], tmp_path: Path, name: str, precision: Precision, share: float
) -> None:
    root = logging.getLogger()
    level = root.level
    plain = export(trained[name].checkpoint, tmp_path / "plain.onnx")
    small = export(trained[name].checkpoint, tmp_path / "small.onnx", ExportOptions(precision=precision))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.onnx", "small.onnx"]
    assert root.level == level
    assert share < small.size / plain.size < share + 0.1
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    summary, reference = small.card.export, plain.card.export
    assert summary is not None
    assert reference is not None
    assert open_session(tmp_path / "small.onnx", "cpu").card == small.card
    assert (summary.precision, summary.temperature) == (precision, reference.temperature)
    assert (summary.accuracy_fp32, summary.validation_accuracy) == (reference.accuracy_fp32,) * 2
    assert 0 < summary.largest_difference < TOLERANCES[precision]


def test_int8_weights_are_per_channel_and_the_ends_stay_in_float(
    trained: dict[str, TrainedModel], tmp_path: Path
) -> None:
    export(trained["scratch"].checkpoint, tmp_path / "int8.onnx", ExportOptions(precision="int8"))
    model = onnx.load(tmp_path / "int8.onnx")
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    kinds = [node.op_type for node in model.graph.node]
    makers = {output: node for node in model.graph.node for output in node.output}
    quantised = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            source = makers.get(node.input[1])
            quantised.append(source is not None and source.op_type == "DequantizeLinear")
            if quantised[-1]:
                assert weights[source.input[0]].dtype == np.int8
                assert np.abs(weights[source.input[0]].astype(int)).max() <= 64  # 7 bits
                assert len(weights[source.input[1]]) == max(weights[source.input[0]].shape[0], 1)
    assert quantised == [True, True, True, True, True, False]
    assert kinds.index("QuantizeLinear") > kinds.index("Sub")
    assert kinds[-1] == "Softmax"


@pytest.mark.parametrize(
    ("precision", "accuracy", "told"),
    [
        ("fp32", 0.75, "75.0%;"),
        ("fp16", 0.75, "75.0%, as in fp32;"),
        ("int8", 0.7483, "74.8%, 0.17 points less than in fp32;"),
        ("int8", 0.7517, "75.2%, 0.17 points more than in fp32;"),
    ],
)
def test_accuracy_is_held_against_that_of_fp32(
    trained: dict[str, TrainedModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    accuracy: float,
    told: str,
) -> None:
    report = export(trained["scratch"].checkpoint, tmp_path / "m.onnx")
    assert report.card.export is not None
    summary = report.card.export.model_copy(
        update={"precision": precision, "validation_accuracy": accuracy, "accuracy_fp32": 0.75}
    )
    print_export(replace(report, card=report.card.model_copy(update={"export": summary})))
    assert f"; validation accuracy {told} temperature " in capsys.readouterr().out


def test_the_command_tells_what_was_lost_and_the_card_keeps_it(
    trained: dict[str, TrainedModel], tmp_path: Path
) -> None:
    out = tmp_path / "small.onnx"
    run = str(trained["scratch"].checkpoint.parent)
    result = batchland("export", run, "--out", out, "--precision", "fp16", "--max-drop", "0")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(
        rf"{out}: fp16, 3\.\d MB; validation accuracy 100\.0%, as in fp32; temperature "
        r"\d\.\d\d \(validation loss 0\.\d{4} before, 0\.\d{4} with it\); agrees with PyTorch on the first class of "
        r"46 of 46 answers \(batches of 1, 32, 13\), largest difference \d\.\de-0\d \(allowed 0\.02\)\n",
        result.stdout,
    )
    shown = batchland("inspect", out)
    assert "export        precision fp16, temperature " in shown.stdout
    assert "validation_images 6, validation_accuracy 1.0" in shown.stdout


def test_what_loses_too_much_accuracy_is_not_published(
    trained: dict[str, TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantiser gives way to one that always answers with the first class."""

    def crude(path: Path, calibration: object) -> None:
        model = onnx.load(path)
        (bias,) = [each for each in model.graph.initializer if each.dims == [3] and "bias" in each.name]
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([50, 0, 0], np.float32), bias.name))
        onnx.save(model, path)

    monkeypatch.setattr(export_module, "quantise", crude)
    monkeypatch.setitem(TOLERANCES, "int8", 1.0)
    accuracy = trained["scratch"].card.training.validation_accuracy  # type: ignore[union-attr]
    options = ExportOptions(precision="int8", max_drop=1.5)
    with pytest.raises(ModelError) as caught:
        export(trained["scratch"].checkpoint, tmp_path / "int8.onnx", options)
    assert str(caught.value) == (
        f"{tmp_path}/int8.onnx: not written, int8 loses {100 * (accuracy - 1 / 3):.2f} points of top-1 on the "
        f"validation images (33.33% after {accuracy:.2%}), and --max-drop allows 1.5; use another --precision"
    )
    assert list(tmp_path.iterdir()) == []
    assert export(trained["scratch"].checkpoint, tmp_path / "int8.onnx", ExportOptions(precision="int8", max_drop=99))


def test_other_classes_than_the_model_learned_are_refused(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    checkpoint = torch.load(trained["scratch"].checkpoint, weights_only=True)
    shutil.copytree(checkpoint["data"], tmp_path / "data")
    (tmp_path / "data" / "blue").rename(tmp_path / "data" / "teal")
    with pytest.raises(UsageError, match="it lacks 'blue' and has 'teal'; give the data it was trained on"):
        export(trained["scratch"].checkpoint, tmp_path / "scratch.onnx", ExportOptions(data=tmp_path / "data"))
    assert not (tmp_path / "scratch.onnx").exists()


def test_scoring_a_training_file_gives_what_training_saw(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    model = trained["scratch"]
    checkpoint = torch.load(model.checkpoint, weights_only=True)
    export(model.checkpoint, tmp_path / "scratch.onnx")
    session = open_session(tmp_path / "scratch.onnx", "cpu")
    losses = []
    for name in checkpoint["validation"]:
        pixels = preprocess((Path(checkpoint["data"]) / name).read_bytes(), session.card.preprocess)
        place = session.card.folders.index(name.split("/")[0])
        losses.append(-np.log(session.predict(pixels[None])[0, place]))
    assert model.card.training is not None
    assert session.card.export is not None
    assert np.mean(losses) == pytest.approx(session.card.export.validation_loss, rel=1e-3)
    assert np.mean(losses) < model.card.training.validation_loss


@pytest.mark.parametrize(("change", "says"), [("shift", "0 with another first class"), ("turn", "another first class")])
def test_a_file_that_disagrees_is_not_published(
    trained: dict[str, TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    """The exporter gets a model with other weights than the checkpoint's: a wrong graph, seen from outside."""
    write = export_module.write_onnx

    def wrong(model: ServedModel, card: ModelCard, path: Path) -> None:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if change == "shift":
            model.network[-1].bias.data += torch.tensor([0.0, 0.01, 0.0])  # type: ignore[index]
        else:
            model.network[-1].bias.data += torch.tensor([0.0, 50.0, 0.0])  # type: ignore[index]
        write(model, card, path)
        model.load_state_dict(state)

    monkeypatch.setattr(export_module, "write_onnx", wrong)
    out = tmp_path / "scratch.onnx"
    with pytest.raises(ModelError, match="not written, the fp32 file disagrees with PyTorch on a batch of") as caught:
        export(trained["scratch"].checkpoint, out)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"yesterday's model")
    with pytest.raises(ModelError):
        export(trained["scratch"].checkpoint, out)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch.onnx"]
    assert out.read_bytes() == b"yesterday's model"


def test_data_that_has_moved_must_be_named(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    model = trained["scratch"]
    checkpoint = torch.load(model.checkpoint, weights_only=True)
    shutil.copytree(Path(checkpoint["data"]).parent, tmp_path / "moved")
    checkpoint["data"] = "/gone/train"
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    first = f"/gone/train/{checkpoint['validation'][0]}"
    with pytest.raises(UsageError) as caught:
        export(tmp_path, tmp_path / "scratch.onnx")
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint.pt: its validation image {first} cannot be read (No such file or directory), and "
        f"without it the export cannot be checked; give where it lies now with --data"
    )
    assert not (tmp_path / "scratch.onnx").exists()
    for data in (tmp_path / "moved", tmp_path / "moved" / "train"):
        assert export(tmp_path, tmp_path / "scratch.onnx", ExportOptions(data=data)).images == 6
    with pytest.raises(UsageError, match="give the data it was trained on"):
        export(tmp_path, tmp_path / "scratch.onnx", ExportOptions(data=tmp_path))


def test_where_the_file_goes_is_looked_at_first(tmp_path: Path) -> None:
    """Before the checkpoint is read, not to speak of what takes minutes."""
    run = tmp_path / "no-run"
    with pytest.raises(UsageError) as caught:
        export(run, tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; give the name of a file that ends in .onnx"
    with pytest.raises(OutputError, match=r"^/proc/x\.onnx: cannot be written \(.*\)$"):
        export(run, Path("/proc/x.onnx"))


def test_files_that_are_no_checkpoint_are_refused(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            export(path, tmp_path / "out.onnx")
        assert not (tmp_path / "out.onnx").exists()
        return str(caught.value)

    file = tmp_path / "checkpoint.pt"
    gives = "give a run folder that `batchland train` wrote"
    assert message(tmp_path) == f"{file}: cannot be read (No such file or directory); {gives}"
    content = trained["scratch"].checkpoint.read_bytes()
    damaged = f"{file}: not a checkpoint of `batchland train`, or a damaged one; train again"
    for bad in (b"", b"text", content[: len(content) // 2]):
        file.write_bytes(bad)
        assert message(tmp_path) == damaged
    torch.save({"format": 2}, file)
    assert message(file) == f"{file}: not a checkpoint that this version of batchland reads; train again"


def test_the_exporter_leaves_loggers_and_warnings_as_they_were(
    trained: dict[str, TrainedModel], tmp_path: Path
) -> None:
    levels = {name: logging.getLogger(name).level for name in ("torch", "onnxscript", "onnx_ir")}
    filters = list(warnings.filters)
    export(trained["scratch"].checkpoint, tmp_path / "scratch.onnx")
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert list(warnings.filters) == filters


@pytest.mark.slow
def test_a_residual_network_is_quantised(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    """The file's form, not its accuracy: random weights that learnt on a few colours say nothing about that."""
    plain = export(trained["transfer"].checkpoint, tmp_path / "plain.onnx")
    small = tmp_path / "small.onnx"
    shutil.copy(plain.path, small)
    pixels = np.random.default_rng(0).integers(0, 256, (9, *plain.card.preprocess.shape), dtype=np.uint8)
    quantise(small, iter([pixels]))
    assert 0.25 < small.stat().st_size / plain.size < 0.35
    probabilities = open_session(small, "cpu").predict(pixels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

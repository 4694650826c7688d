"""Export: one ONNX file, and only if it agrees with PyTorch."""

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from batchland.errors import ModelError, UsageError
from batchland.model_card import METADATA_KEY, ModelCard
from batchland.preprocess import preprocess
from batchland.session import open_session
from batchland.training import export as export_module
from batchland.training.export import ExportOptions, export
from batchland.training.models import ServedModel, build
from batchland.training.train import TrainedModel, TrainOptions, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedModel]:
    """Both models, after two epochs on ten pictures of each of three colours."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, colour in {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}.items():
        (root / "train" / folder).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / folder / f"{number}.jpg")
    options = TrainOptions(size=32, num_workers=0, batch_size=8, weights="none", views=1, epochs=2, device="cpu")
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
    write = export_module._write_onnx

    def wrong(model: ServedModel, card: ModelCard, path: Path) -> None:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if change == "shift":
            model.network[-1].bias.data += torch.tensor([0.0, 0.01, 0.0])  # type: ignore[index]
        else:
            model.network[-1].bias.data += torch.tensor([0.0, 50.0, 0.0])  # type: ignore[index]
        write(model, card, path)
        model.load_state_dict(state)

    monkeypatch.setattr(export_module, "_write_onnx", wrong)
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

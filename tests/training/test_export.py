"""Export: one ONNX file, and only if it agrees with PyTorch."""

import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from commands import batchland
from toys import toy_card, write_toy_model
from trained_models import Exported

from batchland.cli.train import print_export
from batchland.errors import ModelError, OutputError, UsageError
from batchland.images.preprocess import preprocess
from batchland.models import int8 as int8_module
from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.quantiser import measure_ranges, prepare, quantise
from batchland.models.session import open_session
from batchland.training import export as export_module
from batchland.training.agreement import TOLERANCES, require_accuracy
from batchland.training.export import ExportReport, export, write_onnx
from batchland.training.models import ServedModel, build
from batchland.training.options import ExportOptions, Precision
from batchland.training.train import TrainedModel


@pytest.fixture(scope="module", autouse=True)
def _one_method_of_calibration() -> Iterator[None]:
    """Entropy takes many seconds; tests/models/test_int8.py tries all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_module, "METHODS", ("minmax",))
        yield


@contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """Redirect stdout and stderr of Python and of C libraries."""
    kept = [os.dup(1), os.dup(2)]
    try:
        with path.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@pytest.fixture(scope="module")
def int8(trained: dict[str, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The scratch model in int8. Read-only. Its export printed nothing and restored loggers and warnings."""
    out = tmp_path_factory.mktemp("models") / "int8.onnx"
    printed = tmp_path_factory.mktemp("printed") / "all"
    levels = {name: logging.getLogger(name).level for name in ("", "torch", "onnxscript", "onnx_ir")}
    filters = list(warnings.filters)
    with printing_to(printed):
        report = export(trained["scratch"].checkpoint, out, ExportOptions(precision="int8", allow_slower=True))
    assert printed.read_text() == ""
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert list(warnings.filters) == filters
    return report


def in_torch(model: TrainedModel, pixels: np.ndarray, temperature: float) -> np.ndarray:
    served = build(model.card.name, 3, model.card.preprocess, "timm/test_resnet", "linear", batch_norm=True)  # type: ignore[arg-type]
    served.load_state_dict(torch.load(model.checkpoint, weights_only=True)["state"])
    served.temperature.fill_(temperature)
    with torch.inference_mode():
        probabilities: np.ndarray = served.eval()(torch.from_numpy(pixels)).numpy()
    return probabilities


@pytest.mark.parametrize("name", ["scratch", "transfer"])
def test_exported_file_agrees_with_the_checkpoint(
    trained: dict[str, TrainedModel], exported: dict[str, ExportReport], name: str
) -> None:
    model, report = trained[name], exported[name]
    session = open_session(report.path, "cpu")
    assert session.card == report.card
    assert session.card.model_copy(update={"export": None, "features": None}) == model.card
    assert session.card.features == {"scratch": 512, "transfer": 96}[name]
    summary = session.card.export
    assert summary is not None
    assert model.card.training is not None
    assert (summary.precision, summary.validation_images) == ("fp32", 6)
    assert summary.validation_accuracy == summary.accuracy_fp32 == model.card.training.validation_accuracy
    assert (report.sha256, report.size, report.opset) == (session.sha256, report.path.stat().st_size, 18)
    for count in (1, 2, 7, 40):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        probabilities = session.predict(pixels)
        assert probabilities.shape == (count, 3)
        assert np.abs(probabilities - in_torch(model, pixels, summary.temperature)).max() <= TOLERANCES["fp32"]
    assert report.images == 6
    assert [each.batch for each in report.agreement] == [1, 32, 13]
    assert report.largest_difference == max(each.largest_difference for each in report.agreement) <= TOLERANCES["fp32"]


def test_file_has_the_stated_inputs_and_outputs(
    trained: dict[str, TrainedModel], exported: dict[str, ExportReport]
) -> None:
    assert [path.name for path in sorted(exported["scratch"].path.parent.iterdir())] == [
        "scratch.canaries.parquet",
        "scratch.onnx",
        "transfer.canaries.parquet",
        "transfer.onnx",
    ]
    model = onnx.load(exported["scratch"].path)
    onnx.checker.check_model(model, full_check=True)
    assert ([(each.domain, each.version) for each in model.opset_import], model.ir_version) == ([("", 18)], 10)
    (image_input,), (output, features) = model.graph.input, model.graph.output
    assert (image_input.name, image_input.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert (output.name, output.type.tensor_type.elem_type) == ("probabilities", onnx.TensorProto.FLOAT)
    assert (features.name, features.type.tensor_type.elem_type) == ("features", onnx.TensorProto.FLOAT)
    dims = [dim.dim_param or dim.dim_value for dim in image_input.type.tensor_type.shape.dim]
    assert dims == ["batch", 32, 32, 3]
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["batch", 3]
    assert [dim.dim_param or dim.dim_value for dim in features.type.tensor_type.shape.dim] == ["batch", 512]
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    assert ModelCard.from_json(entry.value, "file").classes == trained["scratch"].card.classes


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.5), ("int8", 0.25)])
def test_lower_precision_is_smaller_and_nearly_as_exact(
    exported: dict[str, ExportReport],
    int8: ExportReport,
    fp16: Exported,
    precision: Precision,
    share: float,
) -> None:
    plain = exported["scratch"]
    path = int8.path if precision == "int8" else fp16[0]
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [f"{precision}.canaries.parquet", f"{precision}.onnx"]
    assert share < path.stat().st_size / plain.size < share + 0.1
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert ([(each.domain, each.version) for each in model.opset_import], model.ir_version) == ([("", 18)], 10)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    card = open_session(path, "cpu").card
    assert precision == "fp16" or card == int8.card
    summary, reference = card.export, plain.card.export
    assert summary is not None
    assert reference is not None
    assert (summary.precision, summary.temperature) == (precision, reference.temperature)
    assert (summary.accuracy_fp32, summary.validation_accuracy) == (reference.accuracy_fp32,) * 2
    assert 0 < summary.largest_difference < TOLERANCES[precision]


def test_int8_weights_are_per_channel_and_normalisation_and_softmax_stay_in_float(int8: ExportReport) -> None:
    model = onnx.load(int8.path)
    summary = int8.card.int8
    assert summary is not None
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    kinds = [node.op_type for node in model.graph.node]
    makers = {output: node for node in model.graph.node for output in node.output}
    quantised: dict[str, bool] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            source = makers.get(node.input[1])
            quantised[node.name] = source is not None and source.op_type == "DequantizeLinear"
            if quantised[node.name]:
                assert weights[source.input[0]].dtype == np.int8
                assert np.abs(weights[source.input[0]].astype(int)).max() <= 2 ** (summary.weight_bits - 1)
                assert len(weights[source.input[1]]) == max(weights[source.input[0]].shape[0], 1)
    assert (summary.layers, summary.images, summary.agreement, summary.accuracy_fp32) == (6, 6, 1.0, 1.0)
    assert {name for name, small in quantised.items() if not small} == set(summary.float_layers)
    assert kinds.index("QuantizeLinear") > kinds.index("Sub")
    assert makers["probabilities"].op_type == "Softmax"


@pytest.mark.parametrize(
    ("precision", "accuracy", "text"),
    [
        ("fp32", 0.75, "75.0%;"),
        ("fp16", 0.75, "75.0%, as in fp32;"),
        ("int8", 0.7483, "74.8%, 0.17 points less than in fp32;"),
        ("int8", 0.7517, "75.2%, 0.17 points more than in fp32;"),
    ],
)
def test_printed_accuracy_is_compared_with_fp32(
    exported: dict[str, ExportReport], capsys: pytest.CaptureFixture[str], precision: str, accuracy: float, text: str
) -> None:
    report = exported["scratch"]
    assert report.card.export is not None
    summary = report.card.export.model_copy(
        update={"precision": precision, "validation_accuracy": accuracy, "accuracy_fp32": 0.75}
    )
    print_export(replace(report, card=report.card.model_copy(update={"export": summary})))
    assert f"; validation accuracy {text} temperature " in capsys.readouterr().out


def test_command_prints_the_loss_and_the_card_has_it(fp16: Exported) -> None:
    out, (exit_code, stdout, stderr) = fp16
    assert (exit_code, stderr) == (0, "")
    assert re.fullmatch(
        rf"{out}: fp16, 3\.\d MB; validation accuracy 100\.0%, as in fp32; temperature "
        r"\d\.\d\d \(validation loss 0\.\d{4} before, 0\.\d{4} with it\); agrees with PyTorch on the first class of "
        r"46 of 46 answers \(batches of 1, 32, 13\), largest difference \d\.\de-0\d \(allowed 0\.02\)\n",
        stdout,
    )
    shown = " ".join(batchland("inspect", out).stdout.split())
    assert " export precision fp16, temperature " in shown
    assert " validation_images 6, validation_accuracy 1, " in shown


def test_too_large_a_loss_of_accuracy_is_refused(tmp_path: Path) -> None:
    require_accuracy(tmp_path / "half.onnx", "fp16", 0.9, 0.89, 1.0)
    with pytest.raises(ModelError) as caught:
        require_accuracy(tmp_path / "half.onnx", "fp16", 0.9, 0.88, 1.5)
    assert str(caught.value) == (
        f"{tmp_path}/half.onnx: not written, fp16 loses 2.00 points of top-1 on the validation images (88.00% after "
        f"90.00%), more than the 1.5 allowed"
    )


def test_a_model_that_gives_every_picture_the_same_answer_is_not_exported(
    trained: dict[str, TrainedModel], tmp_path: Path
) -> None:
    checkpoint = torch.load(trained["scratch"].checkpoint, weights_only=True)
    for name, tensor in checkpoint["state"].items():
        if name.endswith("weight"):
            tensor.zero_()
    torch.save(checkpoint, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError) as caught:
        export(path, tmp_path / "scratch.onnx")
    assert str(caught.value) == f"{path}: gives every picture the same numbers, as weights of zero do; train it again"
    assert not (tmp_path / "scratch.onnx").exists()


def test_other_classes_are_refused(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
    checkpoint = torch.load(trained["scratch"].checkpoint, weights_only=True)
    shutil.copytree(checkpoint["data"], tmp_path / "data")
    (tmp_path / "data" / "02.Blue_Lake").rename(tmp_path / "data" / "teal")
    with pytest.raises(UsageError, match=r"it lacks '02\.Blue_Lake' and has 'teal'$"):
        export(trained["scratch"].checkpoint, tmp_path / "scratch.onnx", ExportOptions(data=tmp_path / "data"))
    assert not (tmp_path / "scratch.onnx").exists()


def test_scoring_reads_photos_as_training_did(
    trained: dict[str, TrainedModel], exported: dict[str, ExportReport]
) -> None:
    model = trained["scratch"]
    checkpoint = torch.load(model.checkpoint, weights_only=True)
    session = open_session(exported["scratch"].path, "cpu")
    losses = []
    for name in checkpoint["validation"]:
        pixels = preprocess((Path(checkpoint["data"]) / name).read_bytes(), session.card.preprocess)
        index = session.card.folders.index(name.split("/")[0])
        losses.append(-np.log(session.predict(pixels[None])[0, index]))
    assert model.card.training is not None
    assert session.card.export is not None
    assert np.mean(losses) == pytest.approx(session.card.export.validation_loss, rel=1e-3)
    assert np.mean(losses) < model.card.training.validation_loss


@pytest.mark.parametrize(
    ("shift", "others"), [(0.3, "0 with another first class"), (50.0, r"[1-9]\d* with another first class")]
)
def test_file_that_disagrees_is_not_written(
    trained: dict[str, TrainedModel],
    exported: dict[str, ExportReport],
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shift: float,
    others: str,
) -> None:
    """The exporter writes another bias than the checkpoint's."""
    file = onnx.load(written / "scratch.onnx")
    *_, last = (node for node in file.graph.node if node.op_type == "Gemm")
    (bias,) = (each for each in file.graph.initializer if each.name == last.input[2])
    changed = onnx.numpy_helper.to_array(bias) + np.float32([0.0, shift, 0.0])
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))

    def wrong(model: ServedModel, card: ModelCard, path: Path) -> None:
        onnx.save(file, path)

    monkeypatch.setattr(export_module, "write_onnx", wrong)
    out = write_toy_model(tmp_path / "scratch.onnx")
    before = out.read_bytes()
    with pytest.raises(ModelError, match=rf"not written, the fp32 file disagrees with PyTorch on a batch .*: {others}"):
        export(trained["scratch"].checkpoint, out)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch.onnx"]
    assert out.read_bytes() == before


def test_moved_data_must_be_named(
    trained: dict[str, TrainedModel],
    exported: dict[str, ExportReport],
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
        f"without it the export cannot be checked"
    )
    assert caught.value.advice == "training_data"
    assert not (tmp_path / "scratch.onnx").exists()
    moved = ExportOptions(data=tmp_path / "moved")
    scratch = written / "scratch.onnx"
    monkeypatch.setattr(export_module, "write_onnx", lambda model, card, path: shutil.copyfile(scratch, path))
    assert export(tmp_path, tmp_path / "scratch.onnx", moved).images == 6


def test_output_is_checked_first(tmp_path: Path) -> None:
    """Before the checkpoint is read and before anything that takes minutes."""
    run = tmp_path / "no-run"
    with pytest.raises(UsageError) as caught:
        export(run, tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; give the name of a file that ends in .onnx"
    with pytest.raises(OutputError, match=r"^/proc/x\.onnx: cannot be written \(.*\); write elsewhere$"):
        export(run, Path("/proc/x.onnx"))


def test_other_files_than_checkpoints_are_refused(trained: dict[str, TrainedModel], tmp_path: Path) -> None:
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


class _Windows(torch.nn.Module):
    """Attention in four windows of a picture of 8 x 8 pixels, or what has no ONNX operator."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.known = known

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.known:
            return torch.geqrf(images[:, :, :3, :3])[1]
        windows = images.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
        seen = torch.nn.functional.scaled_dot_product_attention(
            *[windows.unsqueeze(2) * number for number in (1, 2, 3)]
        )
        return seen.mean((1, 2, 3))


def test_attention_within_windows_is_exported(tmp_path: Path) -> None:
    """torch's exporter takes attention with four axes only; networks such as Twins have five."""
    model = ServedModel(_Windows(known=True), (0.5,) * 3, (0.2,) * 3).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    write_onnx(model, toy_card(), tmp_path / "m.onnx")
    expected = model(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(open_session(tmp_path / "m.onnx", "cpu").predict(pixels), expected, atol=1e-5)


def test_a_network_that_torch_cannot_export_is_an_error(tmp_path: Path) -> None:
    model = ServedModel(_Windows(known=False), (0.5,) * 3, (0.2,) * 3).eval()
    with pytest.raises(
        ModelError, match=r"^toy: torch cannot export this network to ONNX \(.+\); train another backbone"
    ):
        write_onnx(model, toy_card(), tmp_path / "m.onnx")


@pytest.mark.slow
def test_residual_network_is_quantised(exported: dict[str, ExportReport], tmp_path: Path) -> None:
    """Form and size only: the accuracy of random weights means nothing."""
    plain = exported["transfer"]
    small = tmp_path / "small.onnx"
    shutil.copy(plain.path, small)
    pixels = np.random.default_rng(0).integers(0, 256, (9, *plain.card.preprocess.shape), dtype=np.uint8)
    prepared = prepare(onnx.load(small))
    onnx.save(quantise(prepared, measure_ranges(prepared, [pixels], "minmax")), small)
    assert 0.25 < small.stat().st_size / plain.size < 0.35
    probabilities = open_session(small, "cpu").predict(pixels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

"""Training, on small photos of three colours and a small ResNet with random weights."""

import csv
import json
import logging
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import update_bn
from torchvision.models import resnet18

from batchland.data.options import SplitOptions
from batchland.data.split import split
from batchland.errors import DeviceError, OutputError, UsageError
from batchland.models.card import ModelCard
from batchland.training.backbones import find_backbone
from batchland.training.checkpoint import load_checkpoint
from batchland.training.dataset import load_data
from batchland.training.holdout import read_holdout
from batchland.training.models import build, preprocess_spec, transfer_network
from batchland.training.options import TrainOptions
from batchland.training.train import EpochReport, TrainedModel, train
from batchland.training.weights import load_weights

SMALL: dict[str, Any] = {"size": 32, "num_workers": 0, "batch_size": 8, "weights": "none", "device": "cpu", "views": 1}
SCRATCH = SMALL | {"model": "scratch"}
TRANSFER = SMALL | {"model": "transfer", "backbone": "timm/test_resnet"}


@pytest.fixture(scope="session")
def data(colour_photos: Path) -> Path:
    return colour_photos


@pytest.fixture(scope="session")
def scratch(trained: dict[str, TrainedModel]) -> TrainedModel:
    return trained["scratch"]


@pytest.fixture(scope="session")
def transfer(trained: dict[str, TrainedModel]) -> TrainedModel:
    return trained["transfer"]


def state(trained: TrainedModel) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(trained.checkpoint, weights_only=True)["state"]
    return tensors


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["scratch", "transfer"])
def test_separable_colours_are_learned(name: str, trained: dict[str, TrainedModel]) -> None:
    model = trained[name]
    assert model.card.training is not None
    assert model.card.training.validation_accuracy == 1.0
    assert model.epochs[-1].training_loss < 0.6 * math.log(3)  # the loss of a guess
    assert model.epochs[-1].training_accuracy >= 0.9


@pytest.mark.parametrize(
    ("options", "epochs", "least"), [(SCRATCH, 12, 0.5), (TRANSFER | {"backbone": "resnet18"}, 6, 0.8)]
)
def test_walkthrough_recipe_learns(data: Path, tmp_path: Path, options: Any, epochs: int, least: float) -> None:
    (trained,) = train(data, tmp_path, TrainOptions(**options, recipe="walkthrough", epochs=epochs))
    assert trained.card.training is not None
    assert trained.card.training.validation_accuracy >= least
    assert trained.epochs[-1].training_loss < trained.epochs[0].training_loss
    assert trained.card.training.settings["optimiser"] == "sgd"
    assert trained.card.training.settings["augment"]["vertical_flip"] is True
    assert {report.learning_rate for report in trained.epochs} == {0.01}


def test_one_step_changes_every_layer(data: Path, tmp_path: Path) -> None:
    (trained,) = train(data, tmp_path, TrainOptions(**SCRATCH, epochs=1))
    torch.manual_seed(1337)
    before = build("scratch", 3, trained.card.preprocess, batch_norm=True).state_dict()
    changed = {name for name, tensor in state(trained).items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - {"mean", "std"}


def test_frozen_backbone_is_unchanged(transfer: TrainedModel, data: Path) -> None:
    torch.manual_seed(1337)
    before = build("transfer", 3, transfer.card.preprocess, "timm/test_resnet", "linear")
    load_weights(transfer_network(before).backbone, find_backbone("timm/test_resnet"), "none")
    before.to(memory_format=torch.channels_last)  # as in training: another layout rounds differently
    pixels = torch.from_numpy(load_data(data, transfer.card.preprocess).training.pixels)
    update_bn(map(before.normalise, torch.split(pixels, 16)), transfer_network(before).backbone)
    before.eval()
    after = state(transfer)
    backbone = {name: tensor for name, tensor in before.state_dict().items() if "backbone" in name}
    assert len(backbone) == 90
    for name, tensor in backbone.items():
        torch.testing.assert_close(after[name], tensor, msg=name)  # sums round differently with other threads
    assert not torch.equal(after["network.head.0.weight"], before.state_dict()["network.head.0.weight"])


def test_weights_from_a_file_are_frozen_with_their_batch_norm_statistics(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    spec = preprocess_spec(TrainOptions(**TRANSFER), "transfer")
    weights = build("transfer", 3, spec, "timm/test_resnet").network.backbone.state_dict()  # type: ignore[union-attr, operator]
    torch.save(weights, tmp_path / "weights.pth")
    options = TrainOptions(**TRANSFER | {"weights": str(tmp_path / "weights.pth")}, epochs=1)
    (trained,) = train(data, tmp_path / "runs", options)
    after = state(trained)
    assert all(torch.equal(after[f"network.backbone.{name}"], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("options", [SCRATCH, TRANSFER])
def test_seed_determines_the_weights(data: Path, tmp_path: Path, options: Any) -> None:
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        torch.rand(7)  # the state of the global generator has no influence
        before = torch.get_rng_state()
        (runs[name],) = train(data, tmp_path / name, TrainOptions(**options, epochs=2, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(state(runs["first"]), state(runs["again"]))
    assert not same(state(runs["first"]), state(runs["other"]))


def test_number_of_workers_does_not_change_the_weights(data: Path, tmp_path: Path) -> None:
    trained = [
        train(data, tmp_path / str(workers), TrainOptions(**SCRATCH | {"num_workers": workers}, epochs=2))[0]
        for workers in (0, 2)
    ]
    assert same(state(trained[0]), state(trained[1]))


def test_reported_losses_are_means_over_images(scratch: TrainedModel, data: Path) -> None:
    """Recomputed from the checkpoint by the definition of cross-entropy."""
    loaded = load_data(data, scratch.card.preprocess)
    model = build("scratch", 3, scratch.card.preprocess, batch_norm=True)
    model.load_state_dict(state(scratch))
    with torch.inference_mode():
        probabilities = model.eval()(torch.from_numpy(loaded.validation.pixels))
    right = probabilities[torch.arange(len(probabilities)), loaded.validation.labels]
    assert scratch.card.training is not None
    assert scratch.card.training.validation_loss == pytest.approx(float(-right.log().mean()), rel=1e-4)


def test_metrics_files_have_every_reported_epoch(data: Path, tmp_path: Path) -> None:
    seen: list[EpochReport] = []
    options = TrainOptions(**SMALL, backbone="timm/test_resnet", epochs=2)
    trained = train(data, tmp_path, options, on_epoch=seen.append)
    assert [(each.card.name, each.checkpoint, each.metrics) for each in trained] == [
        (name, tmp_path / name / "checkpoint.pt", tmp_path / name / "metrics.csv") for name in ("scratch", "transfer")
    ]
    assert [(report.model, report.epoch, report.epochs) for report in seen] == [
        ("scratch", 1, 2), ("scratch", 2, 2), ("transfer", 1, 2), ("transfer", 2, 2),
    ]  # fmt: skip
    for each in trained:
        assert list(each.epochs) == [report for report in seen if report.model == each.card.name]
        with each.metrics.open() as file:
            rows = list(csv.DictReader(file))
        texts = [{key: str(value) for key, value in asdict(report).items()} for report in each.epochs]
        assert rows == [{key: "" if text == "None" else text for key, text in row.items()} for row in texts]
        lines = each.metrics.with_suffix(".jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [asdict(report) for report in each.epochs]
    files = ["checkpoint.pt", "curves.png", "layers.txt", "metrics.csv", "metrics.jsonl", "tensorboard"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")) == [
        f"{model}/{file}" for model in ("scratch", "transfer") for file in files
    ]


def test_checkpoint_contents(scratch: TrainedModel, data: Path) -> None:
    checkpoint = torch.load(scratch.checkpoint, weights_only=True)
    assert sorted(checkpoint) == [
        "architecture", "backbone", "batch_norm", "card", "data", "epochs", "format", "head", "identity", "state",
        "validation",
    ]  # fmt: skip
    assert (checkpoint["format"], checkpoint["architecture"]) == (1, "scratch")
    assert checkpoint["data"] == str(data / "train")
    assert len(checkpoint["validation"]) == 6
    assert all((data / "train" / name).is_file() for name in checkpoint["validation"])
    assert ModelCard.from_json(checkpoint["card"], "checkpoint") == scratch.card
    assert scratch.card.labels == ("Red Tower", "Green Hill", "Blue Lake")
    assert (scratch.card.name, scratch.card.architecture) == ("scratch", "cnn-16-32-64")
    assert scratch.card.data is not None
    assert (scratch.card.data.training_images, scratch.card.data.validation_images) == (24, 6)


def test_infinite_loss_leaves_no_checkpoint(data: Path, tmp_path: Path) -> None:
    options = TrainOptions(**SCRATCH | {"recipe": "walkthrough"}, learning_rate=1e9, epochs=3)
    with pytest.raises(UsageError, match=r"scratch: the loss is nan after epoch 1, at a learning rate of 1e\+09"):
        train(data, tmp_path, options)
    assert not (tmp_path / "scratch" / "checkpoint.pt").exists()


def test_weights_are_checked_before_images_are_read(data: Path, tmp_path: Path, caplog: Any) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with caplog.at_level(logging.INFO, "batchland"), pytest.raises(UsageError, match="do not fit resnet50"):
        train(data, tmp_path / "runs", TrainOptions(**SMALL | {"weights": str(tmp_path / "resnet18.pth")}))
    assert caplog.messages == []


@pytest.mark.parametrize("given", [{"weights": "x.pth"}, {"unfreeze": "layer4"}, {"backbone": "resnet18"}])
def test_backbone_options_without_a_backbone_are_errors(data: Path, tmp_path: Path, given: dict[str, str]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path / "runs", TrainOptions(**SCRATCH | given))
    assert str(caught.value) == f"{name} {value}: the scratch model has no backbone; leave the option out"


def test_card_has_the_settings_of_training(scratch: TrainedModel, transfer: TrainedModel) -> None:
    """Without those of the backbone and of fine-tuning where they do not apply."""
    assert scratch.card.training is not None
    assert transfer.card.training is not None
    both = {
        "augment", "balanced", "batch_norm", "batch_size", "colour", "device", "epochs", "fast_jpeg", "head",
        "label_smoothing", "learning_rate", "optimiser",
        "patience", "precision", "schedule", "size", "standardise_features", "weight_decay",
    }  # fmt: skip
    assert set(scratch.card.training.settings) == both
    assert set(transfer.card.training.settings) == both | {"backbone", "weights", "views", "unfreeze"}


def test_random_weights_give_a_warning(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "batchland"):
        train(data, tmp_path, TrainOptions(**SCRATCH, epochs=1))
        assert caplog.messages == []
        train(data, tmp_path, TrainOptions(**TRANSFER, epochs=1))
    assert caplog.messages == [
        "transfer: the backbone has random weights, so it distinguishes only colours and textures; "
        "use pretrained weights for real work"
    ]


def test_data_split_gives_the_same_model(data: Path, tmp_path: Path) -> None:
    """Except for near-copies, `data split` makes the split that training makes, so the weights are the same."""
    made = split(data, tmp_path / "parts", SplitOptions(near_copies=False)).folder
    (divided,) = train(made, tmp_path / "divided", TrainOptions(**SCRATCH, epochs=1))
    (whole,) = train(data, tmp_path / "whole", TrainOptions(**SCRATCH, epochs=1))
    assert divided.card.data is not None
    assert (divided.card.data.training_images, divided.card.data.validation_images) == (24, 6)
    assert same(state(divided), state(whole))
    validation = read_holdout(divided.checkpoint, load_checkpoint(divided.checkpoint), divided.card, None)
    assert validation.sample(9).shape == (6, 32, 32, 3)


def test_unreadable_images_are_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "train" / "00.Red_Tower" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (trained,) = train(tmp_path / "data", tmp_path / "runs", TrainOptions(**SCRATCH, epochs=1))
    assert [(each.name, each.code) for each in trained.skipped] == [("00.Red_Tower/broken.jpg", "truncated")]
    with pytest.raises(UsageError, match="1 of 31 images cannot be read"):
        train(tmp_path / "data", tmp_path / "runs", TrainOptions(**SCRATCH, strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="device cuda: torch sees no usable GPU"):
        train(data, tmp_path, TrainOptions(**SCRATCH | {"device": "cuda"}))


def test_unwritable_output_is_an_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(OutputError, match=r"runs: cannot be created \(File exists\)"):
        train(data, tmp_path / "runs", TrainOptions(**SCRATCH, epochs=1))


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": math.nan}, {"model": "vgg"}, {"recipe": "x"}, {"epoch": 3}],
)
def test_invalid_options_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainOptions(**wrong)


def test_only_unfrozen_layers_are_tuned(data: Path, tmp_path: Path) -> None:
    options = TRANSFER | {"unfreeze": "layer4", "unfreeze_learning_rate": 1e-3}
    (frozen,) = train(data, tmp_path / "frozen", TrainOptions(**options | {"unfreeze": None}, epochs=1))
    (tuned,) = train(data, tmp_path / "tuned", TrainOptions(**options, unfreeze_epochs=3, epochs=1))
    assert [(each.stage, each.epoch, each.epochs) for each in tuned.epochs] == [
        ("head", 1, 4), ("fine-tune", 2, 4), ("fine-tune", 3, 4), ("fine-tune", 4, 4),
    ]  # fmt: skip
    assert max(each.learning_rate for each in tuned.epochs[1:]) <= 1e-3
    before, after = state(frozen), state(tuned)
    changed = {name.removeprefix("network.") for name in after if not torch.equal(after[name], before[name])}
    assert tuned.card.training is not None
    assert tuned.card.training.best_epoch > 1
    assert {name.split(".")[1] for name in changed if name.startswith("backbone")} == {"layer4"}
    assert not any("running" in name for name in changed)
    assert any(name.startswith("head") for name in changed)


def test_a_cpu_with_bfloat16_tunes_depthwise_convolutions_in_float32(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    options = SMALL | {"model": "transfer", "epochs": 1, "unfreeze": "all", "unfreeze_epochs": 1}
    formats = []
    for backbone in ("timm/test_efficientnet", "timm/test_resnet"):
        (trained,) = train(data, tmp_path / backbone, TrainOptions(**options, backbone=backbone))
        assert trained.card.training is not None
        formats.append(trained.card.training.settings["device"])
    assert formats == ["cpu, float32", "cpu, bfloat16 products"]


def test_a_learning_rate_of_logistic_regression_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path, TrainOptions(**TRANSFER, learning_rate=1e-3))
    assert str(caught.value) == (
        "learning_rate 0.001: the head of the transfer model is logistic regression, which has none; leave the option "
        "out"
    )


def test_backbone_determines_the_preprocessing(data: Path, tmp_path: Path) -> None:
    options = SMALL | {"model": "both", "backbone": "efficientnet_b0", "epochs": 1, "views": 0}
    scratch, transfer = train(data, tmp_path, TrainOptions(**options))
    assert (scratch.card.architecture, scratch.card.preprocess.filter) == ("cnn-16-32-64", "bilinear")
    assert (transfer.card.architecture, transfer.card.preprocess.filter) == ("efficientnet_b0", "bicubic")
    assert state(transfer)["network.head.0.weight"].shape == (3, 1280)
    assert preprocess_spec(TrainOptions(backbone="efficientnet_b3"), "transfer").shape == (300, 300, 3)
    with pytest.raises(UsageError, match=r"unfreeze layer4: the backbone has no such part; its parts are features\.0"):
        train(data, tmp_path, TrainOptions(**options, unfreeze="layer4"))


def test_layer_table_counts_every_parameter(scratch: TrainedModel) -> None:
    table = (scratch.checkpoint.parent / "layers.txt").read_text()
    convolution = next(line for line in table.splitlines() if "Conv2d" in line).split()
    assert convolution[-10:] == ["[1,", "3,", "32,", "32]", "[1,", "16,", "32,", "32]", "432", "True"]
    weights = (tensor for name, tensor in state(scratch).items() if name.endswith(("weight", "bias")))
    total = sum(tensor.numel() for tensor in weights)
    assert f"Total params: {total:,}" in table


def test_bfloat16_training_also_learns(data: Path, tmp_path: Path) -> None:
    (trained,) = train(data, tmp_path, TrainOptions(**SCRATCH, epochs=8, precision="bf16"))
    assert trained.card.training is not None
    assert trained.card.training.validation_accuracy == 1.0
    assert trained.card.training.settings["precision"] == "bf16"
    assert {tensor.dtype for tensor in state(trained).values()} == {
        torch.float32,
        torch.int64,
    }  # counters of batch norm

"""Training, on tiny pictures of three colours and a ResNet18 with random weights."""

import csv
import json
import logging
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from batchland.data.split import split
from batchland.errors import DeviceError, OutputError, UsageError
from batchland.models.card import ModelCard
from batchland.training.backbones import find_backbone, load_weights
from batchland.training.dataset import load_data
from batchland.training.export import export
from batchland.training.models import build, calibrate_batch_norm, transfer_network
from batchland.training.train import EpochReport, TrainedModel, TrainOptions, train

COLOURS = {"00.Red_Tower": (200, 40, 40), "01.Green_Hill": (40, 200, 40), "02.Blue_Lake": (40, 40, 200)}
SMALL: dict[str, Any] = {"size": 32, "num_workers": 0, "batch_size": 8, "weights": "none", "device": "cpu", "views": 1}
SCRATCH = SMALL | {"model": "scratch"}
TRANSFER = SMALL | {"model": "transfer", "backbone": "resnet18"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten noisy pictures a class, 48 x 40, told apart by their colour."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, colour in COLOURS.items():
        (root / "train" / folder).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def scratch(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    (trained,) = train(data, tmp_path_factory.mktemp("runs"), TrainOptions(**SCRATCH, epochs=8))
    return trained


@pytest.fixture(scope="module")
def transfer(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    (trained,) = train(data, tmp_path_factory.mktemp("runs"), TrainOptions(**TRANSFER, epochs=8))
    return trained


def state(trained: TrainedModel) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(trained.checkpoint, weights_only=True)["state"]
    return tensors


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["scratch", "transfer"])
def test_a_learnable_set_is_learned_on_the_cpu(name: str, request: pytest.FixtureRequest) -> None:
    trained: TrainedModel = request.getfixturevalue(name)
    assert trained.card.training is not None
    assert trained.card.training.validation_accuracy == 1.0
    assert trained.epochs[-1].training_loss < 0.6 * math.log(3)  # of what a guess costs
    assert trained.epochs[-1].training_accuracy >= 0.9


@pytest.mark.parametrize(("options", "least"), [(SCRATCH, 0.5), (TRANSFER, 0.8)])
def test_the_walkthrough_recipe_learns_too(data: Path, tmp_path: Path, options: Any, least: float) -> None:
    (trained,) = train(data, tmp_path, TrainOptions(**options, recipe="walkthrough", epochs=12))
    assert trained.card.training is not None
    assert trained.card.training.validation_accuracy >= least
    assert trained.card.training.settings["optimiser"] == "sgd"
    assert trained.card.training.settings["augment"]["vertical_flip"] is True
    assert {report.learning_rate for report in trained.epochs} == {0.01}


def test_one_step_changes_every_layer(data: Path, tmp_path: Path) -> None:
    (trained,) = train(data, tmp_path, TrainOptions(**SCRATCH, epochs=1))
    torch.manual_seed(1337)
    before = build("scratch", 3, trained.card.preprocess).state_dict()
    changed = {name for name, tensor in state(trained).items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - {"mean", "std"}


def test_the_frozen_backbone_stays_bit_for_bit(transfer: TrainedModel, data: Path) -> None:
    torch.manual_seed(1337)
    before = build("transfer", 3, transfer.card.preprocess, "resnet18")
    load_weights(transfer_network(before).backbone, find_backbone("resnet18"), "none")
    before.to(memory_format=torch.channels_last)  # as in training: other layouts round otherwise
    pixels = torch.from_numpy(load_data(data, transfer.card.preprocess).training.pixels)
    calibrate_batch_norm(before, torch.split(pixels, 16))
    after = state(transfer)
    backbone = {name: tensor for name, tensor in before.state_dict().items() if "backbone" in name}
    assert len(backbone) == 120
    assert all(torch.equal(after[name], tensor) for name, tensor in backbone.items())
    assert not torch.equal(after["network.head.3.weight"], before.state_dict()["network.head.3.weight"])


def test_a_file_of_weights_is_frozen_with_its_own_statistics(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    weights = build("transfer", 3, TrainOptions(**TRANSFER).spec("transfer"), "resnet18").network.backbone.state_dict()  # type: ignore[union-attr, operator]
    torch.save(weights, tmp_path / "weights.pth")
    options = TrainOptions(**TRANSFER | {"weights": str(tmp_path / "weights.pth")}, epochs=2)
    (trained,) = train(data, tmp_path / "runs", options)
    after = state(trained)
    assert all(torch.equal(after[f"network.backbone.{name}"], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("options", [SCRATCH, TRANSFER])
def test_the_same_seed_gives_the_same_weights(data: Path, tmp_path: Path, options: Any) -> None:
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        torch.rand(7)  # what the caller drew before does not matter
        before = torch.get_rng_state()
        (runs[name],) = train(data, tmp_path / name, TrainOptions(**options, epochs=2, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(state(runs["first"]), state(runs["again"]))
    assert not same(state(runs["first"]), state(runs["other"]))


def test_worker_processes_do_not_change_the_weights(data: Path, tmp_path: Path) -> None:
    trained = [
        train(data, tmp_path / str(workers), TrainOptions(**SCRATCH | {"num_workers": workers}, epochs=2))[0]
        for workers in (0, 2)
    ]
    assert same(state(trained[0]), state(trained[1]))


def test_the_weights_of_the_lowest_validation_loss_are_kept(data: Path, tmp_path: Path) -> None:
    """Classes that are the same set of pictures can only be learned by heart: the validation loss soon rises."""
    for number, path in enumerate(sorted((data / "train").rglob("*.jpg"))):
        folder = tmp_path / "data" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{number}.jpg")
    options = SCRATCH | {"recipe": "walkthrough", "learning_rate": 0.1}
    (long,) = train(tmp_path / "data", tmp_path / "long", TrainOptions(**options, epochs=8))
    losses = [report.validation_loss for report in long.epochs]
    assert long.card.training is not None
    best = long.card.training.best_epoch
    assert best == losses.index(min(losses)) + 1 < 8
    assert long.card.training.validation_loss == min(losses)
    assert [report.best for report in long.epochs] == [
        loss < min([math.inf, *losses[:i]]) for i, loss in enumerate(losses)
    ]
    (short,) = train(tmp_path / "data", tmp_path / "short", TrainOptions(**options, epochs=best))
    assert same(state(long), state(short))


def test_reported_losses_are_means_over_images(scratch: TrainedModel, data: Path) -> None:
    """Recomputed from the checkpoint, image by image, by the definition of cross-entropy."""
    loaded = load_data(data, scratch.card.preprocess)
    model = build("scratch", 3, scratch.card.preprocess)
    model.load_state_dict(state(scratch))
    with torch.inference_mode():
        probabilities = model.eval()(torch.from_numpy(loaded.validation.pixels))
    right = probabilities[torch.arange(len(probabilities)), loaded.validation.labels]
    assert scratch.card.training is not None
    assert scratch.card.training.validation_loss == pytest.approx(float(-right.log().mean()), rel=1e-4)


def test_metrics_csv_has_every_epoch_as_it_was_reported(data: Path, tmp_path: Path) -> None:
    seen: list[EpochReport] = []
    options = TrainOptions(**SMALL, backbone="resnet18", epochs=2)
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
        assert rows == [{key: str(value) for key, value in asdict(report).items()} for report in each.epochs]
        lines = each.metrics.with_suffix(".jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [asdict(report) for report in each.epochs]
    files = ["checkpoint.pt", "curves.png", "layers.txt", "metrics.csv", "metrics.jsonl", "tensorboard"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")) == [
        f"{model}/{file}" for model in ("scratch", "transfer") for file in files
    ]


def test_the_checkpoint_is_safe_to_load_and_says_what_it_is(scratch: TrainedModel, data: Path) -> None:
    checkpoint = torch.load(scratch.checkpoint, weights_only=True)
    assert sorted(checkpoint) == [
        "architecture", "backbone", "card", "data", "epochs", "format", "identity", "state", "validation",
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


def test_the_rate_of_the_default_recipe_warms_up_and_falls_to_nothing(scratch: TrainedModel) -> None:
    rates = [report.learning_rate for report in scratch.epochs]
    assert rates == sorted(rates, reverse=True)
    assert 0.9 * 5e-4 < rates[0] < 5e-4
    assert rates[-1] < 0.01 * 5e-4


def test_patience_stops_a_run_that_gets_no_better(data: Path, tmp_path: Path) -> None:
    options = TrainOptions(**SCRATCH | {"recipe": "walkthrough", "learning_rate": 1e-12}, epochs=30, patience=2)
    (trained,) = train(data, tmp_path, options)
    assert trained.card.training is not None
    assert len(trained.epochs) == trained.card.training.best_epoch + 2 < 30


def test_a_plateau_is_seen_in_the_current_loss(data: Path, tmp_path: Path) -> None:
    """Fault 3: fed with the lowest loss so far, the scheduler would lower the rate at other moments."""
    options = TrainOptions(**SCRATCH | {"recipe": "walkthrough", "learning_rate": 1e-12}, epochs=14)
    (trained,) = train(data, tmp_path, options)
    rates = [report.learning_rate for report in trained.epochs]
    assert rates[-1] == pytest.approx(1e-13)
    assert rates[:11] == [1e-12] * 11


def test_a_loss_that_is_no_number_ends_the_run(data: Path, tmp_path: Path) -> None:
    options = TrainOptions(**SCRATCH | {"recipe": "walkthrough"}, learning_rate=1e9, epochs=3)
    with pytest.raises(UsageError, match=r"scratch: the loss is nan after epoch 1; use a --learning-rate below 1e\+09"):
        train(data, tmp_path, options)
    assert not (tmp_path / "scratch" / "checkpoint.pt").exists()


def test_weights_are_checked_before_any_image_is_read(data: Path, tmp_path: Path, caplog: Any) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with caplog.at_level(logging.INFO, "batchland"), pytest.raises(UsageError, match="not the weights of a resnet50"):
        train(data, tmp_path / "runs", TrainOptions(**SMALL | {"weights": str(tmp_path / "resnet18.pth")}))
    assert caplog.messages == []


@pytest.mark.parametrize("given", [{"weights": "x.pth"}, {"unfreeze": "layer4"}, {"backbone": "resnet18"}])
def test_options_of_the_backbone_are_not_ignored(data: Path, tmp_path: Path, given: dict[str, str]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path / "runs", TrainOptions(**SCRATCH | given))
    assert str(caught.value) == f"--{name} {value}: the scratch model has no backbone; leave it out"


def test_the_card_tells_the_settings_that_the_model_was_trained_with(
    scratch: TrainedModel, transfer: TrainedModel
) -> None:
    """Of the backbone, the scratch model has none; of fine-tuning, a model without it."""
    assert scratch.card.training is not None
    assert transfer.card.training is not None
    both = {
        "augment", "batch_size", "device", "epochs", "fast_jpeg", "label_smoothing", "learning_rate", "optimiser",
        "patience", "precision", "schedule", "size", "standardise_features", "weight_decay",
    }  # fmt: skip
    assert set(scratch.card.training.settings) == both
    assert set(transfer.card.training.settings) == both | {"backbone", "weights", "views", "unfreeze"}


def test_random_weights_are_warned_of(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "batchland"):
        train(data, tmp_path, TrainOptions(**SCRATCH, epochs=1))
        assert caplog.messages == []
        train(data, tmp_path, TrainOptions(**TRANSFER, epochs=1))
    assert caplog.messages == [
        "transfer: the backbone keeps random weights (--weights none); it sees colours and textures only, "
        "use --weights imagenet or a file for real work"
    ]


def test_what_data_split_made_is_trained_validated_and_exported_as_it_is(data: Path, tmp_path: Path) -> None:
    """The same draw as without it, so the same images and the same weights."""
    made = split(data, tmp_path / "parts").folder
    (divided,) = train(made, tmp_path / "divided", TrainOptions(**SCRATCH, epochs=1))
    (whole,) = train(data, tmp_path / "whole", TrainOptions(**SCRATCH, epochs=1))
    assert divided.card.data is not None
    assert (divided.card.data.training_images, divided.card.data.validation_images) == (24, 6)
    assert same(state(divided), state(whole))
    report = export(divided.checkpoint, tmp_path / "m.onnx")
    assert report.card.export is not None
    assert report.card.export.validation_images == 6


def test_unreadable_images_are_counted_and_do_not_hurt(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "train" / "00.Red_Tower" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (trained,) = train(tmp_path / "data", tmp_path / "runs", TrainOptions(**SCRATCH, epochs=1))
    assert [(each.name, each.code) for each in trained.skipped] == [("00.Red_Tower/broken.jpg", "corrupt")]
    with pytest.raises(UsageError, match="1 of 31 images cannot be read"):
        train(tmp_path / "data", tmp_path / "runs", TrainOptions(**SCRATCH, strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_that_cannot_be_had_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--device cuda: torch sees no usable GPU"):
        train(data, tmp_path, TrainOptions(**SCRATCH | {"device": "cuda"}))


def test_an_output_that_cannot_be_written_is_an_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(OutputError, match=r"runs: cannot be made \(File exists\); give another --out"):
        train(data, tmp_path / "runs", TrainOptions(**SCRATCH, epochs=1))


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": math.nan}, {"model": "vgg"}, {"recipe": "x"}, {"epoch": 3}],
)
def test_options_are_checked_at_the_door(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainOptions(**wrong)


def test_unfrozen_layers_learn_and_the_rest_does_not(data: Path, tmp_path: Path) -> None:
    options = TRANSFER | {"learning_rate": 1e-6, "unfreeze": "layer4"}
    options["unfreeze_learning_rate"] = 1e-3
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


def test_another_backbone_is_served_with_its_own_preprocessing(data: Path, tmp_path: Path) -> None:
    options = SMALL | {"model": "both", "backbone": "efficientnet_b0", "epochs": 1, "views": 0}
    scratch, transfer = train(data, tmp_path, TrainOptions(**options))
    assert (scratch.card.architecture, scratch.card.preprocess.filter) == ("cnn-16-32-64", "bilinear")
    assert (transfer.card.architecture, transfer.card.preprocess.filter) == ("efficientnet_b0", "bicubic")
    assert state(transfer)["network.head.0.weight"].shape == (512, 1280)
    assert TrainOptions(backbone="efficientnet_b3").spec("transfer").shape == (300, 300, 3)
    with pytest.raises(
        UsageError, match=r"--unfreeze layer4: the backbone has no such part; its parts are features\.0"
    ):
        train(data, tmp_path, TrainOptions(**options, unfreeze="layer4"))


def test_the_layer_table_counts_every_parameter(scratch: TrainedModel) -> None:
    table = (scratch.checkpoint.parent / "layers.txt").read_text()
    convolution = next(line for line in table.splitlines() if "Conv2d" in line).split()
    assert convolution[-10:] == ["[1,", "3,", "32,", "32]", "[1,", "16,", "32,", "32]", "448", "True"]
    total = sum(tensor.numel() for name, tensor in state(scratch).items() if name.startswith("network"))
    assert f"Total params: {total:,}" in table


def test_products_in_bfloat16_learn_as_well(data: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        options = TrainOptions(**SCRATCH, epochs=8, precision=precision)
        (trained,) = train(data, tmp_path / precision, options)
        assert trained.card.training is not None
        assert trained.card.training.validation_accuracy == 1.0
        assert trained.card.training.settings["precision"] == precision
        assert {tensor.dtype for tensor in state(trained).values()} == {torch.float32}

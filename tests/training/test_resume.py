"""Interrupted at any moment, training goes on to the very weights that it would have reached undisturbed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from batchland.errors import Interrupted, LockedError, UsageError
from batchland.system.lock import locked
from batchland.training.options import TrainOptions
from batchland.training.train import EpochReport, TrainedModel, train

SMALL: dict[str, Any] = {
    "size": 32, "num_workers": 0, "batch_size": 8, "weights": "none", "device": "cpu", "views": 1, "epochs": 3,
    "backbone": "resnet18", "checkpoint_every": 0,
}  # fmt: skip
SCRATCH = SMALL | {"model": "scratch", "backbone": "resnet50"}
TUNED = SMALL | {"model": "transfer", "unfreeze": "layer4", "unfreeze_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of noise in each of two classes."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (root / folder).mkdir()
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """The transfer model, undisturbed."""
    (trained,) = train(data, tmp_path_factory.mktemp("whole"), TrainOptions(**TUNED))
    return trained


def weights(run: Path) -> dict[str, bytes]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["state"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def figures(trained: TrainedModel) -> list[tuple[float, ...]]:
    return [
        (each.epoch, each.training_loss, each.training_accuracy, each.validation_loss, each.learning_rate)
        for each in trained.epochs
    ]


def stopped_at(moment: Callable[[str, int], bool], data: Path, out: Path, options: dict[str, Any], signum: int) -> str:
    """Train until `moment`, called with what is done and how much of it, then send ourselves the signal."""

    def watch(doing: str, done: int, total: int) -> None:
        if moment(doing, done):
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted) as caught:
        train(data, out, TrainOptions(**options), on_progress=watch)
    assert caught.value.exit_code == 128 + signum
    assert not (out / options["model"] / "checkpoint.pt").exists()
    return str(caught.value)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("recipe", ["default", "walkthrough"])
def test_a_signal_stops_after_the_step_and_resume_reaches_the_same_weights(
    data: Path, tmp_path: Path, recipe: str, signum: int
) -> None:
    options = SCRATCH | {"recipe": recipe}
    (whole,) = train(data, tmp_path / "whole", TrainOptions(**options))
    message = stopped_at(
        lambda doing, done: (doing, done) == ("scratch: epoch 2/3", 1), data, tmp_path / "cut", options, signum
    )
    assert message == "scratch: stopped after step 1 of epoch 2; the same command with --resume goes on there"
    (resumed,) = train(data, tmp_path / "cut", TrainOptions(**options, resume=True))
    assert figures(resumed) == figures(whole)
    assert weights(tmp_path / "cut" / "scratch") == weights(tmp_path / "whole" / "scratch")
    names = [sorted(path.name for path in (tmp_path / run / "scratch").iterdir()) for run in ("cut", "whole")]
    assert names[0] == names[1]
    assert ".resume" not in names[0]


@pytest.mark.parametrize(
    ("doing", "done"),
    [
        ("transfer: features of view 1", 16),
        ("transfer: epoch 1/5", 2),
        ("transfer: epoch 3/5", 2),
        ("transfer: epoch 5/5", 1),
    ],
)
def test_every_stage_of_the_transfer_model_resumes(
    data: Path, tmp_path: Path, tuned: TrainedModel, doing: str, done: int
) -> None:
    assert [each.stage for each in tuned.epochs] == ["head"] * 3 + ["fine-tune"] * 2
    stopped_at(lambda *now: now == (doing, done), data, tmp_path / "cut", TUNED, signal.SIGTERM)
    (resumed,) = train(data, tmp_path / "cut", TrainOptions(**TUNED, resume=True))
    assert figures(resumed) == figures(tuned)
    assert weights(tmp_path / "cut" / "transfer") == weights(tuned.checkpoint.parent)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_stopped_resumes_to_the_same_weights(data: Path, tmp_path: Path, signum: int) -> None:
    """SIGKILL to the command alone, as the kernel does; SIGTERM to it and its workers, as a service manager does."""
    options = SCRATCH | {"epochs": 12, "num_workers": 1}
    train(data, tmp_path / "whole", TrainOptions(**options))
    out = tmp_path / "cut"
    command = [sys.executable, "-m", "batchland", "train", str(data), "--out", str(out)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not (out / "scratch" / ".resume" / "state.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    (process.send_signal if signum == signal.SIGKILL else partial(os.killpg, process.pid))(signum)
    _, errors = process.communicate()
    assert process.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 143)
    assert "Traceback" not in errors
    assert not (out / "scratch" / "checkpoint.pt").exists()
    seen: list[EpochReport] = []
    train(data, out, TrainOptions(**options, resume=True), on_epoch=seen.append)
    assert 0 < len(seen) < 12
    assert weights(out / "scratch") == weights(tmp_path / "whole" / "scratch")


def test_a_signal_stops_the_decoding_too(data: Path, tmp_path: Path) -> None:
    options = SCRATCH | {"size": 31}
    message = stopped_at(lambda *now: now == ("decoding", 3), data, tmp_path, options, signal.SIGINT)
    assert message == "stopped while decoding image 3 of 20; start it again"


def test_a_model_that_is_done_is_not_trained_again(data: Path, tmp_path: Path) -> None:
    both = SMALL | {"model": "both"}
    first = train(data, tmp_path, TrainOptions(**both))
    (tmp_path / "transfer" / "checkpoint.pt").unlink()
    seen: list[EpochReport] = []
    again = train(data, tmp_path, TrainOptions(**both, resume=True), on_epoch=seen.append)
    assert {report.model for report in seen} == {"transfer"}
    assert again[0].card == first[0].card
    assert [figures(each) for each in again] == [figures(each) for each in first]


def test_other_options_or_data_cannot_be_resumed(data: Path, tmp_path: Path) -> None:
    stopped_at(lambda doing, done: "epoch 2" in doing, data, tmp_path, SCRATCH, signal.SIGTERM)
    needs = "--resume needs the data and options of the earlier run, and these differ"
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path, TrainOptions(**SCRATCH | {"epochs": 4, "seed": 5}, resume=True))
    assert str(caught.value) == (
        f"{tmp_path}/scratch/.resume: {needs}: epochs 3 there and 4 here; seed 1337 there and 5 here; give the same, "
        f"or train anew without --resume"
    )
    (trained,) = train(data, tmp_path, TrainOptions(**SCRATCH | {"epochs": 1}))
    assert len(trained.epochs) == 1
    with pytest.raises(UsageError, match=r"scratch/checkpoint.pt: --resume needs .* epochs 1 there and 3 here"):
        train(data, tmp_path, TrainOptions(**SCRATCH, resume=True))


def test_two_runs_into_one_folder_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchland.training.train._LOCK_WAIT", 0.0)
    with locked(tmp_path / ".train.lock", "runs"), pytest.raises(LockedError, match="another run"):
        train(data, tmp_path, TrainOptions(**SCRATCH))

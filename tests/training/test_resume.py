"""Training that was interrupted at any moment resumes to the weights of an uninterrupted run."""

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
    "backbone": "timm/test_resnet", "checkpoint_every": 0,
}  # fmt: skip
SCRATCH = SMALL | {"model": "scratch", "backbone": "resnet50"}
TUNED = SMALL | {"model": "transfer", "unfreeze": "layer4", "unfreeze_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of noise in each of two classes."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (root / folder).mkdir()
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """The transfer model, uninterrupted."""
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


def stop_at(moment: Callable[[str, int], bool], data: Path, out: Path, options: dict[str, Any], signum: int) -> str:
    """Train, and send this process the signal when `moment(step, done)` is true. Returns the error message."""

    def watch(doing: str, done: int, total: int) -> None:
        if moment(doing, done):
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted) as caught:
        train(data, out, TrainOptions(**options), on_progress=watch)
    assert caught.value.exit_code == 128 + signum
    assert not (out / options["model"] / "checkpoint.pt").exists()
    return str(caught.value)


@pytest.mark.parametrize(("recipe", "signum"), [("default", signal.SIGTERM), ("walkthrough", signal.SIGINT)])
def test_resume_after_a_signal_reaches_the_same_weights(data: Path, tmp_path: Path, recipe: str, signum: int) -> None:
    options = SCRATCH | {"recipe": recipe}
    (whole,) = train(data, tmp_path / "whole", TrainOptions(**options))
    message = stop_at(
        lambda doing, done: (doing, done) == ("scratch: epoch 2/3", 1), data, tmp_path / "cut", options, signum
    )
    assert message == "scratch: stopped after step 1 of epoch 2"
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
    stop_at(lambda *now: now == (doing, done), data, tmp_path / "cut", TUNED, signal.SIGTERM)
    (resumed,) = train(data, tmp_path / "cut", TrainOptions(**TUNED, resume=True))
    assert figures(resumed) == figures(tuned)
    assert weights(tmp_path / "cut" / "transfer") == weights(tuned.checkpoint.parent)


@pytest.mark.parametrize(
    ("signum", "workers"),
    [
        (signal.SIGKILL, 0),
        pytest.param(signal.SIGKILL, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_command_resumes_to_the_same_weights(data: Path, tmp_path: Path, signum: int, workers: int) -> None:
    """SIGKILL to the command alone, as the kernel sends it; SIGTERM to its group, as a service manager sends it."""
    options = SCRATCH | {"epochs": 5}
    train(data, tmp_path / "whole", TrainOptions(**options))
    out = tmp_path / "cut"
    command = [sys.executable, "-m", "batchland", "train", str(data), "--out", str(out)]
    for name, value in (options | {"num_workers": workers}).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # more threads round differently
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment)
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
    assert 0 < len(seen) < 5
    assert weights(out / "scratch") == weights(tmp_path / "whole" / "scratch")


def test_signal_stops_decoding(data: Path, tmp_path: Path) -> None:
    options = SCRATCH | {"size": 31}
    message = stop_at(lambda *now: now == ("decoding", 3), data, tmp_path, options, signal.SIGINT)
    assert message == "stopped while decoding image 3 of 20; run it again"


def test_finished_model_is_not_trained_again(data: Path, tmp_path: Path) -> None:
    both = SMALL | {"model": "both"}
    first = train(data, tmp_path, TrainOptions(**both))
    (tmp_path / "transfer" / "checkpoint.pt").unlink()
    seen: list[EpochReport] = []
    again = train(data, tmp_path, TrainOptions(**both, resume=True), on_epoch=seen.append)
    assert {report.model for report in seen} == {"transfer"}
    assert again[0].card == first[0].card
    assert [figures(each) for each in again] == [figures(each) for each in first]


def test_resume_with_other_options_is_refused(data: Path, tmp_path: Path) -> None:
    stop_at(lambda doing, done: "epoch 2" in doing, data, tmp_path, SCRATCH, signal.SIGTERM)
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path, TrainOptions(**SCRATCH | {"epochs": 4, "seed": 5}, resume=True))
    assert str(caught.value) == (
        f"{tmp_path}/scratch/.resume: to resume, data and options must be those of the earlier run, but epochs was 3, "
        f"is 4; seed was 1337, is 5"
    )
    (trained,) = train(data, tmp_path, TrainOptions(**SCRATCH | {"epochs": 1}))
    assert len(trained.epochs) == 1
    with pytest.raises(UsageError, match=r"scratch/checkpoint.pt: to resume, .* but epochs was 1, is 3$"):
        train(data, tmp_path, TrainOptions(**SCRATCH, resume=True))


def test_resume_of_a_folder_without_a_run_starts_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(data, tmp_path / "typo", TrainOptions(**SCRATCH, resume=True))
    assert (str(caught.value), caught.value.advice) == (f"{tmp_path}/typo: no training to resume there", "resume_out")
    assert not (tmp_path / "typo").exists()


def test_second_run_in_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    with locked(tmp_path / ".train.lock", "runs"), pytest.raises(LockedError, match="another run"):
        train(data, tmp_path, TrainOptions(**SCRATCH), lock_wait=0.0)

"""The training loop on a linear model with two inputs: best weights, learning rates, early stopping."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from batchland.errors import UsageError
from batchland.training.compute import Compute
from batchland.training.loop import Batch, Loop, Stage
from batchland.training.metrics import EpochReport
from batchland.training.recipes import RECIPES, Recipe

INPUTS, LABELS = torch.eye(2), torch.tensor([0, 1])
PLATEAU = replace(RECIPES["walkthrough", "scratch"], learning_rate=0.5)


class OneBatch:
    """An epoch of one batch."""

    def __len__(self) -> int:
        return 1

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        yield INPUTS, LABELS


class NoCallbacks:
    """Callbacks that do nothing."""

    def after_step(self, loop: Loop) -> None:
        pass

    def after_epoch(self, loop: Loop) -> None:
        pass


def run(recipe: Recipe, validation_labels: Tensor, patience: int | None = None) -> tuple[list[EpochReport], Tensor]:
    """Train. Returns a report per epoch and the weights of the best epoch."""
    torch.manual_seed(0)
    learner = nn.Linear(2, 2)
    nn.init.zeros_(learner.weight)
    nn.init.zeros_(learner.bias)
    compute = Compute(torch.device("cpu"), bf16=False)
    stage = Stage("head", learner, learner, [(INPUTS, validation_labels)], recipe, compute, patience)
    reports: list[EpochReport] = []
    Loop(stage, OneBatch(), "linear", reports, recipe.epochs).run(NoCallbacks())
    return reports, learner.weight.detach()


def test_weights_of_the_lowest_validation_loss_are_kept() -> None:
    """With swapped validation labels, every epoch makes the validation loss higher."""
    long, kept = run(replace(PLATEAU, epochs=5), LABELS.flip(0))
    losses = [report.validation_loss for report in long]
    assert losses == sorted(losses)
    assert [report.best for report in long] == [True, False, False, False, False]
    _, first = run(replace(PLATEAU, epochs=1), LABELS.flip(0))
    assert torch.equal(kept, first)
    falling, last = run(replace(PLATEAU, epochs=5), LABELS)
    assert [report.best for report in falling] == [True] * 5
    assert last[0, 0] > first[0, 0] > 0


def test_patience_stops_a_stage_that_does_not_improve() -> None:
    reports, _ = run(replace(PLATEAU, epochs=30), LABELS.flip(0), patience=2)
    assert [report.epoch for report in reports] == [1, 2, 3]


def test_plateau_schedule_lowers_the_rate_after_ten_epochs_without_improvement() -> None:
    reports, _ = run(replace(PLATEAU, learning_rate=1e-3, epochs=14), LABELS.flip(0))
    rates = [report.learning_rate for report in reports]
    assert rates[:12] == [1e-3] * 12
    assert rates[12:] == pytest.approx([1e-4] * 2)


def test_cosine_schedule_warms_up_and_falls_to_zero() -> None:
    recipe = replace(RECIPES["default", "scratch"], epochs=40, learning_rate=1.0)
    rates = [report.learning_rate for report in run(recipe, LABELS)[0]]
    assert rates[:2] == [pytest.approx(2 / 3), 1.0]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_infinite_loss_is_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"linear: the loss is nan after epoch \d, at a learning rate of 1e\+38"
    ) as caught:
        run(replace(PLATEAU, learning_rate=1e38, weight_decay=1e38, epochs=9), LABELS)
    assert caught.value.advice == "lower_learning_rate"

"""The head as logistic regression: the optimum that scikit-learn finds, and the strength that validation chooses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from batchland.errors import UsageError
from batchland.training.compute import Compute
from batchland.training.logistic import LogisticPath, weighted_rows
from batchland.training.loop import Batch, Fit, Stage
from batchland.training.metrics import EpochReport
from batchland.training.models import linear_head
from batchland.training.recipes import RECIPES

FEATURES = 40
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, FEATURES))
LABELS = np.repeat([0, 1, 2], [60, 25, 15])
VIEWS = (CENTRES[LABELS] + 3 * RNG.normal(size=(2, 100, FEATURES))).astype(np.float32)
HELD_OUT = np.repeat([0, 1, 2], 30)
HELD_OUT_FEATURES = torch.tensor(CENTRES[HELD_OUT] + 3 * RNG.normal(size=(90, FEATURES)), dtype=torch.float32)


class NoCallbacks:
    """Callbacks that do nothing."""

    def after_step(self, fit: Fit) -> None:
        pass

    def after_epoch(self, fit: Fit) -> None:
        pass


def stage(head: nn.Sequential, held_out: list[Batch], strengths: int) -> Stage:
    recipe = replace(RECIPES["default", "transfer"], epochs=strengths)
    return Stage("head", head, head, held_out, recipe, Compute(torch.device("cpu"), bf16=False), None)


def fit(strengths: tuple[float, ...], *, balanced: bool) -> tuple[list[EpochReport], Tensor]:
    """Fit to both views. Returns a report per strength and the logits of the held-out features."""
    head = linear_head(FEATURES, 3)
    rows = weighted_rows(torch.tensor(VIEWS), torch.tensor(LABELS), balanced=balanced)
    reports: list[EpochReport] = []
    held_out = [(HELD_OUT_FEATURES, torch.tensor(HELD_OUT))]
    LogisticPath(stage(head, held_out, len(strengths)), rows, strengths, "transfer", reports, len(strengths)).run(
        NoCallbacks()
    )
    return reports, head(HELD_OUT_FEATURES).detach()


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("strength", [100.0, 10.0])
def test_the_optimum_is_that_of_scikit_learn(strength: float, balanced: bool) -> None:
    """Its cost is C times the sum of the losses of 200 rows + half the squared weights."""
    features, labels = VIEWS.reshape(200, FEATURES), np.tile(LABELS, 2)
    weights = "balanced" if balanced else None
    oracle = LogisticRegression(C=FEATURES / (200 * strength), class_weight=weights, tol=1e-6, max_iter=1000)
    expected = oracle.fit(features, labels).decision_function(HELD_OUT_FEATURES.numpy())
    _, logits = fit((strength,), balanced=balanced)
    np.testing.assert_allclose(logits - logits.mean(1, keepdim=True), expected, atol=2e-2)


def test_the_strength_of_the_lowest_validation_loss_is_kept() -> None:
    strengths = (1000.0, 100.0, 10.0, 1.0)
    reports, logits = fit(strengths, balanced=True)
    assert [(each.epoch, each.l2, each.learning_rate) for each in reports] == [
        (number, strength, None) for number, strength in enumerate(strengths, 1)
    ]
    losses = [each.validation_loss for each in reports]
    best = int(np.argmin(losses))
    assert 0 < best < 3
    assert [each.best for each in reports] == [index <= best for index in range(4)]
    _, alone = fit(strengths[best : best + 1], balanced=True)
    np.testing.assert_allclose(logits, alone, atol=5e-3)


def test_weaker_strengths_than_two_without_improvement_are_not_tried() -> None:
    strengths = tuple(10.0**-number for number in range(9))
    reports, _ = fit(strengths, balanced=True)
    best = next(each.epoch for each in reversed(reports) if each.best)
    assert len(reports) == best + 2 < len(strengths)


def test_features_that_are_not_finite_are_an_error() -> None:
    """The weights may be finite, and still overflow."""
    rows = weighted_rows(torch.tensor(VIEWS), torch.tensor(LABELS), balanced=True)
    held_out = [(torch.full_like(HELD_OUT_FEATURES, float("nan")), torch.tensor(HELD_OUT))]
    path = LogisticPath(stage(linear_head(FEATURES, 3), held_out, 1), rows, (10.0,), "transfer", [], 1)
    with pytest.raises(UsageError) as caught:
        path.run(NoCallbacks())
    assert str(caught.value) == (
        "transfer: the loss is nan at an L2 strength of 10, because the backbone gives features that are not finite; "
        "use other weights"
    )

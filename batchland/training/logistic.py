"""Fit a linear head to the optimum: multinomial logistic regression with L2; validation chooses the strength."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchland.errors import UsageError
from batchland.training.loop import Callbacks, Fit, Stage
from batchland.training.metrics import EpochReport

_ITERATIONS: Final = 200
"""Most iterations of L-BFGS for one strength."""
_PATIENCE: Final = 2
"""Stop after this many strengths without a lower validation loss, because weaker ones take longest."""
_ROWS: Final = 65536
"""Rows of features at once: bounds the memory of their logits."""


@dataclass(frozen=True)
class WeightedRows:
    """All training rows of a head."""

    features: Tensor
    """float32 [rows, features]."""
    labels: Tensor
    """Class indices [rows]."""
    weights: Tensor
    """float32 [rows], of sum 1."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(*(torch.split(each, _ROWS) for each in (self.features, self.labels, self.weights)), strict=True)


def weighted_rows(views: Tensor, labels: Tensor, *, balanced: bool) -> WeightedRows:
    """Rows of features [views, photos, features]. balanced: every class has the same total weight."""
    weights = torch.ones(len(labels), device=labels.device)
    if balanced:
        weights /= torch.bincount(labels)[labels]
    rows = weights.repeat(len(views))
    return WeightedRows(views.flatten(0, 1), labels.repeat(len(views)), rows / rows.sum())


class LogisticPath(Fit):
    """Fits a linear head once for each L2 strength; keeps the weights of the lowest validation loss.

    An epoch is one strength, a step one iteration of L-BFGS. A strength that was not finished starts again.
    """

    def __init__(
        self, stage: Stage, rows: WeightedRows, strengths: Sequence[float], model: str, reports: list[EpochReport],
        epochs: int,
    ) -> None:  # fmt: skip
        """See Fit."""
        super().__init__(stage, model, reports, epochs, _ITERATIONS)
        (layer,) = stage.learner.children()
        assert isinstance(layer, nn.Linear)
        self._layer = layer
        self._rows = rows
        self._strengths = strengths
        self._patience = min(stage.patience or _PATIENCE, _PATIENCE)
        self._start = copy.deepcopy(stage.learner.state_dict())

    def state(self) -> dict[str, Any]:
        """See `Fit.state`."""
        return super().state() | {"step": 0, "learner": self._start}

    def load(self, state: dict[str, Any]) -> None:
        """See `Fit.load`."""
        super().load(state)
        self._start = state["learner"]

    @property
    def _strength(self) -> float:
        return self._strengths[self.epoch - 1]

    def _train_epoch(self, started: float, callbacks: Callbacks) -> None:  # noqa: ARG002
        def after_iteration(point: npt.NDArray[np.float64]) -> None:  # noqa: ARG001
            self.step += 1
            callbacks.after_step(self)

        start = torch.cat([self._layer.weight.flatten(), self._layer.bias]).detach().cpu().double().numpy()
        found = minimize(
            self._cost, start, (self._strength,), "L-BFGS-B", jac=True, callback=after_iteration,
            options={"maxiter": _ITERATIONS, "gtol": 1e-5, "ftol": 1e-9},
        )  # fmt: skip
        self._set(found.x)

    @torch.no_grad()
    def _cost(self, point: npt.NDArray[np.float64], strength: float) -> tuple[float, npt.NDArray[np.float64]]:
        """Weighted cross-entropy + strength / 2 * |weights|^2 (the bias is free) / features, and its gradient."""
        self._set(point)
        weight, bias = self._layer.weight, self._layer.bias
        penalty = strength / weight.shape[1]
        cost = float(0.5 * penalty * weight.double().square().sum())
        down, at_bias = penalty * weight, torch.zeros_like(bias)
        for features, labels, weights in self._rows:
            logits = torch.addmm(bias, features, weight.T)
            logs = logits.log_softmax(1)
            cost -= float((weights * logs.gather(1, labels[:, None])[:, 0]).double().sum())
            residual = logs.exp_()
            residual[torch.arange(len(labels), device=labels.device), labels] -= 1
            residual *= weights[:, None]
            down += residual.T @ features
            at_bias += residual.sum(0)
        return cost, torch.cat([down.flatten(), at_bias]).cpu().double().numpy()

    @torch.no_grad()
    def _set(self, point: npt.NDArray[np.float64]) -> None:
        values = torch.from_numpy(point).to(self._layer.bias)
        self._layer.weight.copy_(values[: -len(self._layer.bias)].reshape(self._layer.weight.shape))
        self._layer.bias.copy_(values[-len(self._layer.bias) :])

    @torch.inference_mode()
    def _training_figures(self) -> tuple[float, float]:
        loss = right = torch.zeros(())
        for features, labels, weights in self._rows:
            logits = self._stage.logits(features)
            loss = loss + (weights * cross_entropy(logits, labels, reduction="none")).sum()
            right = right + (weights * (logits.argmax(1) == labels)).sum()
        return float(loss), float(right)

    def _not_finite(self, loss: float) -> UsageError:
        return UsageError(
            f"{self._model}: the loss is {loss} at an L2 strength of {self._strength:g}, because the backbone gives "
            f"features that are not finite; use other weights"
        )

    def _settings(self, validation_loss: float) -> dict[str, float | None]:  # noqa: ARG002
        self._start = copy.deepcopy(self._stage.learner.state_dict())
        return {"learning_rate": None, "l2": self._strength}

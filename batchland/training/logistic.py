"""Fit a linear head to the optimum: multinomial logistic regression with L2; validation chooses the strength."""

import copy
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchland.errors import UsageError
from batchland.training.loop import Batch, Callbacks, validate
from batchland.training.metrics import EpochReport, StageName

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


class LogisticPath:
    """Fits a linear head once for each L2 strength; keeps the weights of the lowest validation loss.

    An epoch is one strength, a step one iteration of L-BFGS.
    """

    stage: StageName = "head"

    def __init__(
        self, head: nn.Sequential, rows: WeightedRows, validation: Iterable[Batch], strengths: Sequence[float],
        patience: int | None, model: str, reports: list[EpochReport], epochs: int,
    ) -> None:  # fmt: skip
        """reports: new ones are appended. epochs: planned, of all stages."""
        layer = head[0]
        assert isinstance(layer, nn.Linear)
        assert len(head) == 1
        self._layer = layer
        self.reports = reports
        self.epoch = len(reports) + 1
        self.step = 0
        self.steps = _ITERATIONS
        self._head = head
        self._rows = rows
        self._validation = validation
        self._strengths = strengths
        self._patience = min(patience or _PATIENCE, _PATIENCE)
        self._model = model
        self._epochs = epochs
        self._start = copy.deepcopy(head.state_dict())
        self._best_loss = math.inf
        self._best_weights = self._start

    def run(self, callbacks: Callbacks) -> None:
        """Fit all strengths, then load the best weights into the head."""
        while self.epoch <= len(self._strengths) and not self._is_stale():
            started = time.perf_counter()
            self._fit(self._strengths[self.epoch - 1], callbacks)
            self._finish(self._strengths[self.epoch - 1], started)
            callbacks.after_epoch(self)
        self._head.load_state_dict(self._best_weights)

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs. A strength that was not finished starts again."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": 0,
            "learner": self._start,
            "best_loss": self._best_loss,
            "best_weights": self._best_weights,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; `reports` must be those saved with it."""
        self.epoch = state["epoch"]
        self._start = state["learner"]
        self._best_loss, self._best_weights = state["best_loss"], state["best_weights"]
        self._head.load_state_dict(self._start)

    def _fit(self, strength: float, callbacks: Callbacks) -> None:
        def after_iteration(point: npt.NDArray[np.float64]) -> None:  # noqa: ARG001
            self.step += 1
            callbacks.after_step(self)

        start = torch.cat([self._layer.weight.flatten(), self._layer.bias]).detach().cpu().double().numpy()
        found = minimize(
            self._cost, start, (strength,), "L-BFGS-B", jac=True, callback=after_iteration,
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
    def _finish(self, strength: float, started: float) -> None:
        loss = right = torch.zeros(())
        for features, labels, weights in self._rows:
            logits = self._head(features)
            loss = loss + (weights * cross_entropy(logits, labels, reduction="none")).sum()
            right = right + (weights * (logits.argmax(1) == labels)).sum()
        validation_loss, validation_accuracy = validate(self._head, self._head, self._validation)
        if not math.isfinite(validation_loss):
            raise UsageError(
                f"{self._model}: the loss is {validation_loss} at an L2 strength of {strength:g}, because the backbone "
                f"gives features that are not finite; use other weights"
            )
        best = validation_loss < self._best_loss
        self._start = copy.deepcopy(self._head.state_dict())
        if best:
            self._best_loss, self._best_weights = validation_loss, self._start
        self.reports.append(
            EpochReport(
                model=self._model, stage=self.stage, epoch=self.epoch, epochs=self._epochs,
                training_loss=float(loss), training_accuracy=float(right), validation_loss=validation_loss,
                validation_accuracy=validation_accuracy, learning_rate=None, l2=strength,
                seconds=time.perf_counter() - started, best=best,
            )
        )  # fmt: skip
        self.epoch, self.step = self.epoch + 1, 0

    def _is_stale(self) -> bool:
        best = max((report.epoch for report in self.reports if report.best), default=0)
        return self.epoch - 1 - best >= self._patience

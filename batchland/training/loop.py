"""The loop that trains one stage of a model, from any step of any epoch.

`Loop.state` holds everything that the weights depend on: a loop that loads it reaches the same weights, bit for bit.
"""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from batchland.errors import UsageError
from batchland.training.compute import Compute
from batchland.training.metrics import EpochReport, StageName
from batchland.training.recipes import Recipe

_WARM_UP_SHARE: Final = 0.05

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """The training batches of any epoch."""

    def __len__(self) -> int:
        """Number of batches of one epoch."""

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at batch `first`: the same ones at each call."""


@dataclass(frozen=True)
class Stage:
    """What a fit trains: a module and its recipe."""

    name: StageName
    learner: nn.Module
    """Its parameters that require gradients are trained."""
    logits: Callable[[Tensor], Tensor]
    """Inputs of a batch to logits [batch, classes]."""
    validation: Iterable[Batch]
    recipe: Recipe
    compute: Compute
    patience: int | None
    """Stop the stage after this many epochs without a lower validation loss; None trains all epochs."""


class Callbacks(Protocol):
    """Called by a fit; raise in them to stop it."""

    def after_step(self, fit: "Fit") -> None:
        """Called after each step."""

    def after_epoch(self, fit: "Fit") -> None:
        """Called after validation, with the new report in `fit.reports`."""


class Fit(ABC):
    """The training of one stage, from any step of any epoch. Keeps the weights of the lowest validation loss."""

    def __init__(self, stage: Stage, model: str, reports: list[EpochReport], epochs: int, steps: int) -> None:
        """reports: those of earlier stages; new ones are appended. epochs: planned, of all stages."""
        self._stage = stage
        self.stage = stage.name
        self.reports = reports
        """Reports of all epochs so far, with those of earlier stages."""
        self.epoch = len(reports) + 1
        """The current epoch."""
        self.step = 0
        """Finished steps of it."""
        self.steps = steps
        """Most steps of an epoch."""
        self._model = model
        self._epochs = epochs
        self._first = self.epoch
        self._patience = stage.patience
        self._seconds = 0.0
        self._best_loss = min((report.validation_loss for report in reports), default=math.inf)
        self._best_weights = copy.deepcopy(stage.learner.state_dict())

    def run(self, callbacks: Callbacks) -> None:
        """Train all epochs, then load the weights of the lowest validation loss into the learner."""
        last = self._first + self._stage.recipe.epochs - 1
        while self.epoch <= last and not self._is_stale():
            started = time.perf_counter() - self._seconds
            self._train_epoch(started, callbacks)
            self._finish_epoch(started)
            callbacks.after_epoch(self)
        self._stage.learner.load_state_dict(self._best_weights)

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers and strings."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "first": self._first,
            "learner": self._stage.learner.state_dict(),
            "best_loss": self._best_loss,
            "best_weights": self._best_weights,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; `reports` must be those saved with it."""
        self.epoch, self.step, self._first = state["epoch"], state["step"], state["first"]
        self._stage.learner.load_state_dict(state["learner"])
        self._best_loss, self._best_weights = state["best_loss"], state["best_weights"]

    @abstractmethod
    def _train_epoch(self, started: float, callbacks: Callbacks) -> None:
        """The rest of the current epoch. started: of the epoch, by `time.perf_counter`."""

    @abstractmethod
    def _training_figures(self) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch."""

    @abstractmethod
    def _not_finite(self, loss: float) -> UsageError:
        """The error of a validation loss that is not finite."""

    @abstractmethod
    def _settings(self, validation_loss: float) -> dict[str, float | None]:
        """The epoch's learning rate or L2 strength, for its report."""

    def _finish_epoch(self, started: float) -> None:
        training_loss, training_accuracy = self._training_figures()
        validation_loss, validation_accuracy = validate(self._stage.learner, self._stage.logits, self._stage.validation)
        if not math.isfinite(validation_loss):
            raise self._not_finite(validation_loss)
        best = validation_loss < self._best_loss
        if best:
            self._best_loss = validation_loss
            self._best_weights = copy.deepcopy(self._stage.learner.state_dict())
        report = EpochReport(
            model=self._model, stage=self.stage, epoch=self.epoch, epochs=self._epochs,
            training_loss=training_loss, training_accuracy=training_accuracy, validation_loss=validation_loss,
            validation_accuracy=validation_accuracy, **self._settings(validation_loss),
            seconds=time.perf_counter() - started, best=best,
        )  # fmt: skip
        self.reports.append(report)
        self.epoch, self.step, self._seconds = self.epoch + 1, 0, 0.0

    def _is_stale(self) -> bool:
        stage = [report for report in self.reports if report.epoch >= self._first]
        best = max((report.epoch for report in stage if report.best), default=self._first - 1)
        return self._patience is not None and self.epoch - 1 - best >= self._patience


class Loop(Fit):
    """The training of one stage by gradient descent."""

    def __init__(self, stage: Stage, training: Batches, model: str, reports: list[EpochReport], epochs: int) -> None:
        """See Fit."""
        super().__init__(stage, model, reports, epochs, len(training))
        self._training = training
        self._totals = torch.zeros(3, dtype=torch.float64, device=stage.compute.device)  # loss, right answers, images
        self._optimiser = _optimiser(stage.learner, stage.recipe)
        self._schedule = _Schedule(self._optimiser, stage.recipe, len(training))

    def state(self) -> dict[str, Any]:
        """See `Fit.state`."""
        return super().state() | {
            "seconds": self._seconds,
            "totals": self._totals,
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._stage.compute.device.type == "cuda" else [],
        }

    def load(self, state: dict[str, Any]) -> None:
        """See `Fit.load`."""
        super().load(state)
        self._seconds = state["seconds"]
        self._totals.copy_(state["totals"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])

    def _train_epoch(self, started: float, callbacks: Callbacks) -> None:
        for inputs, labels in self._training.epoch(self.epoch, self.step):
            self._train(inputs, labels)
            self._seconds = time.perf_counter() - started
            callbacks.after_step(self)

    def _train(self, inputs: Tensor, labels: Tensor) -> None:
        """One step."""
        self._stage.learner.train()
        self._optimiser.zero_grad(set_to_none=True)
        with self._stage.compute.autocast():
            logits = self._stage.logits(inputs).float()
        loss = cross_entropy(logits, labels, label_smoothing=self._stage.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.after_step()
        with torch.no_grad():  # not .item(), which would wait for the GPU at every step
            right = (logits.argmax(1) == labels).sum()
            self._totals += torch.stack([loss * len(labels), right, torch.full_like(loss, len(labels))])
        self.step += 1

    def _training_figures(self) -> tuple[float, float]:
        loss, right, images = self._totals.tolist()
        self._totals.zero_()
        return loss / images, right / images

    def _not_finite(self, loss: float) -> UsageError:
        rate = f"at a learning rate of {self._stage.recipe.learning_rate:g}"
        message = f"{self._model}: the loss is {loss} after epoch {self.epoch}, {rate}"
        return UsageError(message, advice="lower_learning_rate")

    def _settings(self, validation_loss: float) -> dict[str, float | None]:
        rate = self._optimiser.param_groups[0]["lr"]
        self._schedule.after_epoch(validation_loss)
        return {"learning_rate": rate}


@torch.inference_mode()
def validate(
    learner: nn.Module, logits_of: Callable[[Tensor], Tensor], validation: Iterable[Batch]
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy over the validation images, in float32, as the model is served."""
    learner.eval()
    total, right, count = 0.0, 0, 0
    for inputs, labels in validation:
        logits = logits_of(inputs)
        total += cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return total / count, right / count


class _Schedule:
    """Sets the learning rate: after steps (warm-up, then a cosine to 0) or after a plateau of the validation loss."""

    def __init__(self, optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int) -> None:
        total = recipe.epochs * steps
        warm_up = max(1, round(_WARM_UP_SHARE * total))

        def factor(step: int) -> float:
            if step < warm_up:
                return (step + 1) / (warm_up + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

        self._by_step = LambdaLR(optimiser, factor) if recipe.schedule == "cosine" else None
        self._by_loss = ReduceLROnPlateau(optimiser, patience=10) if recipe.schedule == "plateau" else None

    def after_step(self) -> None:
        if self._by_step is not None:
            self._by_step.step()

    def after_epoch(self, validation_loss: float) -> None:
        if self._by_loss is not None:
            self._by_loss.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        schedule = self._by_step or self._by_loss
        return schedule.state_dict() if schedule else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        schedule = self._by_step or self._by_loss
        if schedule:
            schedule.load_state_dict(state)


def _optimiser(learner: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    assert recipe.learning_rate is not None
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            learning, recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)

"""Train the two classifiers: one loop for both, checkpoints that carry the model card.

    for trained in train(Path("data/landmark_images"), Path("runs")):
        print(trained.card.name, trained.card.training.validation_accuracy)

`scratch` learns on pictures. `transfer` has a frozen backbone, whose features are computed once per view of a photo;
its head learns on those, so an epoch takes moments.
"""

import copy
import csv
import io
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

import numpy as np
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

import batchland
from batchland.cores import usable_cores
from batchland.errors import DeviceError, UsageError
from batchland.model_card import ModelCard, TrainingSummary
from batchland.preprocess import PreprocessSpec
from batchland.training.dataset import (
    BalancedDraws,
    Draw,
    PhotoDataset,
    Skipped,
    TrainingData,
    load_data,
)
from batchland.training.files import publish
from batchland.training.folders import class_folders, training_folder
from batchland.training.models import (
    ARCHITECTURES,
    Architecture,
    ServedModel,
    build,
    calibrate_batch_norm,
    features,
    fold_standardisation,
    head,
    load_backbone,
)
from batchland.training.recipes import RECIPES, Recipe, RecipeName

_log = logging.getLogger("batchland")

CHECKPOINT: Final = "checkpoint.pt"
METRICS: Final = "metrics.csv"
CHECKPOINT_FORMAT: Final = 1
_FEATURE_BATCH: Final = 16
"""Pictures at once through the frozen backbone: enough to be quick, small enough for any memory."""
_WARM_UP_SHARE: Final = 0.05
_DESCRIPTIONS: Final[dict[Architecture, str]] = {"scratch": "cnn-16-32-64", "transfer": "resnet50"}

Batch = tuple[Tensor, Tensor]


class TrainOptions(BaseModel):
    """How to train. Validated here; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["scratch", "transfer", "both"] = "both"
    """A CNN from scratch, ResNet50 by transfer learning, or one after the other."""
    recipe: RecipeName = "default"
    """`walkthrough` trains as the published walk-through does (its faults mended), `default` better."""
    epochs: Annotated[int, Field(gt=0)] | None = None
    """Passes over the training images. Default: the recipe's (walkthrough 60 and 50, default 40)."""
    batch_size: Annotated[int, Field(gt=0)] = 32
    """Images per optimiser step."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode and augment; 0 does it in the training process. Default: by cores and device."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Peak learning rate. Default: the recipe's."""
    weights: Annotated[str, Field(min_length=1)] = "imagenet"
    """The transfer backbone's weights: `imagenet` (downloaded once), `none` (random) or a ResNet50 state_dict file."""
    views: Annotated[int, Field(ge=0)] = 4
    """transfer: augmented views per photo that features are computed of, besides the photo as it is."""
    size: Annotated[int, Field(gt=0)] = 224
    """Rows and columns of the model's input, pixels."""
    fast_jpeg: bool = True
    """Shrink large JPEGs while decoding them, in training and later in scoring: several times quicker for photos."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1337
    """Of split, weights, sampling and augmentation. The same seed on the same machine gives the same weights."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """Stop after so many epochs without a lower validation loss. Default: train all epochs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` is CUDA where torch can use it."""
    strict: bool = False
    """An unreadable image is an error; else it is logged, counted and skipped."""

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """What `model` stands for."""
        return ARCHITECTURES if self.model == "both" else (self.model,)

    @property
    def spec(self) -> PreprocessSpec:
        """How bytes become the model's input, in training and scoring."""
        return PreprocessSpec(height=self.size, width=self.size, jpeg_scale="auto" if self.fast_jpeg else "none")


@dataclass(frozen=True)
class EpochReport:
    """One epoch's figures; also the columns of metrics.csv."""

    model: str
    epoch: int
    """From 1."""
    epochs: int
    """Planned."""
    training_loss: float
    """Mean over the epoch's images of what is minimised (with label smoothing), nats."""
    training_accuracy: float
    """Top-1 over the epoch's augmented images, 0 to 1."""
    validation_loss: float
    """Mean cross-entropy over the validation images, nats."""
    validation_accuracy: float
    """Top-1, 0 to 1."""
    learning_rate: float
    """At the end of the epoch's last step."""
    seconds: float
    """Training and validation together."""
    best: bool
    """Whether no epoch before had a lower validation loss."""


@dataclass(frozen=True)
class TrainedModel:
    """A finished model: what it is, where it lies, how it got there."""

    card: ModelCard
    checkpoint: Path
    metrics: Path
    epochs: tuple[EpochReport, ...]
    seconds: float
    """All of this model's training: features, epochs, checkpoint."""
    skipped: tuple[Skipped, ...]
    """Images that could not be read."""


def train(
    data: Path,
    out: Path,
    options: TrainOptions | None = None,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> list[TrainedModel]:
    """Train on DATA/train (or DATA) and write `out/<model>/checkpoint.pt` and `metrics.csv` for each model.

    Raises UsageError for data or weights that cannot be used, DeviceError if CUDA was asked for and cannot be had,
    OutputError if `out` cannot be written.
    """
    options = options or TrainOptions()
    device = _device(options.device)
    if options.weights not in ("imagenet", "none") and "transfer" not in options.architectures:
        raise UsageError(f"--weights {options.weights}: the scratch model has no backbone; leave it out")
    models = {name: _prepared(name, Path(data), options) for name in options.architectures}
    loaded = load_data(Path(data), options.spec, seed=options.seed, strict=options.strict)
    _log.info(
        "%s: %d classes, %d training and %d validation images, %d skipped; training on %s",
        loaded.folder, len(loaded.classes), len(loaded.training.examples), len(loaded.validation.examples),
        len(loaded.skipped), device,
    )  # fmt: skip
    jobs = (_Job(name, model, loaded, options, device, on_epoch) for name, model in models.items())
    return [job.run(Path(out) / job.name) for job in jobs]


def _prepared(name: Architecture, data: Path, options: TrainOptions) -> ServedModel:
    """The model with its first weights; before any image is read, since a wrong weights file should show at once."""
    classes = len(class_folders(training_folder(data)))
    with _reproducible(options.seed):
        model = build(name, classes, options.spec)
        if name == "transfer":
            load_backbone(model, options.weights)
    return model


@dataclass(frozen=True)
class _Task:
    """What the loop works on: who learns, what it is fed, how it answers."""

    learner: nn.Module
    logits: Callable[[Tensor], Tensor]
    training: "_Batches"
    validation: "_Batches"


class _Batches(Protocol):
    """Batches of one epoch; each pass is a new one."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class _Job:
    """One model's training."""

    name: Architecture
    model: ServedModel
    data: TrainingData
    options: TrainOptions
    device: torch.device
    on_epoch: Callable[[EpochReport], None] | None

    @property
    def recipe(self) -> Recipe:
        """The recipe with what the options change in it."""
        recipe = RECIPES[self.options.recipe, self.name]
        return replace(
            recipe,
            epochs=self.options.epochs or recipe.epochs,
            learning_rate=self.options.learning_rate or recipe.learning_rate,
        )

    def run(self, out: Path) -> TrainedModel:
        started = time.perf_counter()
        with _reproducible(self.options.seed):
            self.model.to(self.device)
            reports = self._train_head(out) if self.name == "transfer" else self._fit(self._pictures(), out)
        card = self._card(reports)
        publish(out / CHECKPOINT, lambda path: torch.save(self._checkpoint(card), path))
        seconds = time.perf_counter() - started
        return TrainedModel(card, out / CHECKPOINT, out / METRICS, tuple(reports), seconds, self.data.skipped)

    def _pictures(self) -> _Task:
        training = PhotoDataset(self.data.training.examples, self.data.spec, self.recipe.augment)
        loader = _loader(training, self.options, self.device)
        validation = _Slices(
            torch.from_numpy(self.data.validation.pixels),
            self.data.validation.labels,
            self.options.batch_size,
            self.device,
        )
        return _Task(self.model, self.model.logits, _OnDevice(loader, self.device), validation)

    def _train_head(self, out: Path) -> list[EpochReport]:
        """Features once, then the loop on the head alone."""
        training, validation = self._features()
        if self.recipe.standardise_features:
            mean, std = training.mean((0, 1)), training.std((0, 1))
            std = torch.where(std > 1e-6, std, torch.ones_like(std))  # a feature that is always the same
            training, validation = (training - mean) / std, (validation - mean) / std
        learner = head(self.model)
        dataset = PhotoDataset(self.data.training.examples, self.data.spec)
        labels = self.data.training.labels.to(self.device)
        draws = BalancedDraws(dataset, self.options.seed)
        batches = _FeatureBatches(training, labels, draws, self.options.batch_size)
        kept = _Slices(validation, self.data.validation.labels, self.options.batch_size, self.device)
        reports = self._fit(_Task(learner, learner, batches, kept), out)
        if self.recipe.standardise_features:
            fold_standardisation(self.model, mean, std)
        return reports

    def _features(self) -> tuple[Tensor, Tensor]:
        """Features [1 + views, photos, FEATURES] of the training and [photos, FEATURES] of the validation photos."""
        pixels = torch.from_numpy(self.data.training.pixels)
        if self.options.weights == "none":
            calibrate_batch_norm(self.model, (batch.to(self.device) for batch in torch.split(pixels, _FEATURE_BATCH)))
        views = [self._extract(torch.split(pixels, _FEATURE_BATCH))]
        dataset = PhotoDataset(self.data.training.examples, self.data.spec, self.recipe.augment)
        for view in range(self.options.views):
            seeds = np.random.default_rng((self.options.seed, view)).integers(2**63, size=len(dataset))
            draws = [Draw(place, int(seed)) for place, seed in enumerate(seeds)]
            loader = DataLoader(dataset, _FEATURE_BATCH, sampler=draws, num_workers=_workers(self.options, self.device))
            views.append(self._extract(images for images, _ in loader))
            _log.info("transfer: features of view %d of %d", view + 1, self.options.views)
        validation = self._extract(torch.split(torch.from_numpy(self.data.validation.pixels), _FEATURE_BATCH))
        return torch.stack(views), validation

    @torch.no_grad()
    def _extract(self, batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([features(self.model, images.to(self.device)) for images in batches])

    def _fit(self, task: _Task, out: Path) -> list[EpochReport]:
        """The loop. Leaves the weights of the lowest validation loss in the learner."""
        optimiser = _optimiser(task.learner, self.recipe)
        schedule = _Schedule(optimiser, self.recipe, len(task.training))
        reports: list[EpochReport] = []
        best_loss, best_weights = math.inf, copy.deepcopy(task.learner.state_dict())
        for epoch in range(1, self.recipe.epochs + 1):
            started = time.perf_counter()
            loss, accuracy = _train_epoch(task, optimiser, schedule, self.recipe.label_smoothing)
            validation_loss, validation_accuracy = _validate(task)
            if not math.isfinite(validation_loss):
                raise UsageError(
                    f"{self.name}: the loss is {validation_loss} after epoch {epoch}; "
                    f"use a --learning-rate below {self.recipe.learning_rate:g}"
                )
            rate = optimiser.param_groups[0]["lr"]
            schedule.after_epoch(validation_loss)
            best = validation_loss < best_loss
            if best:
                best_loss, best_weights = validation_loss, copy.deepcopy(task.learner.state_dict())
            report = EpochReport(
                model=self.name, epoch=epoch, epochs=self.recipe.epochs, training_loss=loss, training_accuracy=accuracy,
                validation_loss=validation_loss, validation_accuracy=validation_accuracy, learning_rate=rate,
                seconds=time.perf_counter() - started, best=best,
            )  # fmt: skip
            reports.append(report)
            _write_metrics(out / METRICS, reports)
            if self.on_epoch is not None:
                self.on_epoch(report)
            if self.options.patience and epoch - _best(reports).epoch >= self.options.patience:
                _log.info("%s: no lower validation loss for %d epochs, stopped", self.name, self.options.patience)
                break
        task.learner.load_state_dict(best_weights)
        return reports

    def _card(self, reports: list[EpochReport]) -> ModelCard:
        best = _best(reports)
        settings = self.options.model_dump(exclude={"model", "recipe", "epochs", "learning_rate", "seed", "device"})
        return ModelCard(
            name=self.name,
            architecture=_DESCRIPTIONS[self.name],
            classes=self.data.classes,
            preprocess=self.data.spec,
            created_at=datetime.now(UTC).isoformat("T", "seconds"),
            versions={
                "batchland": batchland.__version__,
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            },
            training=TrainingSummary(
                recipe=self.options.recipe,
                epochs=len(reports),
                best_epoch=best.epoch,
                validation_loss=best.validation_loss,
                validation_accuracy=best.validation_accuracy,
                seed=self.options.seed,
                settings=settings | self.recipe.settings() | {"device": str(self.device)},
            ),
            data=self.data.summary,
        )

    def _checkpoint(self, card: ModelCard) -> dict[str, Any]:
        """Tensors, numbers and strings only: torch.load(weights_only=True) reads it."""
        below = os.fsencode(self.data.folder)
        return {
            "format": CHECKPOINT_FORMAT,
            "architecture": self.name,
            "card": card.to_json(),
            "state": {name: tensor.cpu() for name, tensor in self.model.state_dict().items()},
            "data": os.fspath(self.data.folder),
            "validation": [
                os.fsdecode(os.path.relpath(example.ref.path, below)) for example in self.data.validation.examples
            ],
        }


def _train_epoch(
    task: _Task, optimiser: torch.optim.Optimizer, schedule: "_Schedule", label_smoothing: float
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch's images."""
    task.learner.train()
    total, correct, count = 0.0, 0, 0
    for inputs, labels in task.training:
        optimiser.zero_grad(set_to_none=True)
        logits = task.logits(inputs)
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.after_step()
        total += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return total / count, correct / count


@torch.inference_mode()
def _validate(task: _Task) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over the validation images."""
    task.learner.eval()
    total, correct, count = 0.0, 0, 0
    for inputs, labels in task.validation:
        logits = task.logits(inputs)
        total += cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return total / count, correct / count


class _Schedule:
    """The learning rate: by step (warm-up, then a cosine down to 0) or by validation loss (plateau)."""

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


def _optimiser(learner: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            learning, recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


class _OnDevice:
    """Batches of a DataLoader, moved."""

    def __init__(self, loader: "DataLoader[tuple[Tensor, int]]", device: torch.device) -> None:
        self._loader = loader
        self._device = device

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, labels in self._loader:
            yield inputs.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


class _Slices:
    """Tensors in batches, in order."""

    def __init__(self, inputs: Tensor, labels: Tensor, batch_size: int, device: torch.device) -> None:
        self._batches = list(zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True))
        self._device = device

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, labels in self._batches:
            yield inputs.to(self._device), labels.to(self._device)


class _FeatureBatches:
    """Features [views, photos, FEATURES] in balanced batches; each draw takes one of the photo's views."""

    def __init__(self, views: Tensor, labels: Tensor, draws: BalancedDraws, batch_size: int) -> None:
        self._views = views
        self._labels = labels
        self._draws = draws
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._draws) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        draws = list(self._draws)
        places = torch.tensor([draw.place for draw in draws], device=self._views.device)
        views = torch.tensor([draw.seed % len(self._views) for draw in draws], device=self._views.device)
        for place, view in zip(
            torch.split(places, self._batch_size), torch.split(views, self._batch_size), strict=True
        ):
            yield self._views[view, place], self._labels[place]


def _loader(dataset: PhotoDataset, options: TrainOptions, device: torch.device) -> "DataLoader[tuple[Tensor, int]]":
    workers = _workers(options, device)
    return DataLoader(
        dataset,
        options.batch_size,
        sampler=BalancedDraws(dataset, options.seed),
        num_workers=workers,
        generator=torch.Generator(),  # else it takes numbers from the global one, more or fewer by number of workers
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )


def _workers(options: TrainOptions, device: torch.device) -> int:
    if options.num_workers is not None:
        return options.num_workers
    return min(8, usable_cores()) if device.type == "cuda" else min(2, usable_cores() - 1)


def _best(reports: list[EpochReport]) -> EpochReport:
    return next(report for report in reversed(reports) if report.best)


def _write_metrics(path: Path, reports: list[EpochReport]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochReport)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(report) for report in reports)
    publish(path, lambda temporary: temporary.write_text(text.getvalue()))


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Random numbers that follow from the seed, with those of the caller put back afterwards."""
    with torch.random.fork_rng(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        torch.manual_seed(seed)
        yield


def _device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("--device cuda: torch sees no usable GPU; see nvidia-smi, or use --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")

"""Train the two classifiers with one loop; write checkpoints that contain the model card.

    for trained in train(Path("data/landmark_images"), Path("runs")):
        print(trained.card.name, trained.card.training.validation_accuracy)

`scratch` trains on images. `transfer` computes the features of a frozen backbone once per view of a photo and trains a
head on them, which takes moments per epoch; with `unfreeze`, parts of the backbone are then fine-tuned.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torchvision

from batchland._version import __version__
from batchland.data.folders import class_folders, training_folder
from batchland.errors import Interrupted, OutputError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.card import ModelCard, TrainingSummary
from batchland.system.files import write_file
from batchland.system.lock import locked
from batchland.system.signals import StopSignal
from batchland.training.backbones import find_backbone, find_blocks
from batchland.training.checkpoint import (
    CHECKPOINT,
    ResumeFolder,
    load_checkpoint,
    require_same_identity,
    save_checkpoint,
)
from batchland.training.compute import Compute, choose_compute, freed_memory_kept, reproducible
from batchland.training.dataset import Skipped, TrainingData, load_data
from batchland.training.layers import layer_table
from batchland.training.loop import Fit
from batchland.training.metrics import METRICS, EpochReport, MetricsFiles, best_of
from batchland.training.models import ServedModel, build, preprocess_spec, transfer_network
from batchland.training.options import DEFAULT_BACKBONE, Architecture, TrainOptions
from batchland.training.pixel_cache import PixelCache, default_folder
from batchland.training.recipes import RECIPES
from batchland.training.stages import ModelStages
from batchland.training.weights import load_weights

__all__ = ["EpochReport", "OnProgress", "TrainedModel", "train"]

_log = logging.getLogger("batchland")

LAYERS = "layers.txt"
_LOCK = ".train.lock"
LOCK_WAIT_SECONDS = 10.0
"""The workers of a killed run hold its lock until they notice, within five seconds, that it is gone."""

OnProgress = Callable[[str, int, int], object]
"""Called with the step of the work, the number of images or training steps done, and their total."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: its card, files and epochs."""

    card: ModelCard
    checkpoint: Path
    metrics: Path
    epochs: tuple[EpochReport, ...]
    seconds: float
    """Time to train this model in this process: features, epochs and checkpoint, without the time before a resume."""
    skipped: tuple[Skipped, ...]
    """Images that could not be read."""


def train(
    data: Path,
    out: Path,
    options: TrainOptions | None = None,
    *,
    on_epoch: Callable[[EpochReport], object] | None = None,
    on_progress: OnProgress | None = None,
    lock_wait: float = LOCK_WAIT_SECONDS,
) -> list[TrainedModel]:
    """Train on DATA/train (or DATA) and write a folder for each model: `out/<model>/checkpoint.pt`, metrics, curves.

    DATA/val is used for validation if it exists, otherwise a fifth of the photos.

    A run killed at any moment continues with `resume` from the state saved last, and reaches the same weights. SIGINT
    and SIGTERM let the current step finish, save the state and raise Interrupted.

    Raises UsageError for data, weights or an interrupted run that cannot be used, DeviceError if CUDA is requested and
    not available, OutputError if `out` or the pixel cache cannot be written, LockedError if another run still writes
    `out` after `lock_wait` seconds.
    """
    options, data, out = options or TrainOptions(), Path(data), Path(out)
    on_epoch, on_progress = on_epoch or _ignore, on_progress or _ignore
    compute = choose_compute(options.device, options.precision)
    _require_suitable(options)
    if options.resume and not any((out / name).exists() for name in (_LOCK, *options.architectures)):
        raise UsageError(f"{out}: no training to resume there", advice="resume_out")
    models = {name: _prepared(name, data, options) for name in options.architectures}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror})", advice="other_out") from error
    with locked(out / _LOCK, str(out), wait=lock_wait), freed_memory_kept(), StopSignal() as stop:
        loaded = _load_all(data, options, _stoppable(on_progress, stop))
        first = next(iter(loaded.values()))
        _log.info(
            "%s: %d classes, %d training and %d validation images, %d skipped; training on %s",
            first.folder, len(first.classes), len(first.training), len(first.validation), len(first.skipped), compute,
        )  # fmt: skip
        return [
            _ModelRun(
                name,
                model,
                loaded[name],
                options,
                _compute_for(name, model, options, compute),
                out / name,
                stop,
                on_epoch,
                on_progress,
            ).run()
            for name, model in models.items()
        ]


def _ignore(*progress: object) -> None:
    """No-op callback."""


def _require_suitable(options: TrainOptions) -> None:
    """Raise UsageError for an option that none of the models has."""
    if "transfer" in options.architectures:
        logistic = RECIPES[options.recipe, "transfer"].optimiser == "lbfgs"
        if options.model == "transfer" and options.learning_rate and logistic:
            raise UsageError(
                f"learning_rate {options.learning_rate:g}: the head of the transfer model is logistic regression, "
                f"which has none; leave the option out"
            )
        return
    for name, defaults in (("backbone", (DEFAULT_BACKBONE,)), ("weights", ("imagenet", "none")), ("unfreeze", (None,))):
        if (given := getattr(options, name)) not in defaults:
            raise UsageError(f"{name} {given}: the scratch model has no backbone; leave the option out")


def _prepared(name: Architecture, data: Path, options: TrainOptions) -> ServedModel:
    """The model with its initial weights. Built before images are read, so that a wrong weights file fails at once."""
    classes = len(class_folders(training_folder(data)))
    with reproducible(options.seed):
        recipe = RECIPES[options.recipe, name]
        spec = preprocess_spec(options, name)
        model = build(name, classes, spec, options.backbone, recipe.head, batch_norm=recipe.batch_norm)
        if name == "transfer":
            backbone = transfer_network(model).backbone
            load_weights(backbone, find_backbone(options.backbone), options.weights)
            if options.unfreeze:
                find_blocks(backbone, options.unfreeze)
    return model


def _compute_for(name: Architecture, model: ServedModel, options: TrainOptions, compute: Compute) -> Compute:
    if name == "scratch" or options.precision != "auto" or not options.unfreeze:
        return compute
    return compute.for_training(find_blocks(transfer_network(model).backbone, options.unfreeze))


def _stoppable(on_progress: OnProgress, stop: StopSignal) -> OnProgress:
    """Raise Interrupted after a signal while images are read: there is no state to save yet."""

    def show(doing: str, done: int, total: int) -> None:
        on_progress(doing, done, total)
        if stop.received:
            raise Interrupted(f"stopped while {doing} image {done} of {total}; run it again", stop.received)

    return show


def _load_all(data: Path, options: TrainOptions, on_progress: OnProgress) -> dict[Architecture, TrainingData]:
    """The data of each model, with its preprocessing; read once for equal preprocessing."""
    cache = PixelCache(options.cache_dir or default_folder(), options.cache_limit)
    by_spec: dict[PreprocessSpec, TrainingData] = {}
    for spec in dict.fromkeys(preprocess_spec(options, name) for name in options.architectures):
        by_spec[spec] = load_data(
            data, spec, seed=options.seed, strict=options.strict, cache=cache, on_image=on_progress
        )
    return {name: by_spec[preprocess_spec(options, name)] for name in options.architectures}


@dataclass
class _ModelRun:
    """Trains one model; as callbacks of its loop, reports progress, saves the state and stops on signals."""

    name: Architecture
    model: ServedModel
    data: TrainingData
    options: TrainOptions
    compute: Compute
    out: Path
    stop: StopSignal
    on_epoch: Callable[[EpochReport], object]
    on_progress: OnProgress

    def __post_init__(self) -> None:
        self._versions = {
            "batchland": __version__,
            "torch": str(torch.__version__),  # a subclass of str, which weights_only refuses to load
            "torchvision": str(torchvision.__version__),
        }
        self._identity = self.options.identity(self.name) | {
            "device": str(self.compute.device),
            "bf16": self.compute.bf16,
            "data": self.data.summary.fingerprint,
            "classes": len(self.data.classes),
            "versions": self._versions,
        }
        if RECIPES[self.options.recipe, self.name].batch_norm:  # earlier versions had none
            self._identity["batch_norm"] = True
        self._resume = ResumeFolder(self.out, self._identity)
        self._stages = ModelStages(
            self.name, self.model, self.data, self.options, self.compute, self._resume.path, self._after_features
        )
        self._metrics = MetricsFiles(self.out)
        self._saved = time.monotonic()

    def run(self) -> TrainedModel:
        started = time.perf_counter()
        if finished := self._finished_before():
            return finished
        state, reports = self._resume.open(self.options.resume) or (None, [])
        if state:
            _log.info("%s: continues at step %d of epoch %d", self.name, state["step"] + 1, state["epoch"])
        elif self.options.resume:
            _log.info("%s: nothing to resume, starts from the beginning", self.name)
        with reproducible(self.options.seed):
            self.compute.move(self.model)
            write_file(self.out / LAYERS, layer_table(self.model, self.data.spec))
            for fit in self._stages.fits(reports, state["stage"] if state else None):
                if state and state["stage"] == fit.stage:
                    fit.load(state)
                fit.run(self)
        card = self._card(reports)
        save_checkpoint(
            self.out / CHECKPOINT, self.model, card, self.data, reports, self._identity, self._stages.recipe
        )
        self._metrics.close(reports)
        self._resume.remove()
        return self._trained(card, reports, time.perf_counter() - started)

    def after_step(self, fit: Fit) -> None:
        """Report progress; after a signal, save the state and stop."""
        self.on_progress(f"{self.name}: epoch {fit.epoch}/{self._stages.epochs}", fit.step, fit.steps)
        if self.stop.received:
            self._resume.save(fit.state(), fit.reports)
            self._interrupt(f"after step {fit.step} of epoch {fit.epoch}")

    def after_epoch(self, fit: Fit) -> None:
        """Write the figures, and the state every `checkpoint_every` seconds."""
        self._metrics.write(fit.reports)
        self.on_epoch(fit.reports[-1])
        if time.monotonic() - self._saved >= self.options.checkpoint_every:
            self._resume.save(fit.state(), fit.reports)
            self._saved = time.monotonic()

    def _interrupt(self, where: str) -> None:
        assert self.stop.received
        raise Interrupted(f"{self.name}: stopped {where}", self.stop.received, advice="resume_training")

    def _after_features(self, doing: str, done: int, total: int) -> None:
        self.on_progress(f"{self.name}: {doing}", done, total)
        if self.stop.received:
            self._interrupt(f"while it computed the {doing}")

    def _finished_before(self) -> TrainedModel | None:
        """With `resume`, the model that an earlier run finished."""
        path = self.out / CHECKPOINT
        if not self.options.resume or self._resume.path.exists() or not path.exists():
            return None
        checkpoint = load_checkpoint(path)
        require_same_identity(path, checkpoint["identity"], self._identity)
        _log.info("%s: already trained, %s", self.name, path)
        card = ModelCard.from_json(checkpoint["card"], str(path))
        return self._trained(card, [EpochReport(**report) for report in checkpoint["epochs"]], 0.0)

    def _trained(self, card: ModelCard, reports: list[EpochReport], seconds: float) -> TrainedModel:
        return TrainedModel(card, self.out / CHECKPOINT, self.out / METRICS, tuple(reports), seconds, self.data.skipped)

    def _card(self, reports: list[EpochReport]) -> ModelCard:
        best = best_of(reports)
        elsewhere = {"recipe", "epochs", "learning_rate", "seed", "device"}
        settings = {key: value for key, value in self.options.identity(self.name).items() if key not in elsewhere}
        return ModelCard(
            name=self.name,
            architecture="cnn-16-32-64" if self.name == "scratch" else self.options.backbone,
            classes=self.data.classes,
            preprocess=self.data.spec,
            created_at=datetime.now(UTC).isoformat("T", "seconds"),
            versions=self._versions,
            training=TrainingSummary(
                recipe=self.options.recipe,
                epochs=len(reports),
                best_epoch=best.epoch,
                validation_loss=best.validation_loss,
                validation_accuracy=best.validation_accuracy,
                seed=self.options.seed,
                settings=settings | self._stages.recipe.settings() | {"device": str(self.compute)},
            ),
            data=self.data.summary,
        )

"""The stages of training a model: on images, or a head on features and then parts of the backbone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from batchland.training.backbones import find_blocks
from batchland.training.batches import FeatureBatches, ImageBatches, InOrder
from batchland.training.compute import Compute
from batchland.training.dataset import PhotoDataset, TrainingData
from batchland.training.features import FeatureExtractor, OnBatch
from batchland.training.logistic import LogisticPath, weighted_rows
from batchland.training.loop import Fit, Loop, Stage
from batchland.training.metrics import EpochReport, StageName
from batchland.training.models import ServedModel, fold_standardisation, head, transfer_network
from batchland.training.options import Architecture, TrainOptions
from batchland.training.recipes import L2_STRENGTHS, RECIPES, Recipe
from batchland.training.sampling import Draws


@dataclass(frozen=True)
class ModelStages:
    """The stages of one model, from its data and options."""

    name: Architecture
    model: ServedModel
    data: TrainingData
    options: TrainOptions
    compute: Compute
    features: Path
    """Folder for the backbone's features, kept until the run is finished."""
    on_features: OnBatch

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the values that the options override."""
        recipe = RECIPES[self.options.recipe, self.name]
        if recipe.optimiser == "lbfgs":
            return replace(recipe, epochs=min(self.options.epochs or recipe.epochs, recipe.epochs))
        return replace(
            recipe,
            epochs=self.options.epochs or recipe.epochs,
            learning_rate=self.options.learning_rate or recipe.learning_rate,
        )

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages together."""
        tuned = self.options.unfreeze_epochs if self.name == "transfer" and self.options.unfreeze else 0
        return self.recipe.epochs + tuned

    def fits(self, reports: list[EpochReport], resumed: StageName | None) -> Iterator[Fit]:
        """Yield the training of each stage, after the one before is finished. resumed: start at this stage."""
        if self.name == "scratch":
            yield self._image_loop("pictures", self.recipe, reports)
            return
        if resumed != "fine-tune":
            yield from self._train_on_features(reports)
        if self.options.unfreeze:
            for block in find_blocks(transfer_network(self.model).backbone, self.options.unfreeze):
                block.requires_grad_(True)
            yield self._image_loop("fine-tune", self._fine_tuning, reports)

    @property
    def _fine_tuning(self) -> Recipe:
        optimiser = "adamw" if self.recipe.optimiser == "lbfgs" else self.recipe.optimiser
        return replace(
            self.recipe,
            optimiser=optimiser,
            epochs=self.options.unfreeze_epochs,
            learning_rate=self.options.unfreeze_learning_rate,
        )

    def _image_loop(self, name: StageName, recipe: Recipe, reports: list[EpochReport]) -> Loop:
        dataset = PhotoDataset(self.data.training, self.data.spec, recipe.augment)
        training = ImageBatches(dataset, self._draws(), self.options.batch_size, self._workers, self.compute)
        held_out = self.data.validation  # as they are scored
        batches = partial(held_out.batches, self.options.batch_size)
        validation = InOrder(batches, held_out.labels, self.compute.device)
        stage = Stage(name, self.model, self.model.logits, validation, recipe, self.compute, self.options.patience)
        return Loop(stage, training, self.name, reports, self.epochs)

    def _train_on_features(self, reports: list[EpochReport]) -> Iterator[Fit]:
        """Compute the features once, then train the head on them."""
        extractor = FeatureExtractor(
            self.model, self.data, self.compute, self._workers, self.features, self.on_features
        )
        if self.options.weights == "none":
            extractor.calibrate()
        training = extractor.training(self.recipe.augment, self.options.views, self.options.seed)
        validation = extractor.validation()
        mean, std = training.mean((0, 1)), training.std((0, 1))
        std = torch.where(std > 1e-6, std, torch.ones_like(std))  # a constant feature
        if self.recipe.standardise_features:
            training, validation = (training - mean) / std, (validation - mean) / std
        yield self._head_on(training, validation, reports)
        if self.recipe.standardise_features:
            fold_standardisation(self.model, mean, std)

    def _head_on(self, training: Tensor, validation: Tensor, reports: list[EpochReport]) -> Fit:
        size, device = self.options.batch_size, self.compute.device
        labels = self.data.training.labels.to(device)
        learner = head(self.model)
        held_out = InOrder(lambda: torch.split(validation, size), self.data.validation.labels, device)
        compute = Compute(device, bf16=False)
        stage = Stage("head", learner, learner, held_out, self.recipe, compute, self.options.patience)
        if self.recipe.optimiser == "lbfgs":
            rows = weighted_rows(training, labels, balanced=self.options.balanced)
            return LogisticPath(stage, rows, L2_STRENGTHS, self.name, reports, self.epochs)
        return Loop(stage, FeatureBatches(training, labels, self._draws(), size), self.name, reports, self.epochs)

    def _draws(self) -> Draws:
        labels = [example.class_index for example in self.data.training.examples]
        return Draws(labels, self.options.seed, balanced=self.options.balanced)

    @property
    def _workers(self) -> int:
        return self.compute.workers(self.options.num_workers)

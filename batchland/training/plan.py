"""The stages that a model is trained in: pictures, or a head on features and then parts of the backbone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from batchland.training.backbones import find_blocks
from batchland.training.batches import FeatureBatches, InOrder, PictureBatches, pictures_in_order
from batchland.training.compute import Compute
from batchland.training.dataset import PhotoDataset, TrainingData
from batchland.training.features import Extractor, OnBatch
from batchland.training.journal import StageName
from batchland.training.loop import Stage
from batchland.training.models import ServedModel, fold_standardisation, head, transfer_network
from batchland.training.options import Architecture, TrainOptions
from batchland.training.recipes import RECIPES, Recipe
from batchland.training.sampling import BalancedDraws


@dataclass(frozen=True)
class Plan:
    """What is to be done to one model, with which data and by which options."""

    name: Architecture
    model: ServedModel
    data: TrainingData
    options: TrainOptions
    compute: Compute
    features: Path
    """Folder for the backbone's features, kept until the run is done."""
    on_features: OnBatch

    @property
    def recipe(self) -> Recipe:
        """The recipe with what the options change in it."""
        recipe = RECIPES[self.options.recipe, self.name]
        return replace(
            recipe,
            epochs=self.options.epochs or recipe.epochs,
            learning_rate=self.options.learning_rate or recipe.learning_rate,
        )

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        tuned = self.options.unfreeze_epochs if self.name == "transfer" and self.options.unfreeze else 0
        return self.recipe.epochs + tuned

    def stages(self, resumed: StageName | None) -> Iterator[Stage]:
        """One after the other, each made when the one before has been trained. `resumed`: where an earlier run was."""
        if self.name == "scratch":
            yield self._on_pictures("pictures", self.recipe)
            return
        if resumed != "fine-tune":
            yield from self._on_features()
        if self.options.unfreeze:
            for block in find_blocks(transfer_network(self.model).backbone, self.options.unfreeze):
                block.requires_grad_(True)
            recipe = replace(
                self.recipe, epochs=self.options.unfreeze_epochs, learning_rate=self.options.unfreeze_learning_rate
            )
            yield self._on_pictures("fine-tune", recipe)

    def _on_pictures(self, name: StageName, recipe: Recipe) -> Stage:
        dataset = PhotoDataset(self.data.training, self.data.spec, recipe.augment)
        training = PictureBatches(dataset, self._draws(), self.options.batch_size, self._workers, self.compute)
        validation = pictures_in_order(self.data.validation, self.options.batch_size, self.compute.device)
        return Stage(
            name, self.model, self.model.logits, training, validation, recipe, self.compute, self.options.patience
        )

    def _on_features(self) -> Iterator[Stage]:
        """Features once, then the head alone."""
        extractor = Extractor(self.model, self.data, self.compute, self._workers, self.features, self.on_features)
        if self.options.weights == "none":
            extractor.calibrate()
        training = extractor.training(self.recipe.augment, self.options.views, self.options.seed)
        validation = extractor.validation()
        mean, std = training.mean((0, 1)), training.std((0, 1))
        std = torch.where(std > 1e-6, std, torch.ones_like(std))  # a feature that is always the same
        if self.recipe.standardise_features:
            training, validation = (training - mean) / std, (validation - mean) / std
        size, device = self.options.batch_size, self.compute.device
        labels = self.data.training.labels.to(device)
        learner = head(self.model)
        yield Stage(
            "head", learner, learner, FeatureBatches(training, labels, self._draws(), size),
            InOrder(lambda: torch.split(validation, size), self.data.validation.labels, device),
            self.recipe, Compute(device, bf16=False), self.options.patience,
        )  # fmt: skip
        if self.recipe.standardise_features:
            fold_standardisation(self.model, mean, std)

    def _draws(self) -> BalancedDraws:
        return BalancedDraws([example.class_index for example in self.data.training.examples], self.options.seed)

    @property
    def _workers(self) -> int:
        return self.compute.workers(self.options.num_workers)

"""Features of the frozen backbone: computed once per view of a photo, kept as files until the run is finished."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from batchland.system.files import write_file
from batchland.training.augment import Augmentation
from batchland.training.batches import image_loader
from batchland.training.compute import Compute
from batchland.training.dataset import ImageSet, PhotoDataset, TrainingData
from batchland.training.models import ServedModel, features, transfer_network
from batchland.training.sampling import Draw

_log = logging.getLogger("batchland")

_BATCH: Final = 16
"""Images at once through the backbone: enough to be quick, small enough for any memory."""
_CALIBRATION_IMAGES: Final = 512

OnBatch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FeatureExtractor:
    """Runs photos through a backbone. A view that is in `folder` already is read from there."""

    model: ServedModel
    data: TrainingData
    compute: Compute
    workers: int
    folder: Path
    on_batch: OnBatch
    """Called with the step, the number of images done and their total; raise in it to stop after a batch."""

    def calibrate(self) -> None:
        """Random weights only: set the statistics of batch norm to those of some training images.

        With the initial ones, activations grow from layer to layer until the features are useless.
        """
        images = self.data.training
        step = -(-len(images) // _CALIBRATION_IMAGES)
        chosen = ImageSet(images.examples[::step], images.cached, images.rows[::step])
        batches = (self.model.normalise(batch.to(self.compute.device)) for batch in chosen.batches(_BATCH))
        update_bn(batches, transfer_network(self.model).backbone)

    def training(self, augment: Augmentation, views: int, seed: int) -> Tensor:
        """float32 [1 + views, photos, features]: each photo unchanged, then augmented."""
        images = self.data.training
        results = [self._view("view 0", len(images), images.batches(_BATCH), self.compute)]
        for view in range(1, views + 1):
            augmented = self._augmented(augment, seed, view)
            results.append(self._view(f"view {view}", len(images), augmented, self.compute))
        return torch.stack(results)

    def validation(self) -> Tensor:
        """float32 [photos, features], computed in float32, as the model is served."""
        images = self.data.validation
        exact = Compute(self.compute.device, bf16=False)
        return self._view("validation", len(images), images.batches(_BATCH), exact)

    def _augmented(self, augment: Augmentation, seed: int, view: int) -> Iterator[Tensor]:
        dataset = PhotoDataset(self.data.training, self.data.spec, augment)
        seeds = np.random.default_rng((seed, view)).integers(2**63, size=len(dataset))
        draws = [Draw(index, int(each)) for index, each in enumerate(seeds)]
        batches = [draws[start : start + _BATCH] for start in range(0, len(draws), _BATCH)]
        for images, _ in image_loader(dataset, batches, self.workers, self.compute):
            yield images

    @torch.no_grad()
    def _view(self, name: str, count: int, batches: Iterable[Tensor], compute: Compute) -> Tensor:
        path = self.folder / f"features {name}.npy"
        if not path.exists():
            parts: list[Tensor] = []
            done = 0
            for images in batches:
                with compute.autocast():
                    parts.append(features(self.model, images.to(compute.device)).cpu())
                done += len(images)
                self.on_batch(f"features of {name}", done, count)
            vectors = torch.cat(parts).numpy()
            write_file(path, lambda file: np.save(file, vectors))
        return torch.from_numpy(np.load(path)).to(compute.device)

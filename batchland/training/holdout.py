"""Read the validation and training photos of a checkpoint again, as scoring reads them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchland.data.folders import VALIDATION, photo_path, subfolders, training_folder
from batchland.errors import UsageError
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard
from batchland.models.class_match import enumerate_names
from batchland.models.labelled_photos import evenly_spaced

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Holdout:
    """Validation photos with their classes.

    Names are relative to `folder` and start with the class folder; those of DATA/val start with `../val/`.
    """

    checkpoint: Path
    """Named in error messages."""
    folder: Path
    names: tuple[str, ...]
    """Names of the validation photos."""
    labels: npt.NDArray[np.intp]
    """Their class indices, in the card's order."""
    spec: PreprocessSpec

    def scores(self, score: Callable[[Pixels], Scores], batch_size: int = 32) -> Scores:
        """Apply `score` to all validation photos: [images, classes]."""
        return np.concatenate([score(pixels) for pixels in self._batches(self.names, batch_size)])

    def sample(self, count: int) -> Pixels:
        """At most `count` validation photos, evenly spaced in the listing, so of all classes."""
        return np.concatenate([pixels.copy() for pixels in self._batches(evenly_spaced(self.names, count), count)])

    def training_batches(self, count: int, batch_size: int) -> Iterator[Pixels]:
        """At most `count` training photos, evenly spaced in the listing; unreadable ones are skipped."""
        validation = {os.fsencode(photo_path(self.folder, name)) for name in self.names}
        refs = [ref for ref in list_images(self.folder) if "/" in ref.name and ref.path not in validation]
        for batch in BatchLoader(evenly_spaced(refs, count), self.spec, batch_size):
            readable = [index for index, outcome in enumerate(batch.outcomes) if outcome.error is None]
            if readable:
                yield batch.pixels[readable]

    def _batches(self, names: Sequence[str], batch_size: int) -> Iterator[Pixels]:
        """Each batch is valid until the next one is taken."""
        refs = [ImageRef(name, os.fsencode(photo_path(self.folder, name))) for name in names]
        for batch in BatchLoader(refs, self.spec, batch_size):
            for ref, outcome in zip(batch.refs, batch.outcomes, strict=True):
                if outcome.error is not None:
                    raise UsageError(
                        f"{self.checkpoint}: its validation image {photo_path(self.folder, ref.name)} cannot be read "
                        f"({outcome.error[1]}), and without it the export cannot be checked",
                        advice="training_data",
                    )
            yield batch.pixels


def read_holdout(path: Path, checkpoint: dict[str, Any], card: ModelCard, data: Path | None) -> Holdout:
    """The photos of the checkpoint at `path`; in `data` if they have moved since training.

    Raises UsageError if they are gone, or their class folders are not those of the card.
    """
    folder = training_folder(data) if data is not None else Path(checkpoint["data"])
    names = tuple(checkpoint["validation"])
    if folder.is_dir():  # otherwise reading the first photo fails, with a better message
        _require_classes(path, folder, card)
    indices = {name: index for index, name in enumerate(card.folders)}
    labels = np.array([indices.get(name.removeprefix(VALIDATION).partition("/")[0], -1) for name in names], np.intp)
    if missing := [name for index, name in enumerate(card.folders) if index not in labels]:
        raise UsageError(f"{path}: no validation image of {enumerate_names(missing)}; train again")
    if (labels < 0).any():
        raise UsageError(f"{path}: validation images of classes that its card does not name; train again")
    return Holdout(path, folder, names, labels, card.preprocess)


def _require_classes(path: Path, folder: Path, card: ModelCard) -> None:
    """Raise UsageError unless the class folders are those of the card, in the same order."""
    found = subfolders(folder)
    if tuple(found) == card.folders:
        return
    missing, unknown = (sorted(set(one) - set(other)) for one, other in ((card.folders, found), (found, card.folders)))
    differences = [
        f"{what} {enumerate_names(names, 5)}" for what, names in (("lacks", missing), ("has", unknown)) if names
    ]
    raise UsageError(
        f"{folder}: not the classes that {path} was trained on: it "
        f"{' and '.join(differences) or 'has them in another order'}",
        advice="training_data",
    )

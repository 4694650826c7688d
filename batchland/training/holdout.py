"""Read the validation and training photos of a checkpoint again, as scoring reads them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchland.data.folders import VALIDATION, photo_path, subfolders, training_folder
from batchland.errors import UsageError
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import Pixels
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard
from batchland.models.class_match import enumerate_names
from batchland.models.labelled_photos import LabelledPhotos, evenly_spaced


@dataclass(frozen=True)
class Holdout(LabelledPhotos):
    """Validation photos with their classes, in the card's order.

    Names are relative to `folder` and start with the class folder; those of DATA/val start with `../val/`.
    """

    checkpoint: Path
    """Named in error messages."""

    def training_batches(self, count: int, batch_size: int) -> Iterator[Pixels]:
        """At most `count` training photos, evenly spaced in the listing; unreadable ones are skipped."""
        validation = {ref.path for ref in self.refs}
        refs = [ref for ref in list_images(self.folder) if "/" in ref.name and ref.path not in validation]
        for batch in BatchLoader(evenly_spaced(refs, count), self.spec, batch_size):
            readable = [index for index, outcome in enumerate(batch.outcomes) if outcome.error is None]
            if readable:
                yield batch.pixels[readable]

    def _unreadable(self, ref: ImageRef, reason: str) -> UsageError:
        path = photo_path(self.folder, ref.name)
        message = f"{self.checkpoint}: its validation image {path} cannot be read ({reason}), and without it the export"
        return UsageError(f"{message} cannot be checked", advice="training_data")


def read_holdout(path: Path, checkpoint: dict[str, Any], card: ModelCard, data: Path | None) -> Holdout:
    """The photos of the checkpoint at `path`; in `data` if they have moved since training.

    Raises UsageError if they are gone, or their class folders are not those of the card.
    """
    folder = training_folder(data) if data is not None else Path(checkpoint["data"])
    names = checkpoint["validation"]
    if folder.is_dir():  # otherwise reading the first photo fails, with a better message
        _require_classes(path, folder, card)
    indices = {name: index for index, name in enumerate(card.folders)}
    labels = np.array([indices.get(name.removeprefix(VALIDATION).partition("/")[0], -1) for name in names], np.intp)
    if missing := [name for index, name in enumerate(card.folders) if index not in labels]:
        raise UsageError(f"{path}: no validation image of {enumerate_names(missing)}; train again")
    if (labels < 0).any():
        raise UsageError(f"{path}: validation images of classes that its card does not name; train again")
    refs = tuple(ImageRef(name, os.fsencode(photo_path(folder, name))) for name in names)
    return Holdout(folder, refs, labels, card.preprocess, path)


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

"""The photos that a checkpoint was validated on, and those it was trained on, read again as scoring reads them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchland.data.folders import VALIDATION, photo_path, subfolders, training_folder
from batchland.errors import UsageError
from batchland.evaluation.labels import enumerate_names
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Holdout:
    """Photos with their classes. Names are below `folder`, class folder first; or of DATA/val, beside it."""

    checkpoint: Path
    """What messages speak of."""
    folder: Path
    names: tuple[str, ...]
    """Of the validation photos."""
    labels: npt.NDArray[np.intp]
    """Their class indices, in the card's order."""
    spec: PreprocessSpec
    hint: str
    """What to do where a photo is missing."""

    def scores(self, score: Callable[[Pixels], Scores], batch_size: int = 32) -> Scores:
        """What `score` makes of all validation photos, [images, classes]."""
        return np.concatenate([score(pixels) for pixels in self._batches(self.names, batch_size)])

    def spread(self, count: int) -> Pixels:
        """At most `count` validation photos, spread over the classes."""
        return np.concatenate([pixels.copy() for pixels in self._batches(_spread(self.names, count), count)])

    def trained_on(self, count: int, batch_size: int) -> Iterator[Pixels]:
        """At most `count` training photos, spread over the classes, in batches; unreadable ones are passed over."""
        kept_aside = {os.fsencode(photo_path(self.folder, name)) for name in self.names}
        refs = [ref for ref in list_images(self.folder) if "/" in ref.name and ref.path not in kept_aside]
        for batch in BatchLoader(_spread(refs, count), self.spec, batch_size):
            readable = [place for place, outcome in enumerate(batch.outcomes) if outcome.error is None]
            if readable:
                yield batch.pixels[readable]

    def _batches(self, names: Sequence[str], batch_size: int) -> Iterator[Pixels]:
        """Each valid until the next one is asked for."""
        refs = [ImageRef(name, os.fsencode(photo_path(self.folder, name))) for name in names]
        for batch in BatchLoader(refs, self.spec, batch_size):
            for ref, outcome in zip(batch.refs, batch.outcomes, strict=True):
                if outcome.error is not None:
                    raise UsageError(
                        f"{self.checkpoint}: its validation image {photo_path(self.folder, ref.name)} cannot be read "
                        f"({outcome.error[1]}), and without it the export cannot be checked; {self.hint}"
                    )
            yield batch.pixels


def read_holdout(path: Path, checkpoint: dict[str, Any], card: ModelCard, data: Path | None) -> Holdout:
    """The photos of the checkpoint at `path`; in `data` if they have moved since training.

    Raises UsageError if they are gone, or lie in other class folders than the card names.
    """
    folder = training_folder(data) if data is not None else Path(checkpoint["data"])
    hint = "give where it lies now with --data" if data is None else "give the data it was trained on"
    names = tuple(checkpoint["validation"])
    if folder.is_dir():  # else the first photo will be missed, and its message says more
        _require_classes(path, folder, card, hint)
    places = {name: index for index, name in enumerate(card.folders)}
    labels = np.array([places.get(name.removeprefix(VALIDATION).partition("/")[0], -1) for name in names], np.intp)
    if missing := [name for index, name in enumerate(card.folders) if index not in labels]:
        raise UsageError(f"{path}: no validation image of {enumerate_names(missing)}; train again")
    if (labels < 0).any():
        raise UsageError(f"{path}: validation images of classes that its card does not name; train again")
    return Holdout(path, folder, names, labels, card.preprocess, hint)


def _require_classes(path: Path, folder: Path, card: ModelCard, hint: str) -> None:
    """Classes by name and by order: the model's outputs are those of its card, and the card's those of the folders."""
    there = subfolders(folder)
    if tuple(there) == card.folders:
        return
    lacking, foreign = (sorted(set(one) - set(other)) for one, other in ((card.folders, there), (there, card.folders)))
    told = [f"{what} {enumerate_names(names, 5)}" for what, names in (("lacks", lacking), ("has", foreign)) if names]
    raise UsageError(
        f"{folder}: not the classes that {path} was trained on: it "
        f"{' and '.join(told) or 'has them in another order'}; {hint}"
    )


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    wanted = min(len(items), count)
    return [items[place * len(items) // wanted] for place in range(wanted)]

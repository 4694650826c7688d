"""Read labelled photos in class folders with a model's preprocessing, to check, calibrate and quantise it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from batchland.errors import UsageError
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ClassName
from batchland.models.class_match import match_classes, unknown_classes_message
from batchland.models.contract import Probabilities
from batchland.system.text import counted

Item = TypeVar("Item")

_log = logging.getLogger("batchland")
_BATCH: Final = 16


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with the indices of their classes."""

    folder: Path
    refs: tuple[ImageRef, ...]
    labels: npt.NDArray[np.intp]
    """[photos]."""
    spec: PreprocessSpec

    def scores(self, predict: Callable[[Pixels], Probabilities]) -> Probabilities:
        """Apply `predict` to all photos: [photos, classes]."""
        return np.concatenate([predict(pixels) for pixels in self._batches(self.refs)])

    def sample(self, count: int) -> Pixels:
        """At most `count` photos, evenly spaced in the listing, so of all classes."""
        return np.concatenate([pixels.copy() for pixels in self._batches(evenly_spaced(self.refs, count))])

    def _batches(self, refs: Sequence[ImageRef]) -> Iterator[Pixels]:
        """Each batch is valid until the next one is taken."""
        for batch in BatchLoader(refs, self.spec, _BATCH):
            for ref, outcome in zip(batch.refs, batch.outcomes, strict=True):
                if outcome.error is not None:
                    raise self._unreadable(ref, outcome.error[1])
            yield batch.pixels

    def _unreadable(self, ref: ImageRef, reason: str) -> UsageError:
        return UsageError(f"{self.folder / ref.name}: cannot be read ({reason}); remove it")


def read_labelled(folder: Path, classes: Sequence[ClassName], spec: PreprocessSpec, most: int) -> LabelledPhotos:
    """At most `most` photos of FOLDER/CLASS/*, evenly spaced. Class folders are matched by name, as in evaluations.

    Raises UsageError if there are none, or a folder is not a class of the model.
    """
    refs = [ref for ref in list_images(folder, follow_links=True) if "/" in ref.name]
    if not refs:
        raise UsageError(f"{folder}: holds no labelled photos; give a folder with one folder per class, CLASS/*.jpg")
    names = [ref.name.partition("/")[0] for ref in refs]
    match = match_classes(set(names), classes)
    if match.unknown:
        raise UsageError(unknown_classes_message(str(folder), match.unknown, classes))
    chosen = evenly_spaced(list(zip(refs, names, strict=True)), most)
    if len(chosen) < len(refs):
        _log.info("%s: uses %s of %d, evenly spaced", folder, counted(len(chosen), "photo"), len(refs))
    labels = np.array([match.index[name] for _, name in chosen], np.intp)
    return LabelledPhotos(folder, tuple(ref for ref, _ in chosen), labels, spec)


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items."""
    wanted = min(len(items), count)
    return [items[number * len(items) // wanted] for number in range(wanted)]

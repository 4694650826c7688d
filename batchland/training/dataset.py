"""Find, read and split the training images. Pixels come from batchland.images.preprocess, as in scoring, cached.

Training runs `resize(augment(fit(decode(data))))`, validation and scoring `fit(decode(data))`: augmentation works on
images of the model's size, as the walk-through does. The user's folders are only read: the split lives in memory and
follows from the seed.
"""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from batchland.data.folders import VALIDATION, class_folders, photo_path, subfolders, training_folder, validation_folder
from batchland.errors import ErrorCode, ImageError, UsageError
from batchland.images.preprocess import Pixels, PreprocessSpec, fit
from batchland.images.sources.folder import IMAGE_EXTENSIONS, list_images
from batchland.images.sources.refs import ImageRef, read_image
from batchland.models.card import ClassName, DataSummary, class_names
from batchland.models.class_match import find_name, name_indices
from batchland.system.cores import usable_cores
from batchland.training.augment import Augmentation
from batchland.training.pixel_cache import CachedPixels, Content, PixelCache, default_folder
from batchland.training.sampling import Draw

_log = logging.getLogger("batchland")

TRAINING_SHARE = 0.8


class Example(NamedTuple):
    """One labelled image. `ref.name` is its path from the training folder: `CLASS/...`, or `../val/CLASS/...`."""

    ref: ImageRef
    class_index: int


class Skipped(NamedTuple):
    """An image that cannot be read or decoded, and why."""

    name: str
    code: ErrorCode
    message: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images and their unaugmented pixels, which are rows of a cache entry."""

    examples: tuple[Example, ...]
    cached: CachedPixels
    rows: tuple[int, ...]
    """Index of each example in the cache entry."""

    def __len__(self) -> int:
        return len(self.examples)

    def image(self, index: int) -> Pixels:
        """One example as it is scored, uint8 [height, width, 3], read-only."""
        return self.cached.array[self.rows[index]]

    def batches(self, size: int) -> Iterator[Tensor]:
        """All examples as they are scored, in order, uint8 [size or fewer, height, width, 3]."""
        for start in range(0, len(self), size):
            yield torch.from_numpy(self.cached.array[list(self.rows[start : start + size])])

    @property
    def pixels(self) -> Pixels:
        """All examples at once, uint8 [images, height, width, 3]: a copy, in memory."""
        return self.cached.array[list(self.rows)]

    @property
    def labels(self) -> Tensor:
        """Class indices, int64 [images]."""
        return torch.tensor([example.class_index for example in self.examples])


@dataclass(frozen=True)
class TrainingData:
    """The images of a training folder: read, checked and split."""

    folder: Path
    """The folder of class folders, absolute."""
    classes: tuple[ClassName, ...]
    spec: PreprocessSpec
    training: ImageSet
    validation: ImageSet
    skipped: tuple[Skipped, ...]
    summary: DataSummary


def load_data(
    data: Path,
    spec: PreprocessSpec,
    *,
    seed: int = 1337,
    strict: bool = False,
    cache: PixelCache | None = None,
    on_image: Callable[[str, int, int], object] | None = None,
) -> TrainingData:
    """Read all images of DATA/train and DATA/val; without DATA/val, split those of DATA/train (or DATA) 0.8 / 0.2.

    The split is made class by class, as split-folders does with the same seed. Pixels are taken from the cache (by
    default the user's), or decoded into it. An image that cannot be read is logged and skipped; with `strict` it is an
    error.

    on_image: called with the step ("reading", "decoding"), the number of images done and their total.
    Raises UsageError if there are no class folders, a class has no image to train or none to validate, DATA/val has
    other classes, or the cache is too small; OutputError if the cache cannot be written.
    """
    progress = on_image or (lambda *counts: None)  # noqa: ARG005
    folder = training_folder(data)
    folders = class_folders(folder)
    validation = validation_folder(data)
    listed = [Example(ref, index) for index, name in enumerate(folders) for ref in _list_class(folder, name)]
    _warn_of_loose_images(folder)
    if validation:
        listed += _list_validation(validation, folder, folders)
        _warn_of_loose_images(validation)
    _require_images(folder, validation, folders, listed, "the folder is empty")
    examples, digests, skipped = _read_all(listed, lambda done: progress("reading", done, len(listed)))
    contents = [Content(example.ref, digest) for example, digest in zip(examples, digests, strict=True)]
    cache = cache or PixelCache(default_folder())
    cached = cache.pixels(contents, spec, lambda done: progress("decoding", done, len(contents)))
    skipped += [Skipped(examples[row].ref.name, *why) for row, why in cached.failures.items()]
    _report_skipped(folder, sorted(skipped), len(listed), strict)
    rows = [row for row in range(len(examples)) if row not in cached.failures]
    usable = [examples[row] for row in rows]
    _require_images(folder, validation, folders, usable, "none of its images can be read")
    split = _split_by_folder(usable) if validation else split_indices([one.class_index for one in usable], seed)
    train_set, validation_set = (
        ImageSet(tuple(usable[index] for index in part), cached, tuple(rows[index] for index in part)) for part in split
    )
    summary = DataSummary(
        fingerprint=_fingerprint({examples[row].ref.name: digests[row] for row in rows}),
        training_images=len(train_set),
        validation_images=len(validation_set),
    )
    return TrainingData(folder, class_names(folders), spec, train_set, validation_set, tuple(sorted(skipped)), summary)


def _warn_of_loose_images(folder: Path) -> None:
    loose = sum(entry.is_file() and entry.suffix.lower() in IMAGE_EXTENSIONS for entry in folder.iterdir())
    if loose:
        _log.warning("%s: %d images are in no class folder and are not used", folder, loose)


def _list_class(folder: Path, name: str) -> Iterator[ImageRef]:
    for ref in list_images(folder / name):
        yield ref._replace(name=f"{name}/{ref.name}")


def _list_validation(validation: Path, folder: Path, folders: Sequence[str]) -> list[Example]:
    """The images of DATA/val. Raises UsageError if it has a class that the training folder lacks."""
    if unknown := [name for name in subfolders(validation) if name not in folders]:
        if (like := find_name(name_indices(folders), unknown[0])) is not None:
            raise UsageError(
                f"{validation}: its class folder {unknown[0]!a} looks like {folders[like]!a} in {folder}; they differ "
                f"only in composed and decomposed characters of Unicode; rename one of them"
            )
        raise UsageError(
            f"{validation / unknown[0]}: {folder} has no class of that name; rename the folder, or remove it"
        )
    return [
        Example(ref._replace(name=VALIDATION + ref.name), index)
        for index, name in enumerate(folders)
        if (validation / name).is_dir()
        for ref in _list_class(validation, name)
    ]


def _require_images(
    folder: Path, validation: Path | None, folders: Sequence[str], examples: Sequence[Example], nothing: str
) -> None:
    """Raise UsageError if a class has no image to train or none to validate. `nothing`: what the error then says."""
    counts = Counter((one.class_index, one.ref.name.startswith(VALIDATION)) for one in examples)
    for index, name in enumerate(folders):
        if validation:
            for part, in_val in ((folder, False), (validation, True)):
                if not counts[index, in_val]:
                    why = nothing if (part / name).is_dir() else "does not exist"
                    raise UsageError(
                        f"{part / name}: {why}; each class needs an image in train and one in val: add some, or remove "
                        f"{validation} to validate on a fifth of the training images"
                    )
        elif counts[index, False] < 2:
            found = "only one image can be used" if counts[index, False] else nothing
            raise UsageError(
                f"{folder / name}: {found}; a class needs at least two images, one to train and one to validate: "
                f"add some or remove the folder"
            )


def _read_all(
    listed: Sequence[Example], on_image: Callable[[int], object]
) -> tuple[list[Example], list[bytes], list[Skipped]]:
    """The readable examples, the sha256 of their contents, and the unreadable ones."""

    def read(example: Example) -> bytes | ImageError:
        try:
            return hashlib.sha256(read_image(example.ref).data).digest()
        except ImageError as error:
            return error

    examples: list[Example] = []
    digests: list[bytes] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="read") as pool:
        for done, (example, result) in enumerate(zip(listed, pool.map(read, listed), strict=True), start=1):
            if isinstance(result, ImageError):
                skipped.append(Skipped(example.ref.name, result.code, str(result)))
            else:
                examples.append(example)
                digests.append(result)
            on_image(done)
    return examples, digests, skipped


def _report_skipped(folder: Path, skipped: Sequence[Skipped], listed: int, strict: bool) -> None:
    for image in skipped:
        _log.warning("%s: skipped, %s (%s)", photo_path(folder, image.name), image.message, image.code)
    if skipped and strict:
        raise UsageError(
            f"{folder}: {len(skipped)} of {listed} images cannot be read, the first is {skipped[0].name} "
            f"({skipped[0].message}); remove them",
            advice="not_strict",
        )


def _split_by_folder(examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    """Indices of the images of DATA/train and of those of DATA/val."""
    in_val = [one.ref.name.startswith(VALIDATION) for one in examples]
    training, validation = ([index for index, flag in enumerate(in_val) if flag is part] for part in (False, True))
    return training, validation


def split_indices(labels: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and validation images in `labels`, both in listing order."""
    training: list[int] = []
    validation: list[int] = []
    for label in sorted(set(labels)):
        members = [index for index, other in enumerate(labels) if other == label]
        random.Random(seed).shuffle(members)  # noqa: S311 - as split-folders does, class by class
        cut = int(TRAINING_SHARE * len(members))
        training += members[:cut]
        validation += members[cut:]
    return sorted(training), sorted(validation)


def _fingerprint(digests: dict[str, bytes]) -> str:
    """sha256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(name.encode("utf-8", "surrogateescape") + b"\0" + digests[name])
    return total.hexdigest()


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Images as uint8 [height, width, 3] and class index, augmented as each Draw says. Indexed by Draw.

    Without augmentation, an item's bytes are those of `batchland.images.preprocess.preprocess`.
    """

    def __init__(self, images: ImageSet, spec: PreprocessSpec, augment: Augmentation | None = None) -> None:
        self.images = images
        self.augment = augment
        self._resize = spec.model_copy(update={"fit": "squash", "shorter_side": None})  # the images are cropped already

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        pixels = self.images.image(draw.example)
        if self.augment is not None:
            pixels = fit(self.augment(pixels, draw.seed), self._resize)
        return torch.from_numpy(np.array(pixels)), self.images.examples[draw.example].class_index

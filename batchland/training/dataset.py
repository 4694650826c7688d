"""Find, read, split and augment the training images. Pixels come from batchland.preprocess, as in scoring.

Nothing is ever written into the user's folders: the split lives in memory and follows from the seed.
"""

import hashlib
import logging
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import functional as tv

from batchland.cores import usable_cores
from batchland.errors import ErrorCode, ImageError, UsageError
from batchland.model_card import ClassName, DataSummary, class_names
from batchland.preprocess import Pixels, PreprocessSpec, decode, fit, preprocess
from batchland.source import IMAGE_EXTENSIONS, ImageRef, list_images, read_image
from batchland.training.folders import class_folders, subfolders, training_folder

with warnings.catch_warnings():  # of its own __about__, at import
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchsampler import ImbalancedDatasetSampler

_log = logging.getLogger("batchland")

TRAINING_SHARE = 0.8


class Example(NamedTuple):
    """One labelled image. `ref.name` is its path below the training folder, class folder first."""

    ref: ImageRef
    class_index: int


class Skipped(NamedTuple):
    """An image that cannot be read or decoded, and why."""

    name: str
    code: ErrorCode
    message: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images with their unaugmented pixels, uint8 [images, height, width, 3], decoded once."""

    examples: tuple[Example, ...]
    pixels: Pixels

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


def load_data(data: Path, spec: PreprocessSpec, *, seed: int = 1337, strict: bool = False) -> TrainingData:
    """Read all training images of DATA/train, or of DATA itself, and split them 0.8 / 0.2 class by class.

    The split is that of split-folders with the same seed. Memory: height x width x 3 bytes an image. An image that
    cannot be read is logged and skipped, with `strict` it is an error.

    Raises UsageError if there are no class folders, or a class has fewer than two images.
    """
    folder = training_folder(data)
    folders = class_folders(folder)
    classes = class_names(folders)
    _compare_with_test(data, folder, folders)
    _warn_of_loose_images(folder)
    listed = [Example(ref, index) for index, name in enumerate(folders) for ref in _list_class(folder, name)]
    _require_images(folder, folders, Counter(example.class_index for example in listed), "the folder is empty")
    pixels, digests, skipped = _read_all(listed, spec)
    for image in skipped:
        _log.warning("%s: skipped, %s (%s)", folder / image.name, image.message, image.code)
    if skipped and strict:
        raise UsageError(
            f"{folder}: {len(skipped)} of {len(listed)} images cannot be read, the first is {skipped[0].name} "
            f"({skipped[0].message}); remove them, or train without --strict"
        )
    readable = [index for index, digest in enumerate(digests) if digest]
    counts = Counter(listed[index].class_index for index in readable)
    _require_images(folder, folders, counts, "none of its images can be read")
    training, validation = _split([listed[index].class_index for index in readable], seed)
    sets = [_image_set(listed, pixels, [readable[index] for index in part]) for part in (training, validation)]
    summary = DataSummary(
        fingerprint=_fingerprint({listed[index].ref.name: digests[index] for index in readable}),
        training_images=len(training),
        validation_images=len(validation),
    )
    return TrainingData(folder, classes, spec, sets[0], sets[1], skipped, summary)


def _compare_with_test(data: Path, folder: Path, folders: Sequence[str]) -> None:
    """Warn of a test set whose classes are not those of the training set: it could not be evaluated later."""
    test = data / "test"
    if folder == data.absolute() or not test.is_dir():
        return
    names = subfolders(test)
    for what, where, odd in (
        ("unknown to", folder, [name for name in names if name not in folders]),
        ("lacking here but in", folder, [name for name in folders if name not in names]),
    ):
        if odd:
            _log.warning("%s: %d class folders are %s %s: %s", test, len(odd), what, where, ", ".join(odd[:10]))


def _warn_of_loose_images(folder: Path) -> None:
    loose = sum(entry.is_file() and entry.suffix.lower() in IMAGE_EXTENSIONS for entry in folder.iterdir())
    if loose:
        _log.warning("%s: %d images lie beside the class folders and are not used", folder, loose)


def _list_class(folder: Path, name: str) -> Iterator[ImageRef]:
    for ref in list_images(folder / name):
        yield ref._replace(name=f"{name}/{ref.name}")


def _require_images(folder: Path, folders: Sequence[str], counts: Counter[int], nothing: str) -> None:
    for index, name in enumerate(folders):
        if counts[index] < 2:
            found = "only one image can be used" if counts[index] else nothing
            raise UsageError(
                f"{folder / name}: {found}; a class needs at least two images, one to train and one to validate: "
                f"add some or remove the folder"
            )


def _read_all(listed: Sequence[Example], spec: PreprocessSpec) -> tuple[Pixels, list[bytes], tuple[Skipped, ...]]:
    """Pixels [listed, height, width, 3], content digests (empty for the unreadable), and the unreadable ones."""
    pixels = np.zeros((len(listed), *spec.shape), np.uint8)

    def read(index: int) -> tuple[bytes, Skipped | None]:
        ref = listed[index].ref
        try:
            data = read_image(ref).data
            pixels[index] = preprocess(data, spec)
        except ImageError as error:
            return b"", Skipped(ref.name, error.code, str(error))
        return hashlib.sha256(data).digest(), None

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        results = list(pool.map(read, range(len(listed))))
    return pixels, [digest for digest, _ in results], tuple(skipped for _, skipped in results if skipped)


def _split(labels: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Places of training and validation images in `labels`, both in listing order."""
    training: list[int] = []
    validation: list[int] = []
    for label in sorted(set(labels)):
        members = [place for place, other in enumerate(labels) if other == label]
        random.Random(seed).shuffle(members)  # noqa: S311 - as split-folders does, class by class
        cut = int(TRAINING_SHARE * len(members))
        training += members[:cut]
        validation += members[cut:]
    return sorted(training), sorted(validation)


def _image_set(listed: Sequence[Example], pixels: Pixels, places: list[int]) -> ImageSet:
    return ImageSet(tuple(listed[place] for place in places), pixels[places])


def _fingerprint(digests: dict[str, bytes]) -> str:
    """sha256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(name.encode("utf-8", "surrogateescape") + b"\0" + digests[name])
    return total.hexdigest()


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a decoded picture, uint8 [H, W, 3] to uint8 [H', W', 3], drawn from a seed."""

    crop: float = 1.0
    """Smallest share of either side that is kept; 1 keeps all."""
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: float = 0.0
    """Factors are drawn from 1 - x to 1 + x; the same for contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Turn of the colour circle, drawn from -x to x; 0.5 is half of it. Dear: costs more than all others together."""

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The same seed gives the same picture, in any process and thread."""
        rng = np.random.default_rng(seed)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        if self.crop < 1:  # before the colours, so that they have fewer pixels to change
            height, width = (max(1, round(side * rng.uniform(self.crop, 1))) for side in image.shape[1:])
            top, left = (
                int(rng.integers(whole - part + 1))
                for whole, part in zip(image.shape[1:], (height, width), strict=True)
            )
            image = tv.crop(image, top, left, height, width)
        if self.horizontal_flip and rng.random() < 0.5:
            image = tv.horizontal_flip(image)
        if self.vertical_flip and rng.random() < 0.5:
            image = tv.vertical_flip(image)
        for place in rng.permutation(4):
            image = self._change_colour(image, int(place), rng)
        return image.permute(1, 2, 0).contiguous().numpy()

    def _change_colour(self, image: Tensor, which: int, rng: np.random.Generator) -> Tensor:
        name = ("brightness", "contrast", "saturation", "hue")[which]
        strength: float = getattr(self, name)
        if strength == 0:
            return image
        change = getattr(tv, f"adjust_{name}")
        middle = 0.0 if name == "hue" else 1.0
        changed: Tensor = change(image, float(rng.uniform(middle - strength, middle + strength)))
        return changed


class Draw(NamedTuple):
    """What a sampler asks a dataset for: an example, and the seed of its augmentation."""

    place: int
    seed: int


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Examples as uint8 [height, width, 3] and class index, decoded anew each time: `fit(augment(decode(data)), spec)`.

    Without augmentation, an item's bytes are those of `batchland.preprocess.preprocess`. Indexed by Draw.
    """

    def __init__(self, examples: Sequence[Example], spec: PreprocessSpec, augment: Augmentation | None = None) -> None:
        self.examples = examples
        self.spec = spec
        self.augment = augment

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        ref, label = self.examples[draw.place]
        try:
            pixels = decode(read_image(ref).data, self.spec).pixels
        except ImageError as error:
            raise UsageError(f"{ref.name}: changed while training ran ({error}); train again") from error
        if self.augment is not None:
            pixels = self.augment(pixels, draw.seed)
        return torch.from_numpy(np.array(fit(pixels, self.spec))), label

    def labels(self) -> list[int]:
        """Class index of each example, without touching a file."""
        return [example.class_index for example in self.examples]


class BalancedDraws(Sampler[Draw]):
    """torchsampler's ImbalancedDatasetSampler, an epoch's draws of which follow from the seed and the epoch alone."""

    def __init__(self, dataset: PhotoDataset, seed: int) -> None:
        self._sampler = ImbalancedDatasetSampler(dataset, callback_get_label=_labels_of)
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Draw]:
        """The draws of `epoch`; counts it up, so that the next pass is another one."""
        seeds = np.random.SeedSequence((self._seed, self.epoch))
        self.epoch += 1
        with torch.random.fork_rng(devices=[]):  # the sampler draws from torch's global generator
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            indices = [int(index) for index in self._sampler]
        augmentation_seeds = np.random.default_rng(seeds).integers(2**63, size=len(indices))
        for index, seed in zip(indices, augmentation_seeds, strict=True):
            yield Draw(index, int(seed))


def _labels_of(dataset: Any) -> list[int]:
    labels: list[int] = dataset.labels()
    return labels

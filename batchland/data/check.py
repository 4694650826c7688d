"""Check labelled photos before training: numbers, sizes, unreadable files, duplicates, leakage into the test set.

Two photos are duplicates if they give a model the same pixels, after the preprocessing of training and scoring, and
near-duplicates if one is a copy of the other (see embeddings/copies.py).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.data.corrections import CorrectedFolders
from batchland.data.folders import subfolders, too_few_classes, training_folder
from batchland.data.samples import ClassSamples
from batchland.embeddings.copies import near_copies
from batchland.errors import ErrorCode
from batchland.images.batch import Outcome
from batchland.images.loader import BatchLoader, load_measured
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.folder import IMAGE_EXTENSIONS, list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.card import class_names
from batchland.models.session import open_session
from batchland.system.documents import Document
from batchland.system.names import composed
from batchland.system.text import aligned, count, counted, first_few, one_line, visible

SAMPLES: Final = 8
"""Number of photos of a class on the sample sheet."""
SPEC: Final = PreprocessSpec(jpeg_scale="auto")
"""The default preprocessing of training."""

Part = Literal["train", "val", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "val", "test")


class ClassCheck(Document):
    """One class."""

    folder: str
    label: str
    train: int
    """Readable photos."""
    val: int
    test: int
    unreadable: int
    """Unreadable photos in all parts."""


class UnreadableFile(Document):
    """A photo that cannot be decoded."""

    name: str
    """Path relative to DATA."""
    code: ErrorCode
    message: str


class Duplicates(Document):
    """Photos with the same pixels, or copies of each other that were resized, compressed, cropped or stamped."""

    names: tuple[str, ...]
    """Paths relative to DATA, in listing order."""
    near: bool
    """Whether their pixels are not all the same."""
    two_classes: bool
    """Whether they are in more than one class; then a label is wrong."""
    two_parts: bool
    """Whether they are in more than one part, for example train and test."""


class Finding(Document):
    """A problem or a note about the data."""

    problem: bool
    """True if training or evaluation would fail or give wrong figures; False for a note."""
    text: str


class Sizes(Document):
    """Width and height of the readable photos, in pixels after orientation, and the bytes of their files."""

    width: tuple[int, int, int]
    """Smallest, median, largest."""
    height: tuple[int, int, int]
    bytes: int
    """Total size of all files."""


class DataCheck(Document):
    """The result of a check."""

    data: str
    classes: tuple[ClassCheck, ...]
    sizes: Sizes | None
    """None without a readable photo."""
    unreadable: tuple[UnreadableFile, ...]
    duplicates: tuple[Duplicates, ...]
    corrected: int
    """Number of photos with a corrected label of another class than their folder."""
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """Number of findings that are problems."""
        return sum(finding.problem for finding in self.findings)


def check(
    data: Path,
    *,
    corrections: Path | None = None,
    model: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[DataCheck, list[ClassSamples]]:
    """Read all photos of DATA/train (or DATA), DATA/val and DATA/test. Returns the result and sample photos.

    corrections: a CSV file of corrected labels; a corrected photo counts for the folder of its corrected label.
    model: a model with features, which near-duplicates are also compared by; its preprocessing is used.
    on_progress: called with the number of photos done and their total. Raises UsageError if DATA is not a folder, has
    no class folders, or if corrections do not match its photos; ModelError if the model has no features.
    """
    folder = training_folder(data)
    has_parts = folder != data.absolute()
    roots = {part: data / part for part in PARTS if has_parts and (data / part).is_dir()} or {PARTS[0]: folder}
    folders = sorted({name for root in roots.values() for name in subfolders(root)}, key=str.encode)
    if not folders:
        raise too_few_classes(folder, folders)
    corrected = CorrectedFolders(corrections, data, folders) if corrections else None
    session = open_session(model, "cpu", features=True) if model else None
    survey = _Survey(has_parts, corrected)
    for part, root in roots.items():
        survey.list_part(part, root)
    if corrected:
        corrected.require_moved()
    done = 0
    spec = session.card.preprocess if session else SPEC
    for batch in BatchLoader((photo.ref for photo in survey.photos), spec, load=load_measured):
        if session:
            features = session.answer(batch.pixels).features
            assert features is not None
            good = [each.error is None for each in batch.outcomes]
            survey.features.append(features[good].astype(np.float16))
        for ref, outcome, pixels in zip(batch.refs, batch.outcomes, batch.pixels, strict=True):
            survey.take(survey.photos[done], ref, outcome, pixels)
            done += 1
        if on_progress is not None:
            on_progress(done, len(survey.photos))
    return survey.report(data), survey.samples()


class _Photo(NamedTuple):
    ref: ImageRef
    part: Part
    folder: str
    sampled: bool


@dataclass
class _Survey:
    """Collects counts, sizes, errors and duplicates. has_parts: photos are in DATA/train etc., not in DATA itself."""

    has_parts: bool
    corrected: CorrectedFolders | None
    photos: list[_Photo] = field(default_factory=list)
    folders: dict[Part, list[str]] = field(default_factory=lambda: {part: [] for part in PARTS})
    loose: Counter[Part] = field(default_factory=Counter)
    """Photos outside the class folders."""
    counts: Counter[tuple[Part, str]] = field(default_factory=Counter)
    unreadable: list[UnreadableFile] = field(default_factory=list)
    unreadable_by_class: Counter[str] = field(default_factory=Counter)
    by_pixels: defaultdict[bytes, list[_Photo]] = field(default_factory=lambda: defaultdict(list))
    outcomes: list[Outcome] = field(default_factory=list)
    readable: list[_Photo] = field(default_factory=list)
    """The photos of `outcomes`, in the same order."""
    features: list[npt.NDArray[np.float16]] = field(default_factory=list)
    """The features of these photos, batch by batch, if a model was given."""
    sampled: defaultdict[str, list[Pixels]] = field(default_factory=lambda: defaultdict(list))

    def list_part(self, part: Part, root: Path) -> None:
        self.folders[part] = subfolders(root)
        self.loose[part] = sum(entry.is_file() and entry.suffix.lower() in IMAGE_EXTENSIONS for entry in root.iterdir())
        for folder in self.folders[part]:
            refs = list(list_images(root / folder))
            sampled = {number * len(refs) // SAMPLES for number in range(SAMPLES)}
            for index, ref in enumerate(refs):
                name = f"{part}/{folder}/{ref.name}" if self.has_parts else f"{folder}/{ref.name}"
                of = folder
                if self.corrected:
                    of = self.corrected.folder(part if self.has_parts else "", folder, ref.name)
                self.photos.append(_Photo(ref._replace(name=name), part, of, part == "train" and index in sampled))

    def take(self, photo: _Photo, ref: ImageRef, outcome: Outcome, pixels: Pixels) -> None:
        if outcome.error is not None:
            code, message = outcome.error
            self.unreadable.append(UnreadableFile(name=ref.name, code=code, message=message))
            self.unreadable_by_class[photo.folder] += 1
            return
        self.outcomes.append(outcome)
        self.readable.append(photo)
        self.counts[photo.part, photo.folder] += 1
        self.by_pixels[hashlib.sha256(pixels.tobytes()).digest()].append(photo)
        if photo.sampled:
            self.sampled[photo.folder].append(pixels.copy())

    def samples(self) -> list[ClassSamples]:
        names = class_names(self.folders["train"])
        return [ClassSamples(name.label, self.sampled[name.folder]) for name in names]

    def report(self, data: Path) -> DataCheck:
        exact = [group for group in self.by_pixels.values() if len(group) > 1]
        duplicates = (
            *(_duplicates(group, near=False) for group in exact),
            *(_duplicates(group, near=True) for group in self._near_duplicates(exact)),
        )
        classes = tuple(
            ClassCheck(
                folder=name.folder,
                label=name.label,
                train=self.counts["train", name.folder],
                val=self.counts["val", name.folder],
                test=self.counts["test", name.folder],
                unreadable=self.unreadable_by_class[name.folder],
            )
            for name in class_names(sorted({*chain.from_iterable(self.folders.values())}, key=str.encode))
        )
        findings = (*self._class_findings(classes), *_duplicate_findings(duplicates), *self._file_findings())
        return DataCheck(
            data=str(data),
            classes=classes,
            sizes=_sizes(self.outcomes) if self.outcomes else None,
            unreadable=tuple(self.unreadable),
            duplicates=duplicates,
            corrected=self.corrected.moved.total() if self.corrected else 0,
            findings=findings,
        )

    def _near_duplicates(self, exact: list[list[_Photo]]) -> list[list[_Photo]]:
        """Groups of near-copies that are not in `exact`."""
        features = np.concatenate(self.features) if self.features else None
        rows = near_copies([outcome.signals or b"" for outcome in self.outcomes], features)
        found = [[self.readable[row] for row in group] for group in rows]
        known = {frozenset(photo.ref.name for photo in group) for group in exact}
        return [group for group in found if frozenset(photo.ref.name for photo in group) not in known]

    def _class_findings(self, classes: tuple[ClassCheck, ...]) -> Iterator[Finding]:
        train = set(self.folders["train"])
        least, needed = (1, "one") if self.folders["val"] else (2, "two")
        if len(train) < 2:
            yield Finding(problem=True, text=f"training needs at least two class folders, there are {len(train)}")
        alike = defaultdict[str, list[str]](list)
        for one in classes:
            alike[" ".join(composed(one.folder).casefold().split())].append(one.folder)
        for names in alike.values():
            if len(names) > 1:
                text = f"the class folders {' and '.join(map(ascii, names))} look alike; is that one class?"
                same = len(set(map(composed, names))) < len(names)  # training refuses them
                yield Finding(problem=same, text=text)
        for one in classes:
            if one.folder in train and one.train < least:
                has = "only one readable photo" if one.train else "no readable photo"
                text = f"{one.folder} has {has} to train on; training needs {needed} per class"
                yield Finding(problem=True, text=text)
        for part in PARTS[1:]:
            if unknown := sorted(set(self.folders[part]) - train):
                text = f"{counted(len(unknown), f'{part} folder')} without a folder in train: {first_few(unknown, 5)}"
                yield Finding(problem=True, text=text)
            lacking = [one.folder for one in classes if one.folder in train and not getattr(one, part)]
            if self.folders[part] and lacking:
                text = f"{counted(len(lacking), 'class', 'classes')} without a {part} photo: {first_few(lacking, 5)}"
                yield Finding(problem=part == "val", text=text)

    def _file_findings(self) -> Iterator[Finding]:
        if self.unreadable:
            names = [f"{file.name} ({file.code})" for file in self.unreadable]
            text = f"{counted(len(names), 'photo')} that cannot be read and will be skipped: {first_few(names, 5)}"
            yield Finding(problem=False, text=text)
        for part, loose in self.loose.items():
            if loose:
                text = f"{counted(loose, 'photo')} of {part} outside the class folders will not be used"
                yield Finding(problem=False, text=text)


def _duplicates(group: list[_Photo], *, near: bool) -> Duplicates:
    return Duplicates(
        names=tuple(photo.ref.name for photo in group),
        near=near,
        two_classes=len({photo.folder for photo in group}) > 1,
        two_parts=len({photo.part for photo in group}) > 1,
    )


def _duplicate_findings(duplicates: tuple[Duplicates, ...]) -> Iterator[Finding]:
    """A picture in two classes and in two parts gives two findings, because both must be fixed."""
    for near, noun, wrong, repeated in (
        (False, "picture", "wrong", "more than once in a class"),
        (True, "near-copy group", "probably wrong", "within a class"),
    ):
        alike = [one for one in duplicates if one.near == near]
        of_classes = [one for one in alike if one.two_classes]
        of_parts = [one for one in alike if one.two_parts]
        others = [one for one in alike if not (one.two_classes or one.two_parts)]
        for problem, what, groups in (
            (True, f"in more than one class, so one label is {wrong}", of_classes),
            (True, "in more than one part, which makes accuracy look too good", of_parts),
            (False, repeated, others),
        ):
            if groups:
                named = first_few([(" ~ " if near else " = ").join(group.names[:3]) for group in groups], 5)
                yield Finding(problem=problem, text=f"{counted(len(groups), noun)} {what}: {named}")


def _sizes(outcomes: list[Outcome]) -> Sizes:
    widths, heights, sizes = (
        np.array([getattr(outcome, name) for outcome in outcomes]) for name in ("width", "height", "file_size")
    )
    return Sizes(width=_spread(widths), height=_spread(heights), bytes=int(sizes.sum()))


def _spread(values: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> tuple[int, int, int]:
    """Smallest, median, largest."""
    return int(values.min()), int(median(values.tolist())), int(values.max())


def table(found: DataCheck) -> str:
    """The result as text for a terminal. Ends with a newline."""
    totals = {part: sum(getattr(one, part) for one in found.classes) for part in PARTS}
    parts = [part for part in PARTS if part != "val" or totals[part]]
    train, val, test = totals.values()
    validate = f", {val} to validate" if val else ""
    classes = counted(len(found.classes), "class", "classes")
    lines = [f"{found.data}: {classes}, {train} photos to train{validate} and {test} to test"]
    if found.sizes:
        ranges = [f"{name} {low} to {high}, median {middle}" for name, (low, middle, high) in (
            ("width", found.sizes.width), ("height", found.sizes.height))]  # fmt: skip
        lines.append(f"{'; '.join(ranges)} pixels; {found.sizes.bytes / 1e6:.1f} MB")
    if found.corrected:
        lines.append(f"{counted(found.corrected, 'photo')} counted by a corrected label, not by the folder")
    columns = [*parts, "unreadable"]
    counts = [[one_line(one.folder, 40), *(count(getattr(one, name)) for name in columns)] for one in found.classes]
    lines += aligned([["class", *columns], *counts], "<" + ">" * len(columns))
    lines += [f"{'problem' if finding.problem else 'note'}: {visible(finding.text)}" for finding in found.findings]
    return "\n".join(lines) + "\n"

"""Divide a folder of class folders into train, validation and test folders, by split-folders. Needs no torch.

`train` takes what this makes, or divides by itself, in memory and by the same draw.
"""

import contextlib
import hashlib
import io
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import splitfolders

from batchland.data.folders import class_folders, training_folder
from batchland.data.options import SplitOptions
from batchland.errors import UsageError
from batchland.images.sources.folder import list_images
from batchland.system.folders import new_folder
from batchland.system.text import counted

_THEIR_NAMES: Final = ("train", "val", "test")

Groups = list[tuple[Path, ...]]


class Split(NamedTuple):
    """What was made."""

    folder: Path
    parts: dict[str, dict[str, int]]
    """Part to class folder to number of photos."""


def split(data: Path, out: Path, options: SplitOptions | None = None) -> Split:
    """Copy or link the photos of DATA/train, or of DATA itself, to `out/<part>/<class>/`, class by class.

    The same photos, seed and shares give the same split. Copies of a photo in a class stay together. `out` appears
    whole or not at all, DATA is left as it is.

    Raises UsageError if DATA is no folder of class folders or holds `out`, a class has too few photos for every part to
    get one, or photos lie below the class folders; OutputError if `out` cannot be written.
    """
    options = options or SplitOptions()
    if out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"{out}: lies inside {data}, which is left as it is; give an --out elsewhere")
    folder = training_folder(data)
    classes = class_folders(folder)
    photos = {name: _names(folder / name) for name in classes}
    if options.group_prefix:
        _require_match(folder, options.group_prefix, [name for names in photos.values() for name in names])
    with new_folder(out) as made:
        _run(folder, made, {Path(name).suffix for names in photos.values() for name in names}, options)
        parts = {
            part: {name: sum(1 for _ in (made / theirs / name).iterdir()) for name in classes}
            for part, theirs in zip(options.parts, _THEIR_NAMES, strict=False)
        }
        for name in classes:
            _require_some(folder / name, len(photos[name]), {part: counts[name] for part, counts in parts.items()})
        _name(made, options.parts, classes)
    return Split(out, parts)


def _names(folder: Path) -> list[str]:
    """The photos of a class."""
    names = []
    for ref in list_images(folder):
        if ref.error:
            raise UsageError(f"{folder / ref.name}: {ref.error[1]}")
        if "/" in ref.name:
            raise UsageError(f"{folder}: photos lie in folders below it ({ref.name}); move them up, or train without")
        names.append(ref.name)
    if not names:
        raise UsageError(f"{folder}: holds no photos; add some or remove the folder")
    return names


def _require_match(folder: Path, prefix: re.Pattern[str], names: list[str]) -> None:
    if not any((match := prefix.match(name)) and match[0] for name in names):
        raise UsageError(
            f"--group-prefix {prefix.pattern}: matches the beginning of no name below {folder} (one is {names[0]}), so "
            f"nothing would stay together"
        )


def _run(folder: Path, made: Path, extensions: set[str], options: SplitOptions) -> None:
    with _random_state_kept(), _quiet_unless_watched():
        try:
            splitfolders.ratio(
                folder,
                made,
                seed=options.seed,
                ratio=tuple(options.parts.values()),
                group=_staying_together(options.group_prefix),
                move="symlink" if options.links else "copy",
                formats=extensions,
            )
        except OSError as error:
            if error.filename is not None and Path(error.filename).is_relative_to(folder):
                raise UsageError(f"{error.filename}: cannot be read ({error.strerror})") from error
            raise


def _staying_together(prefix: re.Pattern[str] | None) -> Callable[[Sequence[Path]], Groups]:
    """Photos of the same bytes, and those whose names match alike, and whatever these have in common."""

    def group(photos: Sequence[Path]) -> Groups:
        nearer: dict[object, object] = {}  # from photos, contents and matches towards the one that stands for a group

        def group_of(one: object) -> object:
            while one in nearer:
                one = nearer[one]
            return one

        for photo in photos:
            match = prefix and prefix.match(photo.name)
            for tie in filter(None, (_digest(photo), match and match[0])):
                ours, theirs = group_of(photo), group_of(tie)
                if ours != theirs:
                    nearer[ours] = theirs
        groups: dict[object, list[Path]] = {}
        for photo in sorted(photos):
            groups.setdefault(group_of(photo), []).append(photo)
        return [tuple(members) for members in groups.values()]

    return group


def _digest(photo: Path) -> bytes:
    with photo.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _require_some(folder: Path, photos: int, counts: dict[str, int]) -> None:
    if sum(counts.values()) != photos:
        raise UsageError(f"{folder}: changed while it was divided; give the command again")
    for part, count in counts.items():
        if not count:
            raise UsageError(
                f"{folder}: none of its {counted(photos, 'photo')} would get into {part}; add some, remove the "
                f"folder, or give other shares"
            )


def _name(made: Path, parts: dict[str, float], classes: list[str]) -> None:
    """Give the parts their names, without the hidden folders that split-folders took for classes."""
    for theirs in _THEIR_NAMES[: len(parts)]:
        for folder in (made / theirs).iterdir():
            if folder.name not in classes:
                shutil.rmtree(folder)
        (made / theirs).rename(made / f".{theirs}")  # in two steps, so that none is in another's way
    for part, theirs in zip(parts, _THEIR_NAMES, strict=False):
        (made / f".{theirs}").rename(made / part)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """split-folders seeds the global generator."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _quiet_unless_watched() -> Iterator[None]:
    """split-folders draws its bar on whatever stderr is, a log as well."""
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        yield

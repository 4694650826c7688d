"""Split a folder of class folders into train, validation and test folders, with split-folders.

`train` accepts the result, or makes the same split in memory.
"""

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import splitfolders

from batchland.data.corrections import CorrectedFolders
from batchland.data.folders import class_folders, training_folder
from batchland.data.options import SplitOptions
from batchland.embeddings.photos import read_photos
from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef
from batchland.models.session import open_session
from batchland.system.files import read_error
from batchland.system.folders import new_folder
from batchland.system.paths import resolved

_TOOL_NAMES: Final = ("train", "val", "test")
_SPEC: Final = PreprocessSpec(jpeg_scale="auto")

Groups = list[tuple[Path, ...]]


class Split(NamedTuple):
    """The new folder and its numbers of photos."""

    folder: Path
    parts: dict[str, dict[str, int]]
    """`parts[part][class folder]` is a number of photos."""


def split(data: Path, out: Path, options: SplitOptions | None = None) -> Split:
    """Copy or link the photos of DATA/train, or of DATA itself, to `out/<part>/<class>/`, class by class.

    The same photos, seed and shares give the same split. Copies of a photo in a class go to the same part; with
    `near_copies`, also near-copies. Photos with a corrected label go to the folder of that label, with the name
    `OLD_FOLDER-NAME` if that folder has a photo with their name. `out` appears complete or not at all; DATA is not
    changed.

    Raises UsageError if DATA has no class folders or contains `out`, if a class has too few photos for every part, or
    if photos are in subfolders of the class folders; ModelError if the model has no features; OutputError if `out`
    cannot be written.
    """
    options = options or SplitOptions()
    if resolved(out).is_relative_to(resolved(data)):
        raise UsageError(f"{out}: is inside {data}, which is not changed", advice="out_elsewhere")
    folder = training_folder(data)
    classes = class_folders(folder)
    photos = {name: _names(folder / name) for name in classes}
    if options.group_prefix:
        _require_match(folder, options.group_prefix, [name for names in photos.values() for name in names])
    with new_folder(out) as made, _corrected(data, folder, photos, options.corrections) as (source, names):
        _split_into(source, made, [source / name / photo for name, found in names.items() for photo in found], options)
        parts = {
            part: {name: sum(1 for _ in (made / tool_name / name).iterdir()) for name in classes}
            for part, tool_name in zip(options.parts, _TOOL_NAMES, strict=False)
        }
        for name in classes:
            _require_photos(folder / name, len(names[name]), {part: counts[name] for part, counts in parts.items()})
        _rename_parts(made, options.parts, classes)
    return Split(out, parts)


@contextlib.contextmanager
def _corrected(
    data: Path, folder: Path, photos: dict[str, list[str]], corrections: Path | None
) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """A temporary folder of links with each photo in the folder of its corrected label, and the names of the photos.

    Without corrections, it is the folder itself. Raises UsageError if corrections do not match the photos.
    """
    if corrections is None:
        yield folder, photos
        return
    corrected = CorrectedFolders(corrections, data, list(photos))
    found: dict[str, list[str]] = {name: [] for name in photos}
    with tempfile.TemporaryDirectory(prefix="batchland-") as links:
        for name in photos:
            Path(links, name).mkdir()
        for old, names in photos.items():
            for name in names:
                new = corrected.folder("train" if folder != data.absolute() else "", old, name)
                link = name
                while new != old and link in (*photos[new], *found[new]):
                    link = f"{old}-{link}"
                Path(links, new, link).symlink_to(folder / old / name)
                found[new].append(link)
        corrected.require_moved()
        yield Path(links), found


def _names(folder: Path) -> list[str]:
    """File names of the photos of a class. Raises UsageError if there are none, or some in subfolders."""
    names = []
    for ref in list_images(folder):
        if ref.error:
            raise UsageError(f"{folder / ref.name}: {ref.error[1]}")
        if "/" in ref.name:
            raise UsageError(f"{folder}: has photos in subfolders ({ref.name}); move them up")
        names.append(ref.name)
    if not names:
        raise UsageError(f"{folder}: has no photos; add some or remove the folder")
    return names


def _require_match(folder: Path, prefix: re.Pattern[str], names: list[str]) -> None:
    if not any((match := prefix.match(name)) and match[0] for name in names):
        raise UsageError(
            f"group_prefix {prefix.pattern}: matches the start of no file name in {folder} (one is {names[0]})"
        )


def _split_into(folder: Path, made: Path, photos: Sequence[Path], options: SplitOptions) -> None:
    grouping = _grouping(photos, options)
    with _restore_random_state(), _show_bar_on_terminals_only():
        try:
            splitfolders.ratio(
                folder,
                made,
                seed=options.seed,
                ratio=tuple(options.parts.values()),
                group=grouping,
                move="symlink" if options.links else "copy",
                formats={photo.suffix for photo in photos},
            )
        except OSError as error:
            if error.filename is not None and Path(error.filename).is_relative_to(folder):
                raise read_error(error, error.filename) from error
            raise


def _grouping(photos: Sequence[Path], options: SplitOptions) -> Callable[[Sequence[Path]], Groups]:
    """Group copies of photos, and photos with the same match of their names, transitively. photos: of all classes."""
    prefix = options.group_prefix
    near = _near_copies(photos, options.model) if options.near_copies else {}

    def group(photos: Sequence[Path]) -> Groups:
        parents: dict[object, object] = {}  # union-find over photos, contents, matches and numbers of near-copies

        def group_of(one: object) -> object:
            while one in parents:
                one = parents[one]
            return one

        for photo in photos:
            match = prefix and prefix.match(photo.name)
            for key in filter(None, (_digest(photo), match and match[0], near.get((photo.parent.name, photo.name)))):
                one, other = group_of(photo), group_of(key)
                if one != other:
                    parents[one] = other
        groups: dict[object, list[Path]] = {}
        for photo in sorted(photos):
            groups.setdefault(group_of(photo), []).append(photo)
        return [tuple(members) for members in groups.values()]

    return group


def _near_copies(photos: Sequence[Path], model: Path | None) -> dict[tuple[str, str], int]:
    """Class folder and name of each photo that has near-copies, and the number of their group, from 1."""
    session = open_session(model, "cpu", features=True) if model else None
    refs = (ImageRef(str(photo), os.fsencode(photo)) for photo in photos)
    read = read_photos(refs, session.card.preprocess if session else _SPEC, session)
    found = ((number, Path(read.names[row])) for number, rows in enumerate(read.copies(), 1) for row in rows)
    return {(photo.parent.name, photo.name): number for number, photo in found}


def _digest(photo: Path) -> bytes:
    with photo.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _require_photos(folder: Path, photos: int, counts: dict[str, int]) -> None:
    if sum(counts.values()) != photos:
        raise UsageError(f"{folder}: changed while it was split; split it again")
    for part, count in counts.items():
        if not count:
            raise UsageError(
                f"{folder}: has too few photos ({photos}) for {part} to get one; add some, remove the folder "
                f"or change the shares"
            )


def _rename_parts(made: Path, parts: dict[str, float], classes: list[str]) -> None:
    """Rename the parts, and remove the hidden folders that split-folders treats as classes."""
    for tool_name in _TOOL_NAMES[: len(parts)]:
        for folder in (made / tool_name).iterdir():
            if folder.name not in classes:
                shutil.rmtree(folder)
        (made / tool_name).rename(made / f".{tool_name}")  # in two steps, because names may be swapped
    for part, tool_name in zip(parts, _TOOL_NAMES, strict=False):
        (made / f".{tool_name}").rename(made / part)


@contextlib.contextmanager
def _restore_random_state() -> Iterator[None]:
    """Restore the global random generator, which split-folders seeds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _show_bar_on_terminals_only() -> Iterator[None]:
    """Silence split-folders' progress bar where stderr is not a terminal."""
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        yield

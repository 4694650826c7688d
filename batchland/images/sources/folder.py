"""List a local folder of images in a stable order, without opening a file."""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from batchland.errors import InputError, NoSuchImagesError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.system.names import display_name, display_path, file_name
from batchland.system.paths import resolved
from batchland.system.retries import storage_failed

IMAGE_EXTENSIONS: Final = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
        ".heic", ".heif", ".hif", ".avif", ".jxl",
    )
)  # fmt: skip
"""Lower case. The extension only selects a file; its content decides how it is decoded. HEIF and JPEG XL are listed
even where the packages that read them are missing, so that their files count as failed."""
FolderT = TypeVar("FolderT")


class Folder:
    """A local folder as a Source; see `list_images`."""

    countable = True
    is_sorted = True

    def __init__(self, root: str | os.PathLike[str], *, all_files: bool = False, follow_links: bool = False) -> None:
        self.name = display_path(resolved(root))
        self._root = root
        self._options = {"all_files": all_files, "follow_links": follow_links}

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """See `list_images`. Raises NoSuchImagesError if it is a file."""
        if os.path.isfile(self._root):  # noqa: PTH113 - any kind of path
            raise NoSuchImagesError(
                f"{display_path(self._root)}: is a file; give a folder of images, or classify single files with "
                f"`batchland predict`",
                advice="image_list",
            )
        return list_images(self._root, **self._options, ignored=ignored)

    def check(self) -> None:
        """See `check_folder`."""
        check_folder(self._root)

    def inputs(self) -> Iterable[str]:
        """The folder."""
        return [os.fspath(self._root)]

    def key(self, ref: ImageRef) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def planned(self, name: str, key: bytes) -> ImageRef:  # noqa: ARG002
        """See `Source.planned`."""
        return ImageRef(name, os.path.join(os.fsencode(self._root), file_name(name)))  # noqa: PTH118 - bytes

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """See `list_for_retry`."""
        return list_for_retry(self._root, name, **self._options)


def list_images(
    root: str | os.PathLike[str],
    *,
    all_files: bool = False,
    follow_links: bool = False,
    ignored: Ignored | None = None,
) -> Iterator[ImageRef]:
    """List the images below `root`, ordered by the bytes of their paths. Holds the names of one folder at a time.

    Lists regular files and links to files, by extension (any with `all_files`). Skips hidden names, FIFOs, devices and
    dangling links; follows links to folders with `follow_links`, but never in a loop. Opens no file, and calls stat for
    links only. A folder that cannot be listed, even after retries, is yielded as a ref with the error `unreadable` and
    becomes a failed row. Counts skipped files in `ignored`.

    Raises what `check_folder` raises.
    """
    check_folder(root)
    counts = ignored.counts if ignored is not None else Counter()
    folder: _Folder = (os.fsencode(root), b"", ())
    return walk(folder, _Lister(all_files, follow_links, counts).entries)


def check_folder(root: str | os.PathLike[str]) -> None:
    """Check that `root` is a folder that can be listed.

    Raises NoSuchImagesError if not, UsageError if access to it is refused, InputError if its storage fails; the last
    two after retries.
    """
    top = os.fsencode(root)
    problem = "does not exist"
    try:
        refs.retries.call(lambda: os.scandir(top).close())
        return
    except NotADirectoryError:
        problem = "is not a folder" if os.path.exists(top) else problem  # noqa: PTH110 - bytes
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = f"{display_name(top)}: cannot be opened ({error.strerror})"
        if storage_failed(error):
            raise InputError(reason) from error
        raise UsageError(f"{reason}; give a folder of images") from error
    raise NoSuchImagesError(f"{display_name(top)}: {problem}; give a folder of images")


def list_for_retry(
    root: str | os.PathLike[str], name: str, *, all_files: bool = False, follow_links: bool = False
) -> Iterator[ImageRef]:
    """The images that replace a failed row: the image itself, or all images below a folder that was `unreadable`.

    name: as given by `list_images`. An image need not exist any more.
    """
    relative = file_name(name)
    path = os.path.join(os.fsencode(root), relative)  # noqa: PTH118 - pathlib has no bytes
    if relative.endswith(b"/"):
        prefix = b"" if relative == b"./" else relative
        folder: _Folder = (path.rstrip(b"/"), prefix, ())
        return walk(folder, _Lister(all_files, follow_links, Counter()).entries)
    return iter([ImageRef(name, path)])


def walk(top: FolderT, entries: Callable[[FolderT], Iterator[ImageRef | FolderT]]) -> Iterator[ImageRef]:
    """All images below `top`, depth first. `entries` gives the images and subfolders of one folder, in order."""
    stack = [entries(top)]
    while stack:  # not recursive: a tree may be deeper than Python's stack
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, ImageRef):
            yield entry
        else:
            stack.append(entries(entry))


def kind_by_name(name: bytes, *, all_files: bool) -> str:
    """`file` if a file of that name is an image; else the kind that it is counted as: `hidden` or its extension."""
    if name.startswith(b"."):
        return "hidden"
    extension = display_name(os.path.splitext(name)[1].lower())  # noqa: PTH122
    if all_files or extension in IMAGE_EXTENSIONS:
        return "file"
    return extension or "no extension"


def kind_in_archive(path: bytes, *, all_files: bool) -> str:
    """`kind_by_name` of a file at that path in an archive. What macOS adds to archives is `hidden`."""
    *folders, name = name_in_archive(path).split(b"/")
    if b".." in re.split(rb"[/\\]", path):
        return "path with .."
    if any(folder.startswith(b".") or folder == b"__MACOSX" for folder in folders):
        return "hidden"
    return kind_by_name(name, all_files=all_files)


def name_in_archive(path: bytes) -> bytes:
    """A path in an archive without `./`, at its beginning and inside."""
    return re.sub(rb"(^|(?<=/))(\./+)+", b"", path)


_FolderId = tuple[int, int]
_Folder = tuple[bytes, bytes, tuple[_FolderId, ...]]
"""A folder to list: its path, its name below the root with a `/`, and the folders above it (to detect link loops)."""


@dataclass(frozen=True)
class _Lister:
    all_files: bool
    follow_links: bool
    ignored: Counter[str]

    def entries(self, to_list: _Folder) -> Iterator[ImageRef | _Folder]:
        """The images and subfolders of one folder, in order."""
        folder, prefix, above = to_list
        try:
            if self.follow_links:
                status = os.stat(folder)
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    self.ignored["link loop"] += 1
                    return
                above = (*above, identity)
            names = refs.retries.call(lambda: self._names(folder))
        except OSError as error:
            reason = f"the folder cannot be listed: {error.strerror}"
            yield ImageRef(display_name(prefix) or "./", folder, ("unreadable", reason))
            return
        within = os.path.join(folder, b"")  # noqa: PTH118 - pathlib has no bytes
        for name in names:
            if name.endswith(b"/"):
                yield within + name[:-1], prefix + name, above
            else:
                yield ImageRef(display_name(prefix + name), within + name)

    def _names(self, folder: bytes) -> list[bytes]:
        """Names of a folder's images and subfolders, sorted. Subfolders end in `/`, so paths are in order."""
        names, ignored = [], Counter[str]()
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = self._kind(entry)
                if kind in ("file", "folder"):
                    names.append(entry.name + b"/" if kind == "folder" else entry.name)
                else:
                    ignored[kind] += 1
        self.ignored.update(ignored)  # only now: a listing that fails halfway is retried
        return sorted(names)

    def _kind(self, entry: os.DirEntry[bytes]) -> str:
        if entry.name.startswith(b"."):
            return "hidden"
        if entry.is_symlink():
            try:
                mode = entry.stat().st_mode
            except OSError:
                return "dangling link"
            if stat.S_ISDIR(mode):
                return "folder" if self.follow_links else "link to a folder"
            if not stat.S_ISREG(mode):
                return "not a regular file"
        elif entry.is_dir():
            return "folder"
        elif not entry.is_file():
            return "not a regular file"
        return kind_by_name(entry.name, all_files=self.all_files)

"""An output that is there, to be read: the same for a path and a URL. Knows nothing of rows."""

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from batchland.predictions.layout import manifest_path
from batchland.system.urls import display_url

if TYPE_CHECKING:
    from batchland.predictions.objects import Objects

Stamp = tuple[int, int]
"""Size in bytes, and modification time in nanoseconds."""


class Stored(Protocol):
    """A predictions file, or a folder of parts. Its methods raise OSError."""

    name: str
    """For people: a path or a URL."""
    kind: Literal["file", "folder"] | None
    """What is there, when it was first looked at."""

    def parts(self) -> list[str]:
        """Names of the Parquet files, in order, as they lie there; of a file, its own."""

    def folders(self) -> list[str]:
        """Names of the folders that lie in a folder, in order."""

    def stamp(self, part: str) -> Stamp:
        """Tells a file from one that replaces it."""

    def open(self, part: str) -> Any:
        """A file as pyarrow reads it; to be closed."""

    def manifest(self) -> bytes:
        """The manifest's JSON text."""


def open_stored(out: Path | str) -> Stored:
    """What is stored at a path or a URL. Raises UsageError or InputError if the URL cannot be used."""
    if isinstance(out, Path):
        return _LocalFiles(out)
    from batchland.predictions.objects import Objects  # only who has URLs pays for it

    return _RemoteFiles(Objects.at(out), display_url(out).rstrip("/"))


class _LocalFiles:
    def __init__(self, out: Path) -> None:
        self.name = str(out)
        self.kind: Literal["file", "folder"] | None = None
        if out.exists():
            self.kind = "folder" if out.is_dir() else "file"
        self._out = out

    def parts(self) -> list[str]:
        if self.kind == "folder":
            return sorted(path.name for path in self._out.glob("part-*.parquet"))
        return [self._out.name]

    def folders(self) -> list[str]:
        return sorted(path.name for path in self._out.iterdir() if path.is_dir())

    def stamp(self, part: str) -> Stamp:
        status = self._path(part).stat()
        return status.st_size, status.st_mtime_ns

    def open(self, part: str) -> Any:
        return self._path(part).open("rb")

    def manifest(self) -> bytes:
        return manifest_path(self._out).read_bytes()

    def _path(self, part: str) -> Path:
        return self._out / part if self.kind == "folder" else self._out


class _RemoteFiles:
    def __init__(self, objects: "Objects", name: str) -> None:
        self.name = name
        self._objects = objects
        self._out = PurePosixPath(objects.location.path)
        info = objects.first_info(self._out)
        self.kind: Literal["file", "folder"] | None = {"File": "file", "Directory": "folder"}.get(info.type.name)  # type: ignore[assignment]

    def parts(self) -> list[str]:
        if self.kind == "folder":
            names = self._objects.list(self._out)
            return sorted(name for name in names if fnmatchcase(name, "part-*.parquet"))
        return [self._out.name]

    def folders(self) -> list[str]:
        return sorted(name for name, info in self._objects.list(self._out).items() if not info.is_file)

    def stamp(self, part: str) -> Stamp:
        info = self._objects.info(self._path(part))
        if not info.is_file:
            raise FileNotFoundError(f"{part} is gone")
        return info.size, info.mtime_ns or 0

    def open(self, part: str) -> Any:
        return self._objects.open(self._path(part))

    def manifest(self) -> bytes:
        return bytes(self._objects.get(manifest_path(self._out)).to_pybytes())

    def _path(self, part: str) -> PurePosixPath:
        return self._out / part if self.kind == "folder" else self._out

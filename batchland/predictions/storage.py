"""Where predictions go, and their unfinished parts until then. Knows nothing of rows or listings.

`open_output` is the door; each kind of place has a module here.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import pyarrow as pa

from batchland.errors import UsageError
from batchland.predictions.layout import is_file_output, manifest_path, part_name
from batchland.predictions.local import LocalOutput
from batchland.predictions.reader import Stored, open_stored
from batchland.predictions.schema import WrittenFile
from batchland.system.names import display_path
from batchland.system.urls import display_url, is_url, local_path

__all__ = [
    "Output",
    "Stored",
    "below",
    "display_location",
    "is_file_output",
    "manifest_path",
    "manifest_place",
    "open_output",
    "open_stored",
    "part_name",
    "place",
    "public_place",
]


_OTHER_FILES: Final = frozenset((".csv", ".tsv", ".txt", ".json", ".jsonl", ".html", ".xlsx", ".pq", ".onnx"))
"""Nobody who gives such a name wants a folder of parts."""


class Output(AbstractContextManager["Output"], Protocol):
    """A place for one output, held by one run from entering to leaving.

    Between `begin` and `publish` finished parts gather, by index; a killed run leaves them to the next one. A part, the
    output and the manifest each appear whole or not at all.
    """

    name: str
    """For people and JSON: an absolute path or a URL."""
    notes_dir: Path
    """A folder of this machine for notes of the unfinished run, there from `begin` to `publish`."""

    def begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        """Keep the parts of an unfinished run of that fingerprint, unless `restart`; discard any others.

        Raises UsageError if there is an output (unless `overwrite`, or that run was killed while it published).
        """

    def has_part(self, index: int) -> bool:
        """Whether that part is there."""

    def read_part(self, index: int) -> pa.Table:
        """A part as it was written, with its metadata. Raises OSError or pa.ArrowException."""

    def write_part(self, index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
        """Write a part, or replace it. Raises OSError."""

    def assemble(
        self, parts: Iterable[pa.Table], schema: pa.Schema, row_group_size: int | None = None
    ) -> list[WrittenFile]:
        """Put the output together, of one table a part. Raises OSError.

        schema: of all of them, with the metadata of the output. row_group_size: rows per row group in a folder of
        parts; None takes the whole part.
        """

    def publish(self, manifest: str) -> None:
        """Let what is assembled appear, the manifest last, and drop the parts. Raises OSError."""

    def errors(self) -> AbstractContextManager[None]:
        """Turns an OSError into an OutputError that says what it means for the run."""


def open_output(out: Path | str) -> Output:
    """The output that `out` means: a file or folder of this machine, or the URL of one elsewhere.

    Raises UsageError if it is called as a file of another kind, UsageError or InputError if the URL cannot be used.
    """
    name = display_location(out)
    stem, suffix = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122 - of a URL, too
    if suffix.lower() in _OTHER_FILES:
        raise UsageError(f"{name}: predictions are written as Parquet; call --out {stem}.parquet or {stem}")
    if isinstance(out, Path):
        return LocalOutput(out)
    from batchland.predictions.remote import RemoteOutput  # only who has URLs pays for it

    return RemoteOutput(out)


def place(out: str | os.PathLike[str]) -> Path | str:
    """Where `out` is: an absolute path, also of a file:// URL, or the URL of a place elsewhere."""
    if not is_url(out):
        return Path(os.path.abspath(out))  # noqa: PTH100 - keeps links as they are
    url = os.fspath(out)
    path = local_path(url)
    return url if path is None else place(path)


def display_location(out: Path | str) -> str:
    """A `place` for people and JSON."""
    return display_path(out) if isinstance(out, Path) else display_url(out).rstrip("/")


def public_place(out: Path | str) -> Path | str:
    """A `place` as a caller may get it: a URL without credentials and options."""
    return out if isinstance(out, Path) else display_location(out)


def below(out: Path | str, name: str) -> Path | str:
    """A place in a folder that is a `place`."""
    if isinstance(out, Path):
        return out / name
    address, mark, options = out.partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{options}"


def manifest_place(out: Path | str) -> Path | str:
    """Where the manifest of the output at a `place` is, for people."""
    if isinstance(out, Path):
        return manifest_path(out)
    folder, _, last = display_location(out).rpartition("/")
    manifest = manifest_path(PurePosixPath(last))
    return f"{folder}/{manifest}"

"""The locations that predictions are written to: paths of this machine and URLs, each behind the same interface.

`open_output` chooses the implementation: local.py or remote.py.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import pyarrow as pa

from batchland.errors import LockedError, UsageError
from batchland.predictions.layout import manifest_path
from batchland.predictions.local import LocalOutput
from batchland.predictions.schema import WrittenFile
from batchland.system.names import display_path
from batchland.system.urls import display_url, is_url, local_path

Location = Path | str
"""A path on this machine, or a URL."""
_OTHER_FILES: Final = frozenset((".csv", ".tsv", ".txt", ".json", ".jsonl", ".html", ".xlsx", ".pq", ".onnx"))
"""An output with one of these suffixes is refused: the user expects this file format, not a folder of parts."""


class Output(AbstractContextManager["Output"], Protocol):
    """One output. A run holds its lock while it is in the context.

    Between `begin` and `publish`, finished parts are stored by index; after a killed run, the next run continues with
    them. A part, the output and the manifest each appear whole or not at all.
    """

    name: str
    """For messages and JSON: an absolute path or a URL."""
    notes_dir: Path
    """A folder on this machine for notes of the unfinished run. It exists from `begin` to `publish`."""
    is_file: bool
    """Whether it is one file; otherwise it is a folder of parts."""

    def begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        """Keep the parts of an unfinished run with that fingerprint, unless `restart`; discard all other parts.

        Raises UsageError if the output exists, unless `overwrite` is set or that run was killed while it published.
        """

    def join(self, fingerprint: str) -> None:
        """Take part in a run with that fingerprint that another process has begun and has locked.

        After that, parts and files can be read and written. Raises OSError if that run cannot be found here.
        """

    def has_part(self, index: int) -> bool:
        """Whether a part is stored."""

    def read_part(self, index: int) -> pa.Table:
        """A part as it was written, with its metadata. Raises OSError or pa.ArrowException."""

    def write_part(self, index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
        """Write a part, or replace it. Raises OSError."""

    def assemble_file(self, parts: Iterable[pa.Table], schema: pa.Schema) -> WrittenFile:
        """Write the one file from one table per part. schema: has the output's metadata. Raises OSError."""

    def begin_files(self) -> None:
        """Prepare a folder of parts for its files. Raises OSError."""

    def write_file(
        self, index: int, table: pa.Table, schema: pa.Schema, row_group_size: int | None = None
    ) -> WrittenFile:
        """Write one file of a folder of parts. Several processes may do so at once. Raises OSError.

        row_group_size: rows per row group; None for one row group.
        """

    def end_files(self, files: list[WrittenFile]) -> None:
        """Finish the folder, which consists of these files. Raises OSError."""

    def publish(self, manifest: str) -> None:
        """Make the assembled output visible, the manifest last, and remove the parts. Raises OSError."""

    def has_leftovers(self) -> bool:
        """Whether there may be leftovers of a killed run beside it. Needs no lock. Raises OSError."""

    def remove_leftovers(self) -> None:
        """Remove leftovers beside a complete output, except parts that were not published. Raises OSError."""

    def errors(self) -> AbstractContextManager[None]:
        """Context that turns an OSError into an OutputError with a remedy."""


def open_output(location: Path | str) -> Output:
    """The output at a location that `output_location` gave.

    Raises UsageError if its name has the suffix of another file format, UsageError or InputError if the URL cannot be
    used.
    """
    name = display_location(location)
    stem, suffix = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122 - of a URL, too
    if suffix.lower() in _OTHER_FILES:
        raise UsageError(f"{name}: predictions are written as Parquet; name the output {stem}.parquet or {stem}")
    if isinstance(location, Path):
        return LocalOutput(location)
    from batchland.predictions.remote import RemoteOutput  # slow to import; local outputs do not need it

    return RemoteOutput(location)


def remove_leftovers(location: Path | str) -> None:
    """Remove what a killed run left beside a complete output, except parts that it did not publish: a run resumes them.

    Does nothing while another run writes the output. Raises OutputError, UsageError, InputError.
    """
    output = open_output(location)
    with suppress(LockedError), output.errors():
        if output.has_leftovers():
            with output:
                output.remove_leftovers()


def output_location(out: str | os.PathLike[str]) -> Path | str:
    """An absolute path, also for a file:// URL; any other URL as it is."""
    if not is_url(out):
        return Path(os.path.abspath(out))  # noqa: PTH100 - keeps links as they are
    url = os.fspath(out)
    path = local_path(url)
    return url if path is None else output_location(path)


def input_location(location: str | os.PathLike[str]) -> Path | str:
    """A path as it was given, also for a file:// URL; any other URL as it is."""
    return output_location(location) if is_url(location) else Path(location)


def display_location(location: Path | str) -> str:
    """A location for messages and JSON: a path as text, or a URL without credentials and options."""
    return display_path(location) if isinstance(location, Path) else display_url(location).rstrip("/")


def public_location(location: Path | str) -> Path | str:
    """A location without credentials and options: a path, or a URL."""
    return location if isinstance(location, Path) else display_location(location)


def split_location(location: Path | str) -> tuple[Path | str, str]:
    """The folder that a location is in, and its name there."""
    if isinstance(location, Path):
        return location.parent, location.name
    address, mark, options = location.partition("?")
    folder, _, name = address.rstrip("/").rpartition("/")
    return f"{folder}{mark}{options}", name


def join_location(folder: Path | str, name: str) -> Path | str:
    """The location of an entry of a folder."""
    if isinstance(folder, Path):
        return folder / name
    address, mark, options = folder.partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{options}"


def manifest_location(location: Path | str) -> Path | str:
    """Where the manifest of an output is: a path, or a URL without credentials and options."""
    if isinstance(location, Path):
        return manifest_path(location)
    folder, _, last = display_location(location).rpartition("/")
    return f"{folder}/{manifest_path(PurePosixPath(last))}"

"""An output on a file system of this machine: every file is synced to disk and appears by rename.

Beside an output `p.parquet`, during a run and after a killed one:

    .p.parquet.lock     the lock, with its holder
    .p.parquet.parts/   run.json (the fingerprint), part-000000.parquet ..., `publishing` once all parts are there
    .p.parquet.new      the output being assembled
    .p.parquet.old      the old folder, while it is being replaced
"""

import errno
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import OutputError, UsageError
from batchland.predictions.layout import (
    PUBLISHING,
    RUN_NOTE,
    check_replaceable,
    count_rows,
    is_file_output,
    is_predictions,
    manifest_path,
    parquet_options,
    part_name,
    read_table,
    warn_discarded,
    write_table,
)
from batchland.predictions.schema import WrittenFile
from batchland.system.files import open_new, remove, replace_file, swap, sync
from batchland.system.lock import locked

_MAX_NAME_BYTES: Final = 255 - len("..parts")
"""Longest name of an output, in bytes: file systems allow 255, and its parts are in `.NAME.parts`."""

_log = logging.getLogger("batchland")


class LocalOutput:
    """Implements `Output`. The kernel frees the lock of a killed run."""

    def __init__(self, out: Path) -> None:
        self.name = str(out)
        self.is_file = is_file_output(out)
        self._out = out
        self._parts = self.notes_dir = out.parent / f".{out.name}.parts"
        self._assembly = out.parent / f".{out.name}.new"
        self._replaced = out.parent / f".{out.name}.old"
        self._may_replace = False
        self._joined: str | None = None
        """The fingerprint of the run that this process has joined without its lock."""
        self._lock_file = out.parent / f".{out.name}.lock"
        self._lock = locked(self._lock_file, self.name)

    def __enter__(self) -> Self:
        if (length := len(os.fsencode(self._out.name))) > _MAX_NAME_BYTES:
            raise UsageError(
                f"{self.name}: its name has {length} bytes, and only {_MAX_NAME_BYTES} leave room for the names of the "
                f"files beside it; give a shorter one"
            )
        with self.errors():
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):
                remove(self._assembly)  # a later run does not use it, and it may have filled the disk
        self._lock.__exit__(kind, error, trace)

    def begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        """As `Output`."""
        if self._replaced.exists():  # an overwriting run was killed between its two renames
            if not self._out.exists():
                self._replaced.rename(self._out)
            remove(self._replaced)
        remove(self._assembly)
        if self._parts.is_symlink():  # somebody planted it to make us write elsewhere
            raise OSError(errno.ELOOP, f"{self._parts.name} is a link; remove it", str(self._parts))
        note = self._parts / RUN_NOTE
        known = note.read_text("utf-8") if note.exists() else None
        # A run of this fingerprint was killed while it replaced the output: complete that.
        self._may_replace = overwrite or (known == fingerprint and (self._parts / PUBLISHING).exists())
        self._check_replaceable()
        if known and known != fingerprint and not restart:
            images = sum(map(count_rows, self._parts.glob("part-*.parquet")))
            warn_discarded(self.name, known, fingerprint, images)
        if known != fingerprint or restart:
            remove(self._parts)
            self._parts.mkdir()
            replace_file(note, fingerprint)

    def _check_replaceable(self) -> None:
        check_replaceable(
            self._out,
            None if not self._out.exists() else "folder" if self._out.is_dir() else "file",
            file_output=self.is_file,
            ours=self._is_ours,
            replace=self._may_replace,
        )

    def _is_ours(self) -> bool:
        if manifest_path(self._out).exists():
            return True
        if self._out.is_dir():
            return not any(self._out.iterdir())
        return not self._out.stat().st_size or is_predictions(self._out)

    def join(self, fingerprint: str) -> None:
        """As `Output`."""
        self._joined = fingerprint
        self._check_taken_over()

    def _check_taken_over(self) -> None:
        """Raise OSError if this process has joined a run that has ended."""
        if self._joined is not None and (self._parts / RUN_NOTE).read_text("utf-8") != self._joined:
            raise OSError(None, "another run has started to write it")

    def has_part(self, index: int) -> bool:
        """As `Output`."""
        return self._part_path(index).exists()

    def read_part(self, index: int) -> pa.Table:
        """As `Output`."""
        return read_table(self._part_path(index))

    def write_part(self, index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
        """As `Output`."""
        self._check_taken_over()
        # A Python file, which is closed even if the disk is full at the end; Arrow would leave its own file open.
        replace_file(self._part_path(index), partial(write_table, table, metadata=metadata))

    def assemble_file(self, parts: Iterable[pa.Table], schema: pa.Schema) -> WrittenFile:
        """As in `Output`: writes a file with a temporary name, which readers ignore."""
        with _synced_file(self._assembly) as file, pq.ParquetWriter(file, schema, **parquet_options(schema)) as writer:
            for table in parts:
                writer.write_table(pa.Table.from_arrays(table.columns, schema=schema))  # `cast` is slow to import
        return _describe_file(self._assembly, self._out.name)

    def begin_files(self) -> None:
        """As in `Output`: makes a folder with a temporary name, which readers ignore."""
        self._assembly.mkdir()

    def write_file(
        self, index: int, table: pa.Table, schema: pa.Schema, row_group_size: int | None = None
    ) -> WrittenFile:
        """As `Output`."""
        path = self._assembly / part_name(index)
        with _synced_file(path) as file:
            write_table(table, file, schema.metadata, row_group_size)
        return _describe_file(path, path.name)

    def end_files(self, files: list[WrittenFile]) -> None:
        """As in `Output`; there is nothing to do."""

    def publish(self, manifest: str) -> None:
        """As in `Output`: by rename. Raises UsageError if another program has put something there meanwhile."""
        self._check_replaceable()
        replace_file(self._parts / PUBLISHING, b"")
        if self.is_file:
            manifest_path(self._out).unlink(missing_ok=True)
            self._assembly.replace(self._out)
            sync(self._out.parent)
            replace_file(manifest_path(self._out), manifest, scratch=self._parts)
        else:
            replace_file(self._assembly / manifest_path(self._out).name, manifest)
            self._publish_folder()
            sync(self._out.parent)
        try:
            self._clean_up()
        except OSError as error:
            _log.warning("%s: is complete, but leftovers beside it cannot be removed (%s)", self.name, error.strerror)

    def _publish_folder(self) -> None:
        if not self._out.exists():
            self._assembly.rename(self._out)
        elif not swap(self._assembly, self._out):
            self._out.rename(self._replaced)
            try:
                self._assembly.rename(self._out)
            except OSError:
                self._replaced.rename(self._out)
                raise

    def _clean_up(self) -> None:
        if self._assembly.exists():  # it was swapped with the output, so this is the old output
            self._assembly.rename(self._replaced)
        remove(self._replaced)
        self._parts.rename(self._assembly)  # atomic: a rerun must not resume from an incomplete folder of parts
        remove(self._assembly)

    def has_leftovers(self) -> bool:
        """As `Output`."""
        return any(map(os.path.lexists, (self._lock_file, self._parts, self._assembly, self._replaced)))

    def remove_leftovers(self) -> None:
        """As in `Output`. The lock file of the killed run is gone: it was removed with the lock of this run."""
        if not manifest_path(self._out).exists():
            return
        remove(self._assembly)
        if self._is_published():
            self._clean_up()
        remove(self._replaced)

    def _is_published(self) -> bool:
        """Whether the parts have become the output: its manifest is written after the mark."""
        with suppress(FileNotFoundError):
            marked = (self._parts / PUBLISHING).stat(follow_symlinks=False).st_mtime_ns
            return manifest_path(self._out).stat().st_mtime_ns >= marked
        return False

    @contextmanager
    def errors(self) -> Iterator[None]:
        """As `Output`."""
        try:
            yield
        except OSError as error:
            reason, remedy = _explain(error, kept=self._has_parts())
            raise OutputError(f"{self.name}: cannot be written ({reason}); {remedy}") from error

    def _has_parts(self) -> bool:
        with suppress(OSError):
            return any(self._parts.glob("part-*"))
        return False

    def _part_path(self, index: int) -> Path:
        return self._parts / part_name(index)


@contextmanager
def _synced_file(path: Path) -> Iterator[BinaryIO]:
    with open_new(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _describe_file(path: Path, name: str) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(path=name, rows=pq.read_metadata(path).num_rows, bytes=path.stat().st_size, sha256=digest)


def _explain(error: OSError, *, kept: bool) -> tuple[str, str]:
    """What went wrong and what to do about it. kept: whether there are finished parts."""
    # Arrow wraps the system's text; files.open_existing names the file that is a link.
    known = error.errno is not None and error.errno != errno.ELOOP
    reason = os.strerror(error.errno or 0) if known else str(error.strerror or error).partition("\n")[0]
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
        return reason, "give an output that this user may write"
    todo = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "fix this"
    if not kept:
        return reason, f"{todo}, or give another output"
    return reason, f"finished parts are kept: {todo}, then run the same command again to continue"

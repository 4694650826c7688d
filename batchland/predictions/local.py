"""An output on a file system of this machine: every file appears by rename, on disk before its name is.

What lies beside an output `p.parquet` while a run is under way, or was killed:

    .p.parquet.lock     the lock, with its holder
    .p.parquet.parts/   run.json (the fingerprint), part-000000.parquet ..., `publishing` once all parts are there
    .p.parquet.new      the output being put together
    .p.parquet.old      of a folder that is being overwritten: the old one, between two renames
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import OutputError
from batchland.predictions.layout import (
    PUBLISHING,
    RUN_NOTE,
    check_replaceable,
    count_rows,
    is_file_output,
    is_predictions,
    manifest_path,
    part_name,
    read_table,
    warn_discarded,
    write_table,
)
from batchland.predictions.schema import WrittenFile
from batchland.system.exchange import exchange
from batchland.system.lock import locked


class LocalOutput:
    """As `Output`. The lock is the kernel's, so a killed run frees it."""

    def __init__(self, out: Path) -> None:
        self.name = str(out)
        self._out = out
        self._parts = self.notes_dir = out.parent / f".{out.name}.parts"
        self._assembly = out.parent / f".{out.name}.new"
        self._replaced = out.parent / f".{out.name}.old"
        self._lock = locked(out.parent / f".{out.name}.lock", self.name)

    def __enter__(self) -> Self:
        with self.errors():
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):
                _remove(self._assembly)  # of no use to a later run, and it may have filled the disk
        self._lock.__exit__(kind, error, trace)

    def begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        """As `Output`."""
        if self._replaced.exists():  # an overwriting run was killed between its two renames
            if not self._out.exists():
                self._replaced.rename(self._out)
            _remove(self._replaced)
        _remove(self._assembly)
        note = self._parts / RUN_NOTE
        known = note.read_text("utf-8") if note.exists() else None
        # Killed while it published, this very run had begun to replace what is there, and goes on with it.
        completing = known == fingerprint and (self._parts / PUBLISHING).exists()
        check_replaceable(
            self._out,
            self._found(),
            file_output=is_file_output(self._out),
            ours=self._is_ours,
            replace=overwrite or completing,
        )
        if known and known != fingerprint and not restart:
            images = sum(map(count_rows, self._parts.glob("part-*.parquet")))
            warn_discarded(self.name, known, fingerprint, images)
        if known != fingerprint or restart:
            _remove(self._parts)
            self._parts.mkdir()
            _publish(note, lambda path: path.write_text(fingerprint, "utf-8"))

    def _found(self) -> Literal["file", "folder"] | None:
        if not self._out.exists():
            return None
        return "folder" if self._out.is_dir() else "file"

    def _is_ours(self) -> bool:
        if manifest_path(self._out).exists():
            return True
        if self._out.is_dir():
            return not any(self._out.iterdir())
        return not self._out.stat().st_size or is_predictions(self._out)

    def has_part(self, index: int) -> bool:
        """As `Output`."""
        return self._part_path(index).exists()

    def read_part(self, index: int) -> pa.Table:
        """As `Output`."""
        return read_table(self._part_path(index))

    def write_part(self, index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
        """As `Output`."""
        _publish(self._part_path(index), lambda path: _write(table, path, metadata))

    def assemble(
        self, parts: Iterable[pa.Table], schema: pa.Schema, row_group_size: int | None = None
    ) -> list[WrittenFile]:
        """As `Output`, unseen yet."""
        if is_file_output(self._out):
            with self._assembly.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for table in parts:
                    writer.write_table(table.cast(schema))
            _sync(self._assembly)
            return [_describe_file(self._assembly, self._out.name)]
        self._assembly.mkdir()
        for index, table in enumerate(parts):
            _write(table, self._assembly / part_name(index), schema.metadata, row_group_size)
            _sync(self._assembly / part_name(index))
        return [_describe_file(path, path.name) for path in sorted(self._assembly.iterdir())]

    def publish(self, manifest: str) -> None:
        """As `Output`: by rename."""
        _publish(self._parts / PUBLISHING, lambda path: path.touch())
        if is_file_output(self._out):
            manifest_path(self._out).unlink(missing_ok=True)
            self._assembly.replace(self._out)
            _sync(self._out.parent)
            _publish(manifest_path(self._out), lambda path: path.write_text(manifest, "utf-8"))
        else:
            _publish(self._assembly / manifest_path(self._out).name, lambda path: path.write_text(manifest, "utf-8"))
            if self._out.exists() and exchange(self._assembly, self._out):
                self._assembly.rename(self._replaced)
            else:
                if self._out.exists():
                    self._out.rename(self._replaced)
                self._assembly.rename(self._out)
            _sync(self._out.parent)
            _remove(self._replaced)
        self._parts.rename(self._assembly)  # at one stroke: half a parts folder would be taken for an old one
        _remove(self._assembly)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """As `Output`."""
        try:
            yield
        except OSError as error:
            reason, advice = _told(error, kept=any(self._parts.glob("part-*")))
            raise OutputError(f"{self.name}: cannot be written ({reason}); {advice}") from error

    def _part_path(self, index: int) -> Path:
        return self._parts / part_name(index)


def _write(table: pa.Table, path: Path, metadata: dict[bytes, bytes], row_group_size: int | None = None) -> None:
    # A file of ours is closed even where its last bytes find no room; Arrow's own would stay open, and keep the space.
    with path.open("wb") as file:
        write_table(table, file, metadata, row_group_size)


def _describe_file(path: Path, name: str) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(path=name, rows=pq.read_metadata(path).num_rows, bytes=path.stat().st_size, sha256=digest)


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside, fsync, rename, fsync the folder. A failure leaves nothing behind, least of all on a full disk."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        write(temporary)
        _sync(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _told(error: OSError, *, kept: bool) -> tuple[str, str]:
    """What went wrong, and what to do; kept: whether there are finished parts.

    Arrow's errors carry the number, but a text of their own around it.
    """
    reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
        return reason, "give an --out that this user may write"
    todo = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend that"
    if not kept:
        return reason, f"{todo}, or give another --out"
    return reason, f"finished parts are kept: {todo}, then run the same command again to go on"

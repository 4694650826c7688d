"""An output in an object store or on a cluster's file system: every object appears when its upload completes.

Beside an output `p.parquet`, an unfinished run keeps this folder, from which any machine can resume:

    .p.parquet.parts/   run.json (the fingerprint), holder.json (who writes), part-000000.parquet ..., `publishing`

pyarrow.fs has no locks for object stores. A local lock excludes a second run on the same machine; a run on another
machine reads holder.json. If both fail, no wrong output is published: each part is compared with what this run wrote or
first read, and the run ends with an error if another run has replaced a part.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import InputError, LockedError, OutputError, UsageError
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
from batchland.predictions.objects import Objects, Upload, first_error
from batchland.predictions.schema import WrittenFile
from batchland.system.folders import state_folder
from batchland.system.lock import describe_holder, holder_facts, locked, read_facts

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

HOLDER_NOTE: Final = "holder.json"
SILENT: Final = timedelta(minutes=10)
"""A holder counts as dead if its parts folder has not changed for this long; a run writes there every 30 seconds."""
_DONE: Final = "done"
_OURS: Final = re.compile(r"part-\d{6}\.parquet|_manifest\.json")

_log = logging.getLogger("batchland")


class RemoteOutput:
    """Implements `Output`. Raises UsageError or InputError if the URL cannot be used."""

    def __init__(self, url: str) -> None:
        self._objects = Objects.at(url)
        self.name = self._objects.location.name.rstrip("/")
        self._out = PurePosixPath(self._objects.location.path)
        if len(self._out.parts) < 2:
            raise UsageError(f"{self.name}: is a whole bucket; give a name within it, like {self.name}/preds.parquet")
        self.is_file = is_file_output(self._out)
        self._parts = self._out.parent / f".{self._out.name}.parts"
        self._manifest = manifest_path(self._out)
        key = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.notes_dir = _notes_folder() / key
        self._lock = locked(_notes_folder() / f"{key}.lock", self.name)
        self._fingerprint = ""
        self._holding = self._joined = False
        self._present: set[str] = set()
        self._digests: dict[int, bytes] = {}
        self._upload: Upload | None = None

    def __enter__(self) -> Self:
        try:
            self.notes_dir.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        except OSError as error:
            raise OutputError(
                f"{_notes_folder()}: cannot be written ({error.strerror}); set XDG_STATE_HOME to a folder that this "
                f"user may write"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._upload is not None:
            self._upload.abandon()
        # After an OutputError the store may not answer; after a LockedError holder.json belongs to another run.
        if self._holding and not isinstance(error, OutputError | LockedError):
            with suppress(OSError):
                self._put(HOLDER_NOTE, {})
        self._lock.__exit__(kind, error, trace)

    def begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        """As in `Output`. Raises LockedError if a run with another fingerprint seems active on another machine."""
        try:
            self._begin(fingerprint, overwrite=overwrite, restart=restart)
        except OSError as error:
            first = first_error(error, self.name)
            raise (OutputError(str(first)) if isinstance(first, InputError) else first) from error

    def _begin(self, fingerprint: str, *, overwrite: bool, restart: bool) -> None:
        self._fingerprint = fingerprint
        parts = self._objects.list(self._parts)
        known = self._text(RUN_NOTE) if RUN_NOTE in parts else None
        if known != _DONE:
            self._check_holder(parts, harmless=known == fingerprint)
        found = self._objects.info(self._out)
        is_file = found.is_file
        names = [] if is_file else list(self._objects.list(self._out))
        check_replaceable(
            self.name,
            "file" if is_file else "folder" if names else None,  # an empty object may mean an empty folder
            file_output=self.is_file,
            ours=lambda: self._is_ours(found.size) if is_file else all(map(_OURS.fullmatch, names)),
            replace=overwrite or (known == fingerprint and PUBLISHING in parts),
        )
        if known and known not in (_DONE, fingerprint) and not restart:
            images = sum(self._count_rows(name) for name in parts if _OURS.fullmatch(name))
            warn_discarded(self.name, known, fingerprint, images)
        if known != fingerprint or restart:
            self._objects.remove_folder(self._parts)
            for note in self.notes_dir.iterdir():
                note.unlink()
            parts = {}
            self._objects.put(self._parts / RUN_NOTE, fingerprint.encode())
        self._holding = True
        self._put(HOLDER_NOTE, holder_facts())
        self._present = set(parts)

    def _is_ours(self, size: int) -> bool:
        if not size or self._objects.info(self._manifest).is_file:
            return True
        with self._objects.open(self._out) as file:
            return is_predictions(file)

    def _count_rows(self, part: str) -> int:
        with self._objects.open(self._parts / part) as file:
            return count_rows(file)

    def _check_holder(self, parts: "dict[str, FileInfo]", *, harmless: bool) -> None:
        """Raise LockedError if a run on another machine seems active. The lock excludes one on this machine."""
        facts = read_facts(self._text(HOLDER_NOTE).encode()) if HOLDER_NOTE in parts else {}
        newest = max((info.mtime for info in parts.values() if info.mtime), default=None)
        if not facts or facts.get("host") == holder_facts()["host"] or newest is None:
            return
        if datetime.now(UTC) - newest > SILENT:
            return
        if not harmless:
            raise LockedError(
                f"{self.name}: {describe_holder(facts)} is writing it; wait for that run or stop it (it counts as "
                f"dead {SILENT.seconds // 60} minutes after its last part)"
            )
        _log.warning(
            "%s: continues with the parts of %s; make sure that it has ended", self.name, describe_holder(facts)
        )

    def join(self, fingerprint: str) -> None:
        """As `Output`."""
        self._fingerprint, self._joined = fingerprint, True
        self._check_taken_over()
        self._present = set(self._objects.list(self._parts))

    def has_part(self, index: int) -> bool:
        """As `Output`."""
        return part_name(index) in self._present

    def read_part(self, index: int) -> pa.Table:
        """As in `Output`. Raises OutputError if it is not the part that this run has written or read before."""
        data = self._objects.get(self._parts / part_name(index))
        digest = hashlib.sha256(data).digest()
        if self._digests.setdefault(index, digest) != digest:
            raise OutputError(
                f"{self.name}: another run has replaced {part_name(index)}; make sure that only one is running"
            )
        return read_table(pa.BufferReader(data))

    def write_part(self, index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
        """As `Output`."""
        data = _parquet(table, metadata)
        if self._joined:
            self._check_taken_over()
        self._objects.put(self._parts / part_name(index), data)
        self._digests[index] = hashlib.sha256(data).digest()

    def assemble_file(self, parts: Iterable[pa.Table], schema: pa.Schema) -> WrittenFile:
        """As in `Output`; the upload is not completed yet."""
        rows = 0
        self._upload = upload = Upload(self._objects, self._out)
        with pq.ParquetWriter(upload, schema, **parquet_options(schema)) as writer:
            for table in parts:
                writer.write_table(table.cast(schema))
                upload.flush()
                rows += table.num_rows
        return WrittenFile(path=self._out.name, rows=rows, bytes=upload.size, sha256=upload.sha256.hexdigest())

    def begin_files(self) -> None:
        """As in `Output`. Removes the old manifest; the new files become visible before there is a new one."""
        self._begin_publishing()

    def write_file(
        self, index: int, table: pa.Table, schema: pa.Schema, row_group_size: int | None = None
    ) -> WrittenFile:
        """As `Output`."""
        name, data = part_name(index), _parquet(table, schema.metadata, row_group_size)
        self._objects.put(self._out / name, data)
        digest = hashlib.sha256(data).hexdigest()
        return WrittenFile(path=name, rows=table.num_rows, bytes=data.size, sha256=digest)

    def end_files(self, files: list[WrittenFile]) -> None:
        """As in `Output`. Removes the remaining parts of an earlier output that had more parts."""
        names = {file.path for file in files}
        for name in self._objects.list(self._out):
            if _OURS.fullmatch(name) and name not in names:
                self._objects.remove(self._out / name)

    def publish(self, manifest: str) -> None:
        """As in `Output`: completes the upload."""
        if self._upload is not None:
            self._begin_publishing()
            self._upload.commit()
        self._objects.put(self._manifest, manifest.encode())
        self._objects.put(self._parts / RUN_NOTE, _DONE.encode())  # now the parts belong to no run
        self._objects.remove_folder(self._parts)
        self._holding = False
        shutil.rmtree(self.notes_dir, ignore_errors=True)

    def _begin_publishing(self) -> None:
        """Mark the old output as incomplete. After this, only a run with this fingerprint may continue."""
        self._check_taken_over()
        self._objects.put(self._parts / PUBLISHING, b"")
        self._objects.remove(self._manifest)

    def _check_taken_over(self) -> None:
        if self._text(RUN_NOTE) != self._fingerprint:
            raise LockedError(f"{self.name}: another run has started to write it; make sure that only one is running")

    def has_leftovers(self) -> bool:
        """As `Output`."""
        return bool(self._objects.list(self._parts))

    def remove_leftovers(self) -> None:
        """As in `Output`. While an output is published it has no manifest."""
        parts = self._objects.list(self._parts)
        if parts and self._objects.info(self._manifest).is_file:
            known = self._text(RUN_NOTE) if RUN_NOTE in parts else _DONE
            if known == _DONE or PUBLISHING in parts:
                self._check_holder(parts, harmless=False)
                self._objects.remove_folder(self._parts)
        shutil.rmtree(self.notes_dir, ignore_errors=True)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """As `Output`."""
        try:
            yield
        except OSError as error:
            refused = isinstance(error, PermissionError)
            todo = "check the credentials in the environment and their permissions" if refused else "fix this"
            raise OutputError(
                f"{self.name}: cannot be written ({error.strerror}); finished parts are kept: {todo}, then run the "
                f"same command again to continue"
            ) from error

    def _text(self, name: str) -> str:
        return str(self._objects.get(self._parts / name).to_pybytes(), "utf-8")

    def _put(self, name: str, facts: dict[str, object]) -> None:
        self._objects.put(self._parts / name, json.dumps(facts).encode())


def _parquet(table: pa.Table, metadata: dict[bytes, bytes], row_group_size: int | None = None) -> pa.Buffer:
    buffer = pa.BufferOutputStream()
    write_table(table, buffer, metadata, row_group_size)
    return buffer.getvalue()


def _notes_folder() -> Path:
    return state_folder() / "outputs"

"""Score parts on a node: an actor with the local engine, which reads, decodes, infers and writes.

Errors of batchland are returned as values: if a method raises, Ray logs the stack and adds it to the message.
"""

import hashlib
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, cast

import pyarrow as pa
import ray

from batchland.errors import BatchlandError, ModelError, UsageError
from batchland.images.crash_guard import note_suspects
from batchland.images.sources.refs import ImageRef, shared_store
from batchland.models.contract import read_model
from batchland.models.session import ModelContent, OpenModel
from batchland.predictions.parts import Entry, PartSpec, PartSummary, PartWriter
from batchland.predictions.schema import WrittenFile
from batchland.predictions.storage import Output, open_output
from batchland.predictions.writer import write_file
from batchland.scoring.engines.engine import Part, Scored, ScoredPart, Work, require_probabilities
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.engines.ray.shared_images import KnownImage
from batchland.scoring.manifest import versions
from batchland.scoring.options import ScoreOptions

_NEXT_SECONDS: Final = 0.05
"""How long a worker waits for a further part before it lets its pipeline run empty."""


class WorkerSettings(NamedTuple):
    """What the driver sends to all workers."""

    path: Path
    """Path of the model. Its content is sent too, so nodes do not need the file."""
    options: ScoreOptions
    cores: int
    versions: dict[str, str]
    """Versions of the driver's packages, by name."""


class StoredContent(NamedTuple):
    """The content of the model, in Ray's memory or in a file. A worker reads it only if it has no kept copy."""

    sha256: str
    location: "ray.ObjectRef[bytes] | Path"

    def read(self) -> bytes:
        """The content. Raises ModelError."""
        if not isinstance(self.location, Path):
            return ray.get(self.location)
        content = read_model(self.location)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelError(f"{self.location}: was changed while the run started; run again")
        return content


class _Stopped(Exception):  # noqa: N818 - an event, not a fault
    """The driver has asked for a checkpoint and the end."""


class PartWorker:
    """Scores parts one after the other, without a gap between them. Its methods are called from several threads."""

    def __init__(self, settings: WorkerSettings, stored: StoredContent) -> None:
        self._engine: LocalEngine | BatchlandError
        try:
            check_versions(settings.versions)
            content = ModelContent(stored.sha256, stored.read)
            self._engine = LocalEngine(settings.path, settings.options, cores=settings.cores, content=content)
        except BatchlandError as error:
            self._engine = error
        self._inbox: queue.SimpleQueue[Part] = queue.SimpleQueue()
        self._next: Part | None = None
        """Taken from the inbox, but to be scored by itself."""
        self._results: dict[int, Future[ScoredPart | BatchlandError | None]] = {}
        self._lock = threading.Lock()
        self._failure: BatchlandError | None = None
        self._scored = Tally()
        self._stopping, self._ended = threading.Event(), threading.Event()
        self._output: Output | None = None
        self._spec: PartSpec | None = None
        self._unfinished = 0

    def opened(self) -> OpenModel | BatchlandError:
        """The model as it is open here."""
        if isinstance(self._engine, BatchlandError):
            return self._engine
        return OpenModel(**{each.name: getattr(self._engine.model, each.name) for each in fields(OpenModel)})

    def join(self, location: Path | str, spec: PartSpec, known: KnownImage | None) -> str | BatchlandError:
        """Take part in a run: from now on `score` writes parts of its output. The id of this node, or an error.

        known: an image that this node must read like the driver.
        """
        if isinstance(self._engine, BatchlandError):
            return self._engine
        try:
            self._output, self._spec = open_output(location), spec
            self._output.join(spec.fingerprint)
            if known:
                known.check()
        except BatchlandError as error:
            return error
        except OSError as error:
            return UsageError(
                f"node {socket.gethostname()} of the Ray cluster does not see the unfinished output "
                f"({error.strerror or error}): its workers write it; give a folder that all nodes share, or a URL"
            )
        threading.Thread(target=self._work, name="parts", daemon=True).start()
        return str(ray.get_runtime_context().get_node_id())

    def score(self, part: Part) -> ScoredPart | BatchlandError | None:
        """Score a part and write it, resuming what an interrupted run left of it. None if `stop` came first."""
        result: Future[ScoredPart | BatchlandError | None] = Future()
        with self._lock:
            if self._ended.is_set():
                return self._failure
            self._results[part.number] = result
        self._inbox.put(part)
        return result.result()

    def progress(self) -> tuple[int, int]:
        """Images of unfinished parts that are scored, and those of them that failed."""
        return self._scored.unfinished

    def stop(self) -> int:
        """Write what is scored of unfinished parts, and score no more. Number of images in them with a row."""
        self._stopping.set()
        self._ended.wait()
        return self._unfinished

    def write_file(self, schema: pa.Schema, expected: PartSummary) -> WrittenFile | BatchlandError:
        """Write one file of a folder of parts. See `predictions.writer.write_file`."""
        assert self._output is not None, "join comes first"
        assert self._spec is not None
        try:
            return write_file(self._output, self._spec, schema, expected)
        except BatchlandError as error:
            return error

    def _work(self) -> None:
        """The thread that scores, until `stop` or an error."""
        assert self._output is not None
        assert self._spec is not None
        bug: BaseException | None = None
        try:
            with PartWriter(self._output, self._spec, self._finish) as writer:
                while not self._stopping.is_set():
                    self._score_waiting(writer)
        except _Stopped:
            pass
        except BatchlandError as error:
            self._failure = error
        except BaseException as error:  # raised in the driver
            bug = error
        with self._lock:
            self._ended.set()
            for result in self._results.values():
                if bug is None:
                    result.set_result(self._failure)
                else:
                    result.set_exception(bug)

    def _score_waiting(self, writer: PartWriter) -> None:
        """Score the parts that wait, as one stream of images, until there is none for a moment."""
        first = self._take(wait=True)
        if first is None:
            return
        with TemporaryDirectory(prefix="batchland-") as notes:
            if first.isolated:
                note_suspects(Path(notes), [entry.name for entry in first.entries])
            pending = writer.pending((part.number, self._entries(part)) for part in self._stream(first))
            try:
                self._score_stream(writer, pending, Path(notes), is_first=first.number == 0)
                writer.wait()
            except _Stopped:
                writer.checkpoint()
                self._unfinished = writer.unfinished_images
                raise

    def _score_stream(
        self, writer: PartWriter, pending: Iterator[ImageRef | None], notes: Path, *, is_first: bool
    ) -> None:
        engine = cast("LocalEngine", self._engine)
        with closing(engine.score(pending, notes, self._stop_if_asked)) as batches:
            for scored in batches:
                if is_first and self._scored.is_new:
                    require_probabilities(scored, engine.model.path)
                self._scored.add(scored)
                writer.write(scored.rows)
                self._stop_if_asked()

    def _stream(self, first: Part) -> Iterator[Part]:
        """The first part and those that wait behind it. One whose images are decoded in subprocesses stands alone."""
        part: Part | None = first
        while part is not None:
            yield part
            part = self._take(wait=False)
            if part is not None and (part.isolated or first.isolated):
                self._next, part = part, None

    def _take(self, *, wait: bool) -> Part | None:
        if self._next is not None:
            part, self._next = self._next, None
            return part
        try:
            return self._inbox.get(timeout=0.5 if wait else _NEXT_SECONDS)
        except queue.Empty:
            return None

    def _entries(self, part: Part) -> Iterator[Entry]:
        """The entries, with the store that earlier ones have used."""
        for entry in part.entries:
            yield entry._replace(store=shared_store(entry.store)) if isinstance(entry, ImageRef) else entry  # type: ignore[arg-type]  # hashable

    def _stop_if_asked(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _finish(self, summary: PartSummary) -> None:
        """A part is stored."""
        with self._lock:
            result = self._results.pop(summary.number)
        result.set_result(self._scored.take(summary))


class Tally:
    """Seconds and counts since the last finished part. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[tuple[int, int]] = []
        self.is_new = True
        """No batch has been scored."""
        self._work = Work()
        self._rows = self._failed = 0

    @property
    def unfinished(self) -> tuple[int, int]:
        """Images scored in unfinished parts, and failed ones among them."""
        return self._rows, self._failed

    def add(self, scored: Scored) -> None:
        """One more batch."""
        with self._lock:
            self.is_new = False
            self._work = self._work.plus(scored.work)
            self._rows += scored.rows.num_rows
            self._failed += scored.failed

    def take(self, summary: PartSummary) -> ScoredPart:
        """A finished part, with the work since the one before."""
        with self._lock:
            part = ScoredPart(summary, self._work)
            self._work = Work()
            self._rows = max(0, self._rows - (summary.rows - summary.resumed - summary.kept))
            self._failed = max(0, self._failed - summary.failed)
            return part


def check_versions(wanted: dict[str, str]) -> None:
    """Raise UsageError if this node has other packages than the driver: its rows might differ."""
    here = versions()
    for name in sorted(wanted.keys() | here.keys()):
        found, expected = here.get(name, "none"), wanted.get(name, "none")
        if found != expected:
            raise UsageError(f"node {socket.gethostname()} of the Ray cluster has {name} {found}, not {expected}")

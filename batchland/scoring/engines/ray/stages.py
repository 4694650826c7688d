"""Tasks and actors on the nodes: decode a batch, open a session, turn pixels into rows.

Errors of batchland are returned as values: if a task raises, Ray logs the stack and may run the task again. A block
of Ray Data is a table of one row: the batch's number, its pickled content and, for a decoded batch, its pixels.
"""

import pickle
import socket
from contextlib import closing
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray

from batchland.errors import BatchlandError, EngineError, UsageError
from batchland.images.loader import Batch, BatchLoader, decode_image, load_image
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef, LocalFiles, Store
from batchland.images.subprocess_decode import SubprocessDecoder
from batchland.models.session import OpenModel, Session, open_session
from batchland.scoring.engines.engine import score_batch
from batchland.scoring.manifest import versions
from batchland.scoring.options import ScoreSettings

_REMOTE_THREADS: Final = 8
"""Threads of a decoder that reads over the network: it waits more than it decodes."""
_MAX_DEATHS: Final = 10
"""Processes that may die or be lost over one batch. Ray itself would try forever."""
ActorHandle = Any  # Ray's own type does not know an actor's methods


@dataclass(frozen=True)
class TaskSettings:
    """What the driver sends to all tasks and actors."""

    content: "ray.ObjectRef[bytes]"
    """The model file's content: nodes need not have the file."""
    path: Path
    device: str
    threads: int
    batch_size: int
    options: ScoreSettings
    timeout: float
    versions: dict[str, str]
    """Of the driver's packages, by name."""

    def open_session(self) -> Session:
        """Raises ModelError, DeviceError, or UsageError if this node has other packages."""
        self.check_versions()
        return open_session(
            self.path,
            self.device,
            intra_op_threads=self.threads,
            batch_size=self.batch_size,
            content=ray.get(self.content),
        )

    def check_versions(self) -> None:
        """Raise UsageError if this node has other packages than the driver: its rows might differ."""
        here = _versions_here()
        for name in sorted(self.versions.keys() | here.keys()):
            found, wanted = here.get(name, "none"), self.versions.get(name, "none")
            if found != wanted:
                raise UsageError(f"node {socket.gethostname()} of the Ray cluster has {name} {found}, not {wanted}")


def decode(table: pa.Table, queue: ActorHandle, settings: TaskSettings, spec: PreprocessSpec) -> pa.Table:
    """Task: decode a batch.

    If its process dies, Ray runs the task again. Then each image is decoded in a subprocess, and one that crashes it
    becomes a failed row.
    """
    number = table["number"][0].as_py()
    listed: list[ImageRef]
    listed, deaths = ray.get(queue.take.remote(number))
    refs = [ref._replace(store=_shared(ref.store)) for ref in listed]  # type: ignore[arg-type]  # hashable
    if deaths > _MAX_DEATHS:
        return _block(
            number,
            EngineError(
                f"{deaths} processes in a row died over the batch from {refs[0].name} to {refs[-1].name}, with "
                f"each image decoded in a subprocess; finished parts are kept, check that the nodes have enough memory"
            ),
        )
    try:
        settings.check_versions()
        decoding = partial(decode_image, signals=settings.options.signals)
        threads = 1 if all(isinstance(ref.store, LocalFiles) for ref in refs) else _REMOTE_THREADS
        with SubprocessDecoder(settings.timeout, signals=settings.options.signals) as isolated:
            loader = BatchLoader(
                refs,
                spec,
                len(refs),
                threads,
                prefetch_factor=0,
                timeout=settings.timeout,
                load=isolated.load if deaths else partial(load_image, decoding=decoding),
                load_isolated=isolated.load,
            )
            with closing(iter(loader)) as batches:
                batch = next(batches)
            return _block(number, (batch.refs, batch.outcomes), batch.pixels)
    except BatchlandError as error:
        return _block(number, error)


class Scorer:
    """Actor with a session."""

    def __init__(self, settings: TaskSettings) -> None:
        self._options = settings.options
        self._session: Session | BatchlandError
        try:
            self._session = settings.open_session()
        except BatchlandError as error:
            self._session = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """A decoded batch to its rows."""
        number, decoded = table["number"][0].as_py(), unpickled(table)
        try:
            refs, outcomes = unless_error(decoded)
            session = unless_error(self._session)
            pixels = np.frombuffer(table["pixels"][0].as_buffer(), np.uint8)
            batch = Batch(refs, pixels.reshape(len(refs), *session.card.preprocess.shape), outcomes)
            return _block(number, score_batch(batch, session, self._options))
        except BatchlandError as error:
            return _block(number, error)


def open_first(settings: TaskSettings) -> OpenModel | BatchlandError:
    """Task: open the model where the sessions will run."""
    try:
        session = settings.open_session()
    except BatchlandError as error:
        return error
    with closing(session):
        return OpenModel(**{each.name: getattr(session, each.name) for each in fields(OpenModel)})


@lru_cache(8)
def _shared(store: Store) -> Store:
    """The first of equal stores that this process was given: it may have open connections."""
    return store


def _block(number: int, content: object, pixels: Pixels | None = None) -> pa.Table:
    """A block of Ray Data: one row."""
    columns = {
        "number": pa.array([number], pa.int64()),
        "content": pa.array([pickle.dumps(content)], pa.large_binary()),
    }
    if pixels is not None:
        ends = np.array([0, pixels.nbytes], np.int64)
        columns["pixels"] = pa.Array.from_buffers(
            pa.large_binary(), 1, [None, pa.py_buffer(ends), pa.py_buffer(pixels.reshape(-1))]
        )
    return pa.table(columns)


def unpickled(table: pa.Table) -> object:
    """The content of a block."""
    return pickle.loads(table["content"][0].as_buffer())  # noqa: S301 - from our own process


def unless_error(value: Any) -> Any:
    """The value. An error of ours is raised."""
    if isinstance(value, BatchlandError):
        raise value
    return value


@lru_cache(1)
def _versions_here() -> dict[str, str]:
    return versions()

"""What runs on the nodes: decode a batch, open a session, turn pixels into rows. Errors of ours come back as values.

(What a task raises, Ray logs with its stack, and it may try the task again.) A block of Ray Data is a table of one row:
the batch's number, its pickled content, and, of a decoded batch, its pixels.
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
from batchland.images.loader import Batch, BatchLoader, load_image
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef, LocalFiles, Store
from batchland.images.subprocess_decode import load_in_subprocess
from batchland.models.session import OpenModel, Session, open_session
from batchland.scoring.engines.local import score_batch
from batchland.scoring.manifest import versions

_THREADS_FAR: Final = 8
"""Of a decoder whose images come over the network: it waits more than it decodes."""
_MOST_DEATHS: Final = 10
"""Of processes over one batch. Ray itself would try for ever."""
ActorHandle = Any  # Ray's own type does not know an actor's methods


@dataclass(frozen=True)
class Orders:
    """What tasks and actors are told."""

    content: "ray.ObjectRef[bytes]"
    """The model file's: nodes need not have it."""
    path: Path
    device: str
    threads: int
    top_k: int
    timeout: float
    versions: dict[str, str]
    """Of the driver's packages."""

    def open_session(self) -> Session:
        """Raises ModelError, DeviceError, or UsageError if this node has other packages."""
        self.check_versions()
        return open_session(self.path, self.device, intra_op_threads=self.threads, content=ray.get(self.content))

    def check_versions(self) -> None:
        """Raise UsageError if this node has other packages than the driver: its rows might be others, too."""
        here = _versions_here()
        for name in sorted(self.versions.keys() | here.keys()):
            mine, given = here.get(name, "none"), self.versions.get(name, "none")
            if mine != given:
                raise UsageError(f"node {socket.gethostname()} of the Ray cluster has {name} {mine}, not {given}")


def decode(table: pa.Table, feed: ActorHandle, orders: Orders, spec: PreprocessSpec) -> pa.Table:
    """Task. Should its process die, it is tried again, and then each image is decoded apart: the culprit has no row."""
    number = table["number"][0].as_py()
    listed: list[ImageRef]
    listed, deaths = ray.get(feed.take.remote(number))
    refs = [ref._replace(store=_known(ref.store)) for ref in listed]  # type: ignore[arg-type]  # frozen, all of them
    if deaths > _MOST_DEATHS:
        return _block(
            number,
            EngineError(
                f"{deaths} processes in a row died or were lost over the batch from {refs[0].name} to {refs[-1].name}, "
                f"even with each image decoded apart; finished parts are kept, see that the nodes have enough memory"
            ),
        )
    load = partial(load_in_subprocess, timeout=orders.timeout) if deaths else load_image
    try:
        orders.check_versions()
        threads = 1 if all(isinstance(ref.store, LocalFiles) for ref in refs) else _THREADS_FAR
        loader = BatchLoader(refs, spec, len(refs), threads, prefetch_factor=0, timeout=orders.timeout, load=load)
        with closing(iter(loader)) as batches:
            batch = next(batches)
            return _block(number, (batch.refs, batch.outcomes), batch.pixels)
    except BatchlandError as error:
        return _block(number, error)


class Scorer:
    """Actor with a session."""

    def __init__(self, orders: Orders) -> None:
        self._top_k = orders.top_k
        self._session: Session | BatchlandError
        try:
            self._session = orders.open_session()
        except BatchlandError as error:
            self._session = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decoded batch to rows."""
        number, decoded = table["number"][0].as_py(), unpickled(table)
        try:
            refs, outcomes = unless_error(decoded)
            session = unless_error(self._session)
            pixels = np.frombuffer(table["pixels"][0].as_buffer(), np.uint8)
            batch = Batch(refs, pixels.reshape(len(refs), *session.card.preprocess.shape), outcomes)
            return _block(number, score_batch(batch, session, self._top_k))
        except BatchlandError as error:
            return _block(number, error)


def open_first(orders: Orders) -> OpenModel | BatchlandError:
    """Task. Errors of ours are returned, here as everywhere: what a task raises, Ray logs with its stack."""
    try:
        session = orders.open_session()
    except BatchlandError as error:
        return error
    return OpenModel(**{each.name: getattr(session, each.name) for each in fields(OpenModel)})


@lru_cache(8)
def _known(store: Store) -> Store:
    """The first one of equals that this process was given: it may have connections open."""
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
    """The value; raised, if it is an error."""
    if isinstance(value, BatchlandError):
        raise value
    return value


@lru_cache(1)
def _versions_here() -> dict[str, str]:
    return versions()

"""Hand out work to Ray actors, take the results, and replace actors that are lost."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import ray
import ray.exceptions

from batchland.errors import BatchlandError, EngineError
from batchland.scoring.engines.ray.start import ray_reason

ActorHandle = Any  # Ray's own type does not know an actor's methods
Item = TypeVar("Item")
TICK_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 20.0
_MAX_LOSSES: Final = 10
"""Workers that may die while they have one item, or in a row before they have joined; then the run ends."""


@dataclass(eq=False)
class _Worker:
    """One actor, and what it has been asked for."""

    handle: ActorHandle
    ready: bool = False
    """It has joined the run."""
    node: str = ""
    calls: int = 0
    polled: float = 0.0
    unfinished: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class _Call(Generic[Item]):
    """A call of an actor that has not returned."""

    worker: _Worker
    item: Item


class WorkerPool:
    """A number of actors of one kind.

    create: makes one, which Ray starts when a node has room for it. join: asks it to take part; its result is None, or
    the error. ahead: calls in progress per actor.
    """

    def __init__(self, create: Callable[[], ActorHandle], count: int, ahead: int) -> None:
        self._create = create
        self._count = count
        self._ahead = ahead
        self._workers: list[_Worker] = []
        self._joining: dict[ray.ObjectRef[Any], _Worker] = {}
        self._polls: dict[ray.ObjectRef[Any], _Worker] = {}
        self._calls: dict[ray.ObjectRef[Any], _Call[Any]] = {}
        self._losses = 0
        """Number of consecutive losses of workers that had not joined."""
        self._join: Callable[[ActorHandle], ray.ObjectRef[Any]] | None = None

    def start(self, join: Callable[[ActorHandle], "ray.ObjectRef[Any]"], first: ActorHandle | None = None) -> None:
        """Make all actors, with a `first` that exists already, and let them join."""
        self._join = join
        for number in range(self._count):
            self._add(first if number == 0 and first is not None else self._create())

    def run(
        self,
        items: Iterable[Item],
        call: Callable[[ActorHandle, Item], "ray.ObjectRef[Any]"],
        again: Callable[[Item, bool], Item],
    ) -> Generator[Any, None, None]:
        """The results of `call` for all items, in any order, and a None about twice a second.

        A worker may be lost; then its items are called again elsewhere, as `again(item, node_is_alive)` gives them.
        Raises what a call returns if that is an error of batchland, EngineError if Ray breaks down.
        """
        todo, lost = iter(items), deque[Item]()
        exhausted = False
        while True:
            while (worker := self._free()) is not None and not (exhausted and not lost):
                try:
                    item = lost.popleft() if lost else next(todo)
                except StopIteration:
                    exhausted = True
                    break
                self._calls[call(worker.handle, item)] = _Call(worker, item)
                worker.calls += 1
            if exhausted and not lost and not self._calls:
                return
            yield from self._results(lost, again)
            yield None

    @property
    def unfinished(self) -> tuple[int, int]:
        """The last results of `progress`, summed over the workers."""
        return sum(each.unfinished[0] for each in self._workers), sum(each.unfinished[1] for each in self._workers)

    def stop(self) -> tuple[list[Any], int]:
        """Ask the workers to end. Returns results that were not taken yet, and the sum of the results of `stop`."""
        with ray_errors():
            stopping = [worker.handle.stop.remote() for worker in self._workers if worker.ready]
            total = sum(_arrived(stopping, _STOP_SECONDS))
            results = _arrived(list(self._calls), TICK_SECONDS)
        return [result for result in results if result is not None and not isinstance(result, BatchlandError)], total

    def _add(self, handle: ActorHandle) -> None:
        assert self._join is not None, "start comes first"
        worker = _Worker(handle)
        self._workers.append(worker)
        self._joining[self._join(handle)] = worker

    def _free(self) -> _Worker | None:
        """The worker with the fewest calls in progress, if it can take another one."""
        ready = [worker for worker in self._workers if worker.ready and worker.calls < self._ahead]
        return min(ready, key=lambda worker: worker.calls, default=None)

    def _results(self, lost: deque[Item], again: Callable[[Item, bool], Item]) -> Iterator[Any]:
        """Wait a little, and take what has arrived."""
        self._poll()
        refs = [*self._calls, *self._joining, *self._polls]
        with ray_errors():
            arrived, _ = ray.wait(refs, num_returns=1, timeout=TICK_SECONDS)
            if arrived:
                arrived, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in arrived:
            worker = self._worker_of(ref)
            if worker is None:  # it was lost, as another call of it has shown
                continue
            try:
                with ray_errors():
                    result = ray.get(ref)
            except _WorkerLost:
                lost.extend(self._replace(worker, again))
                continue
            if isinstance(result, BatchlandError):
                raise result
            if ref in self._calls:
                worker.calls -= 1
                del self._calls[ref]
                yield result
            elif ref in self._joining:
                del self._joining[ref]
                worker.ready, worker.node, self._losses = True, result or "", 0
            else:
                del self._polls[ref]
                worker.unfinished = result

    def _worker_of(self, ref: "ray.ObjectRef[Any]") -> _Worker | None:
        if ref in self._calls:
            return self._calls[ref].worker
        return self._joining.get(ref) or self._polls.get(ref)

    def _poll(self) -> None:
        """Ask workers at work how far they are, once a second."""
        now = time.monotonic()
        asked = set(self._polls.values())
        for worker in self._workers:
            if worker.calls and worker not in asked and now - worker.polled >= _POLL_SECONDS:
                worker.polled = now
                self._polls[worker.handle.progress.remote()] = worker

    def _replace(self, worker: _Worker, again: Callable[[Item, bool], Item]) -> list[Item]:
        """Make another worker. The items that this one had, to be called again."""
        self._workers.remove(worker)
        for refs in (self._joining, self._polls):
            for ref in [ref for ref, owner in refs.items() if owner is worker]:
                del refs[ref]
        calls = [ref for ref, each in self._calls.items() if each.worker is worker]
        items = [self._calls.pop(ref).item for ref in calls]
        if not worker.ready:
            self._losses += 1
            if self._losses > _MAX_LOSSES:
                raise EngineError(
                    f"{self._losses} workers in a row died while they started; check that the nodes have enough memory"
                )
        alive = not worker.node or any(node["NodeID"] == worker.node and node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        self._add(self._create())
        return [again(item, alive) for item in items]


def _arrived(refs: list["ray.ObjectRef[Any]"], seconds: float) -> list[Any]:
    """What arrives within that time. Lost workers are left out."""
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=seconds) if refs else ([], [])
    results = []
    for ref in done:
        with suppress(ray.exceptions.RayActorError):
            results.append(ray.get(ref))
    return results


class _WorkerLost(Exception):  # noqa: N818 - an event, not a fault
    """An actor has died, or its node has."""


@contextmanager
def ray_errors() -> Iterator[None]:
    """Turn errors of Ray itself into EngineError; a bug in a worker is raised as it is."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError) as error:
        raise _WorkerLost(ray_reason(error)) from error
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"Ray broke down: {ray_reason(error)}; finished parts are kept, run the same command again to resume"
        ) from error

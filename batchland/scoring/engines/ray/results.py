"""Take scored batches from Ray Data in a thread, so that waiting for them can be interrupted."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import ray.exceptions

from batchland.errors import EngineError
from batchland.scoring.engines.ray.stages import unpickled

if TYPE_CHECKING:
    from ray.data import Dataset

_POLL_SECONDS: Final = 0.5


class Results:
    """The scored batches of a Ray data set, in order."""

    def __init__(self, dataset: "Dataset") -> None:
        self._dataset = dataset
        self._queue: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._take, name="ray-results", daemon=True).start()

    def next(self, on_wait: Callable[[], None]) -> tuple[int, object]:
        """The next batch's number, and its Scored or the error of it."""
        table = self._get(on_wait)
        assert table is not None, "Ray Data ended before its input"
        return table["number"][0].as_py(), unpickled(table)

    def wait_for_end(self, on_wait: Callable[[], None]) -> None:
        """Wait until Ray Data has cleaned up."""
        assert self._get(on_wait) is None, "Ray Data gave more than it got"

    def _get(self, on_wait: Callable[[], None]) -> pa.Table | None:
        while True:
            try:
                result = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                on_wait()
                continue
            if isinstance(result, BaseException):
                with ray_errors():
                    raise result
            return result

    def _take(self) -> None:
        try:
            tables: Iterable[pa.Table]
            tables = self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for table in tables:
                for row in range(table.num_rows):
                    self._queue.put(table.slice(row, 1))
            self._queue.put(None)
        except BaseException as error:  # raised again in the thread that waits
            self._queue.put(error)


@contextmanager
def ray_errors() -> Iterator[None]:
    """Turn errors of Ray itself into EngineError; a bug in a task is raised as it is."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"Ray broke down: {first_line(error)}; finished parts are kept, run the same command again to resume"
        ) from error


def first_line(error: Exception) -> str:
    """An error of Ray without its stack and advice."""
    return str(error).strip().partition("\n")[0].rstrip(".")

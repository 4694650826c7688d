"""The Ray engine: start or join Ray, open a first session, hand out batches and take their rows."""

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import ray

from batchland.errors import DeviceError, EngineError, InputError, UsageError
from batchland.images.loader import MAX_HANGING, next_refs
from batchland.images.sources.refs import ImageRef
from batchland.models.contract import read_model
from batchland.models.session import OpenModel
from batchland.scoring.engines.engine import Scored
from batchland.scoring.engines.ray.batch_queue import BatchQueue
from batchland.scoring.engines.ray.cluster_plan import ClusterPlan
from batchland.scoring.engines.ray.results import Results, first_line, ray_errors
from batchland.scoring.engines.ray.stages import ActorHandle, TaskSettings, open_first, unless_error
from batchland.scoring.manifest import versions
from batchland.scoring.options import ScoreOptions
from batchland.system.arrow import let_pandas_in
from batchland.system.cores import usable_cores
from batchland.system.streams import silence_stderr

WINDOW: Final = 4096
"""Batches listed at once, for one execution of Ray Data. The driver grows by some 30 KB a batch in an execution."""

_CONNECT_SECONDS: Final = 10.0


class RayEngine:
    """A pipeline of Ray Data, on a cluster, on a Ray that the program has started, or on one that ends with the run.

    Raises ModelError if the model cannot be used, DeviceError if `cuda` was asked for and the cluster has none,
    EngineError if the cluster cannot be reached.
    """

    def __init__(self, model: Path, options: ScoreOptions) -> None:
        kind, _, numbers = options.device.partition(":")
        if numbers:
            raise DeviceError(f"device {options.device}: Ray assigns GPUs to sessions by itself; use device {kind}")
        self._path = model
        self._content = read_model(model)
        self._options = options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        let_pandas_in()
        with ExitStack() as stack:
            self._start(stack)
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def model(self) -> OpenModel:
        """The model as the first session on the cluster has it."""
        return self._model

    def _start(self, stack: ExitStack) -> None:
        if ray.is_initialized():
            return
        address = self._options.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        if address.startswith("ray://"):
            raise UsageError(f"ray_address {address}: run on a machine of the cluster, with HOST:PORT or auto")
        _check_answers(address)
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            # Ray's session files. Below /tmp, because paths of sockets must be short.
            folder = TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            settings |= {"num_cpus": usable_cores(), "include_dashboard": False, "_temp_dir": folder.name}
            settings |= {"num_gpus": 0} if self._options.device == "cpu" else {}
            stack.callback(folder.cleanup)
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            with silence_stderr():  # Ray's core announces its log settings there
                ray.init(address, **settings)
        except Exception as error:  # of a node that starts too slowly, Ray raises a bare Exception
            raise EngineError(
                f"Ray at {address} cannot be used: {first_line(error)}; see `ray status` there"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray.init has replaced it
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # errors arrive as exceptions
        warnings.filterwarnings("ignore", module=r"ray\b")

    def _open(self) -> None:
        """Open a first session on the cluster, to know the model and the device, and plan."""
        options = self._options
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        gpus = 0 if options.device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
        if not cores:
            raise EngineError("the Ray cluster has no CPUs; see `ray status`")
        if options.device not in ("auto", "cpu") and not gpus:
            problem = "the Ray cluster has no GPUs"
            raise DeviceError(f"device {options.device} cannot be used here: {problem}", advice="cpu_device")
        plan = ClusterPlan.of(cores, gpus, options)
        device = options.device if gpus else "cpu"
        content = ray.put(self._content)
        settings = TaskSettings(
            content=content,
            path=self._path,
            device=device,
            threads=plan.threads,
            batch_size=options.batch_size,
            options=options,
            timeout=options.timeout,
            versions=versions(),
        )
        with ray_errors():
            first = ray.remote(open_first).options(num_cpus=plan.session_cpus, num_gpus=plan.session_gpus)
            opening = first.remote(settings)
            import batchland.scoring.engines.ray.pipeline  # noqa: F401 - takes seconds, while the session opens

            opened: OpenModel = unless_error(ray.get(opening))
        fallback = "the Ray cluster has no GPUs" if options.device == "auto" and not gpus else opened.fallback
        self._model = replace(opened, fallback=fallback)
        self._plan = plan if self._model.device != "cpu" else ClusterPlan.of(cores, 0, options)
        self._settings = replace(settings, device=self._model.device.partition(":")[0], threads=self._plan.threads)

    def score(
        self,
        images: Iterable[ImageRef | None],
        notes_dir: Path,  # noqa: ARG002 - within the run, Ray finds out which image kills a decoder
        on_wait: Callable[[], None],
    ) -> Generator[Scored, None, None]:
        """See `Engine.score`. Raises ModelError if onnxruntime fails, EngineError if Ray does, InputError as below."""
        listing = iter(images)
        batches = iter(lambda: next_refs(listing, self._options.batch_size), [])
        hanging = 0
        while window := list(islice(batches, WINDOW)):
            with closing(self._score_window(window, on_wait)) as window_scored:
                for scored in window_scored:
                    hanging = _hanging(scored, hanging)
                    yield scored

    def _score_window(
        self, batches: list[list[ImageRef]], on_wait: Callable[[], None]
    ) -> Generator[Scored, None, None]:
        """One execution of Ray Data."""
        from batchland.scoring.engines.ray.pipeline import dataset, on_driver_node

        ahead = self._plan.ahead(self._options.prefetch_factor)
        queue: ActorHandle = ray.remote(BatchQueue).options(**on_driver_node()).remote(batches, ahead)
        results = Results(dataset(queue, len(batches), self._settings, self._model.card.preprocess, self._plan))
        for expected in range(len(batches)):
            number, scored = results.next(on_wait)
            assert number == expected, f"batch {number} came in place of batch {expected}"
            queue.remove.remote(number)
            yield unless_error(scored)
        results.wait_for_end(on_wait)


def _check_answers(address: str) -> None:
    """Raise EngineError if nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            reason = error.strerror or "no answer"
            raise EngineError(f"Ray at {address} cannot be used: {reason}; see `ray status` there") from error


def _hanging(scored: Scored, before: int) -> int:
    """How many images in a row hung while reading, `before` and in these. Raises InputError after MAX_HANGING."""
    messages = scored.rows.column("error_message").to_pylist()
    if not all((message or "").startswith("not read within") for message in messages):
        return 0
    if before + len(messages) >= MAX_HANGING:
        raise InputError(
            f"{before + len(messages)} images in a row were not read within their timeout: their storage does not "
            f"answer; finished parts are kept, run the same command again when it does"
        )
    return before + len(messages)

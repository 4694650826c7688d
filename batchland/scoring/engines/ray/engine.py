"""The engine that scoring.py sees: start or join a Ray, open a first session, feed batches and take their rows."""

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
from batchland.scoring.engines.local import Scored
from batchland.scoring.engines.ray.feed import Feed
from batchland.scoring.engines.ray.plan import Plan
from batchland.scoring.engines.ray.results import Results, first_line, ray_errors
from batchland.scoring.engines.ray.stages import ActorHandle, Orders, open_first, unless_error
from batchland.scoring.manifest import versions
from batchland.scoring.options import ScoreOptions
from batchland.system.cores import usable_cores
from batchland.system.streams import silence_stderr

WINDOW: Final = 4096
"""Batches listed at once for one execution of Ray Data, in which the driver grows by some 30 KB a batch."""

_ANSWER_SECONDS: Final = 10.0


class RayEngine:
    """Ray Data's pipeline, on a Ray cluster, or on a Ray of its own that ends with it.

    A program that has started Ray itself keeps its Ray: that one is used then, and left running.

    Raises ModelError if the model cannot be used, DeviceError if `cuda` was asked for and the cluster has none,
    EngineError if the cluster cannot be reached.
    """

    def __init__(self, model: Path, options: ScoreOptions) -> None:
        kind, _, numbers = options.device.partition(":")
        if numbers:
            raise DeviceError(f"--device {options.device}: Ray gives each session a GPU by itself; use --device {kind}")
        self._path = model
        self._content = read_model(model)
        self._options = options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def model(self) -> OpenModel:
        """As a first session on the cluster found it."""
        return self._model

    def _start(self, stack: ExitStack) -> None:
        if ray.is_initialized():
            return
        address = self._options.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        if address.startswith("ray://"):
            raise UsageError(f"--ray-address {address}: run on a machine of the cluster, with HOST:PORT or auto")
        _check_answers(address)
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            # its session files, in a folder that goes away; sockets' paths may not be long, whatever $TMPDIR is
            folder = TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            settings |= {"num_cpus": usable_cores(), "include_dashboard": False, "_temp_dir": folder.name}
            settings |= {"num_gpus": 0} if self._options.device == "cpu" else {}
            stack.callback(folder.cleanup)
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            with silence_stderr():  # Ray's core says how much it is going to log
                ray.init(address, **settings)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"Ray at {address} cannot be used: {first_line(error)}; see `ray status` there"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters comes as an exception, and is told in a line
        warnings.filterwarnings("ignore", module=r"ray\b")

    def _open(self) -> None:
        """Open a first session where the others will be, to know the model and the device, and plan."""
        options = self._options
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        gpus = 0 if options.device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
        if not cores:
            raise EngineError("the Ray cluster has no CPUs; see `ray status`")
        if options.device not in ("auto", "cpu") and not gpus:
            raise DeviceError(
                f"--device {options.device} cannot run here: the Ray cluster has no GPUs; or use --device cpu"
            )
        plan = Plan.of(cores, gpus, options)
        device = options.device if gpus else "cpu"
        content = ray.put(self._content)
        orders = Orders(content, self._path, device, plan.threads, options.top_k, options.timeout, versions())
        with ray_errors():
            first = ray.remote(open_first).options(num_cpus=plan.session_cpus, num_gpus=plan.session_gpus)
            opening = first.remote(orders)
            import batchland.scoring.engines.ray.pipeline  # noqa: F401 - Ray Data takes seconds; the session opens meanwhile

            opened: OpenModel = unless_error(ray.get(opening))
        fallback = "the Ray cluster has no GPUs" if options.device == "auto" and not gpus else opened.fallback
        self._model = replace(opened, fallback=fallback)
        self._plan = plan if self._model.device != "cpu" else Plan.of(cores, 0, options)
        self._orders = replace(orders, device=self._model.device.partition(":")[0], threads=self._plan.threads)

    def score(
        self,
        images: Iterable[ImageRef | None],
        folder: Path,  # noqa: ARG002 - what killed a decoder is found within the run
        on_wait: Callable[[], None],
    ) -> Generator[Scored, None, None]:
        """As `Engine.score`. Raises ModelError if onnxruntime fails, EngineError if Ray does, InputError as below."""
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
        from batchland.scoring.engines.ray.pipeline import beside_driver, dataset

        ahead = self._plan.ahead(self._options.prefetch_factor)
        feed: ActorHandle = ray.remote(Feed).options(**beside_driver()).remote(batches, ahead)
        results = Results(dataset(feed, len(batches), self._orders, self._model.card.preprocess, self._plan))
        for expected in range(len(batches)):
            number, scored = results.next(on_wait)
            assert number == expected, f"batch {number} came in place of batch {expected}"
            feed.forget.remote(number)
            yield unless_error(scored)
        results.wait_for_end(on_wait)


def _check_answers(address: str) -> None:
    """Raise EngineError if nobody listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
        except OSError as error:
            reason = error.strerror or "no answer"
            raise EngineError(f"Ray at {address} cannot be used: {reason}; see `ray status` there") from error


def _hanging(scored: Scored, before: int) -> int:
    """How many images in a row, up to these, hung. Raises InputError if that looks like a dead storage."""
    codes = scored.rows.column("error_code").to_pylist()
    if any(code != "timeout" for code in codes):
        return 0
    if before + len(codes) >= MAX_HANGING:
        raise InputError(
            f"{before + len(codes)} images in a row were past their timeout: their storage seems to be gone; finished "
            f"parts are kept, run the same command again when it is back"
        )
    return before + len(codes)

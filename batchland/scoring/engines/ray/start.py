"""Start Ray on this machine, or join a cluster."""

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any, Final

import ray

from batchland.errors import EngineError, UsageError
from batchland.system.cores import usable_cores
from batchland.system.streams import silence_stderr

_CONNECT_SECONDS: Final = 10.0
_TRIES: Final = 2
"""On a busy machine, Ray's own processes may start too slowly for its timeouts."""
_STORE_BYTES: Final = 256 * 1024**2
"""Ray's object store on this machine holds the model and the names of the images in progress, no pixels."""


def start_ray(stack: ExitStack, address: str | None, *, gpus: bool, init: Callable[..., Any] = ray.init) -> bool:
    """Join the Ray at `address`, or $RAY_ADDRESS, or start one; `stack` leaves it. A Ray in use by the program stays.

    gpus: whether a Ray that is started may use them. Returns whether one was started: it has only this machine.

    Raises EngineError if it cannot be reached or does not start.
    """
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise UsageError(f"ray_address {address}: run on a machine of the cluster, with HOST:PORT or auto")
    _check_answers(address)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"num_cpus": usable_cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        settings |= {} if gpus else {"num_gpus": 0}
    handler = signal.getsignal(signal.SIGTERM)
    stack.callback(ray.shutdown)
    for attempt in range(_TRIES):
        if address == "local":
            # Ray's session files. Below /tmp, because paths of sockets must be short.
            folder = TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            stack.callback(folder.cleanup)
            settings["_temp_dir"] = folder.name
        try:
            with silence_stderr():  # Ray's core announces its log settings there
                init(address, **settings)
            break
        except (Exception, SystemExit) as error:  # of a node that starts too slowly, Ray raises a bare Exception
            ray.shutdown()
            if attempt == _TRIES - 1:
                raise EngineError(
                    f"Ray at {address} cannot be used: {ray_reason(error)}; see `ray status` there"
                    if address != "local"
                    else f"Ray cannot be started here: {ray_reason(error)}; run the command again when the machine is "
                    f"less busy"
                ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # ray.init has replaced it
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # errors arrive as exceptions
    warnings.filterwarnings("ignore", module=r"ray\b")
    return address == "local"


def _check_answers(address: str) -> None:
    """Raise EngineError if nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            reason = error.strerror or "no answer"
            raise EngineError(f"Ray at {address} cannot be used: {reason}; see `ray status` there") from error


def ray_reason(error: BaseException) -> str:
    """An error of Ray without its stack and advice."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__

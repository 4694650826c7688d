"""Environment variables that must be set before Ray is imported."""

import os
from importlib.util import find_spec
from typing import Final

from batchland.errors import UsageError

_VARIABLES: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report usage to its makers
    # Ray's own log lines would come between ours on stderr, and on stdout; its errors arrive as exceptions anyway.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_worker_niceness": "0",  # Ray's default is 15: on a busy machine, workers would hardly get a core
}


def prepare_import() -> None:
    """Set Ray's environment variables where they are not set. Raises UsageError if Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("engine ray needs ray; install with `pip install 'batchland[ray]'`")
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)

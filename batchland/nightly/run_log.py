"""The log of a night as JSON lines: `runs/NAME/DATE/log.jsonl`, every line with the run's id."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from batchland.errors import OutputError
from batchland.system.files import open_existing

_log = logging.getLogger("batchland")


@contextmanager
def run_log(path: Path, hide: Callable[[Any], Any] | None = None, **fields: Any) -> Iterator[None]:
    """Append everything that batchland logs to `path`, one JSON object per line, each with `fields`.

    `extra={"data": {...}}` of a log call becomes the key `data`. `extra={"in_summary": True}` marks what the command
    prints at the end; it does not log these to stderr as well. Two processes may append at once. Raises OutputError
    if the file cannot be opened; a line that cannot be written later is dropped, with one message on stderr.

    hide: removes secrets from a message, and from the strings of `data`, in this log and in all others.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_existing(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); the job was not started") from error
    handler = _JsonLines(descriptor, path, fields)
    level = _log.level
    hiding = _Hiding(hide) if hide else None
    if hiding:
        _log.addFilter(hiding)
    _log.addHandler(handler)
    if not _log.isEnabledFor(logging.INFO):
        _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.setLevel(level)
        _log.removeHandler(handler)
        if hiding:
            _log.removeFilter(hiding)
        os.close(descriptor)


class _Hiding(logging.Filter):
    """Changes records, before any handler has them."""

    def __init__(self, hide: Callable[[Any], Any]) -> None:
        super().__init__()
        self._hide = hide

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._hide(record.getMessage()), None
        if hasattr(record, "data"):
            record.data = self._hide(record.data)
        if record.exc_info:
            record.exc_text = self._hide(logging.Formatter().formatException(record.exc_info))
        return True


class _JsonLines(logging.Handler):
    def __init__(self, descriptor: int, path: Path, fields: dict[str, Any]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._path = path
        self._fields = fields
        self._broken = False

    def emit(self, record: logging.LogRecord) -> None:
        line = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._fields,
            "message": record.getMessage(),
        }
        if hasattr(record, "data"):
            line["data"] = record.data
        if record.exc_info:
            line["traceback"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
        try:
            os.write(self._descriptor, (json.dumps(line, default=str) + "\n").encode())
        except OSError as error:
            if not self._broken:
                print(f"batchland: {self._path}: cannot be written ({error.strerror})", file=sys.stderr)
            self._broken = True

"""The exceptions of batchland, and the exit code of a command for each.

    BatchlandError                     exit
    ├── UsageError                      2   an option, a path or a label set is invalid
    │   └── NoSuchImagesError           2   the folder or archive of images does not exist (a job waits for it: 66)
    │       └── UnreadableImagesError   2   no archive or table of images can be read (a job waits for it: 66)
    ├── TooManyFailedError              3   done, but more images failed than max_failed allows
    ├── GateFailedError                 4   an evaluation gate failed
    ├── WrongDeliveryError              4   a job's delivery has too many images or the wrong ones
    ├── ModelError                      5   the model file cannot be used
    │   └── DeviceError                 5   the requested device cannot be used
    ├── SuspiciousNightError            6   a night of a job is not like the good ones
    ├── MissingInputError              66   a job's delivery, or a shard, is missing or not complete yet
    │   ├── IncompleteDeliveryError    66   a job's delivery lacks images that its contract asks for
    │   └── GrowingDeliveryError       66   a job's delivery changed a short time ago
    ├── DownloadError                  69   a server cannot be reached, or breaks the connection; a rerun resumes
    ├── EngineError                    69   a Ray cluster cannot be reached or broke down; a rerun resumes
    ├── InputError                     74   the storage of the images does not answer; a rerun resumes
    ├── OutputError                    74   the output cannot be written (disk full, read-only)
    ├── LockedError                    75   another run holds the output's lock
    ├── Interrupted             130 / 143   stopped by SIGINT / SIGTERM; a rerun resumes
    │   └── TimeLimitError            143   stopped at its own time limit, as by SIGTERM; a rerun resumes
    └── ImageError                      -   one image has no pixels; becomes a `failed` row, never ends a run

A message is one line: where, what went wrong, and what to do. It names no command-line option, because options have
other names in Python and in job files. If the remedy is an option, `advice` is the key of a sentence in cli/advice.py.
"""

import re
import signal
from typing import ClassVar, Final, Literal

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class BatchlandError(Exception):
    """Base class of all errors that batchland raises on purpose.

    advice: key of the sentence that the command line adds. values: the values of the sentence's `{name}` fields.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str | None = None, **values: object) -> None:
        super().__init__(message)
        self.advice = advice
        self.values = values

    def __str__(self) -> str:
        """The message as one line. Line breaks and control characters are escaped."""
        return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), super().__str__())


class UsageError(BatchlandError):
    """An option, a path or a label set is invalid."""

    exit_code = 2


class NoSuchImagesError(UsageError):
    """The folder, URL or archive of images does not exist. In a job, the delivery has not arrived yet."""


class UnreadableImagesError(NoSuchImagesError):
    """None of the archives or tables of images can be read. In a job, they may still be on their way."""


class TooManyFailedError(BatchlandError):
    """The run is done and written, but more images failed than `max_failed` allows."""

    exit_code = 3


class GateFailedError(BatchlandError):
    """An evaluation gate failed."""

    exit_code = 4


class WrongDeliveryError(BatchlandError):
    """A job's delivery has too many images or the wrong ones."""

    exit_code = 4


class SuspiciousNightError(BatchlandError):
    """A night of a job is written, but its delivery or answers differ from good nights; a person has to check it."""

    exit_code = 6


class ModelError(BatchlandError):
    """The model file cannot be used: not ONNX, without a card, with another input or output."""

    exit_code = 5


class DeviceError(ModelError):
    """The requested device cannot be used; the message says why and what to do."""


class MissingInputError(BatchlandError):
    """A job's delivery is missing, empty or still growing; a shard is missing or unfinished."""

    exit_code = 66


class IncompleteDeliveryError(MissingInputError):
    """A job's delivery lacks images that its contract asks for; they may still come."""


class GrowingDeliveryError(MissingInputError):
    """A job's delivery changed a short time ago. seconds: until it has settled, if nothing changes."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class DownloadError(BatchlandError):
    """A server cannot be reached, or the connection breaks again and again. Received data is kept; a rerun resumes."""

    exit_code = 69


class EngineError(BatchlandError):
    """A Ray cluster cannot be reached, or broke down. Finished parts are kept; a rerun resumes."""

    exit_code = 69


class InputError(BatchlandError):
    """The storage of the images does not answer any more. Finished parts are kept; a rerun resumes."""

    exit_code = 74


class OutputError(BatchlandError):
    """The output cannot be written. Finished parts are kept; a rerun resumes."""

    exit_code = 74


class LockedError(BatchlandError):
    """Another run holds the lock of this output."""

    exit_code = 75


class Interrupted(BatchlandError):  # noqa: N818 - an event, not a fault
    """A signal stopped the run after a whole batch; a rerun resumes there."""

    def __init__(self, message: str, signum: int, *, advice: str | None = None, **values: object) -> None:
        super().__init__(message, advice=advice, **values)
        self.exit_code = 128 + signum  # type: ignore[misc]  # 130 for SIGINT, 143 for SIGTERM


class TimeLimitError(Interrupted):
    """The run reached its time limit and stopped after a whole batch; a rerun resumes there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, signal.SIGTERM)


ErrorCode = Literal[
    "empty",
    "not_an_image",
    "truncated",
    "corrupt",
    "unsupported_format",
    "too_many_pixels",
    "too_large",
    "out_of_memory",
    "timeout",
    "crashed",
    "vanished",
    "changed",
    "permission_denied",
    "io_error",
    "unreadable",
    "model_output",
]
"""Stable codes of failed rows; docs/errors.md explains each."""


class ImageError(BatchlandError):
    """One image cannot be turned into pixels or scores. `code` is stable, the message is for people."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code

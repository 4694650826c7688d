"""The result of a check, and `guarded`, which turns an exception in a check into a failed result."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from batchland.errors import BatchlandError
from batchland.system.text import first_line

State = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """Result of one check."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What the user should do; empty if nothing."""


def guarded(name: str, check: Callable[..., Iterator[Check]], *arguments: Any) -> Iterator[Check]:
    """Run a check and yield its results. If it raises, yield a failed result with the error."""
    try:
        yield from check(*arguments)
    except BatchlandError as error:
        yield Check(name, "fail", str(error))
    except Exception as error:  # a broken installation may raise anything
        message = first_line(error)
        yield Check(name, "fail", f"{type(error).__name__}: {message}", "reinstall batchland into a fresh environment")

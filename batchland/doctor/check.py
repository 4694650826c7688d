"""A check of the doctor: its result, and how it survives what is broken."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from batchland.errors import BatchlandError

State = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """Result of one check."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do about it; empty where nothing needs doing."""


def guarded(name: str, check: Callable[..., Iterator[Check]], *arguments: Any) -> Iterator[Check]:
    """The results of a check; if it raises, the error is the result."""
    try:
        yield from check(*arguments)
    except BatchlandError as error:
        yield Check(name, "fail", str(error))
    except Exception as error:  # a broken installation may raise anything
        message = str(error).partition("\n")[0]
        yield Check(name, "fail", f"{type(error).__name__}: {message}", "reinstall batchland into a fresh environment")

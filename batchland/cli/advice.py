"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "out": "give another --out",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    advice = advice_of(error)
    return f"{error}; {advice}" if advice else str(error)


def advice_of(error: BatchlandError) -> str | None:
    """The sentence about the option that helps; None where there is none."""
    return ADVICE[error.advice].format(**error.values) if error.advice else None

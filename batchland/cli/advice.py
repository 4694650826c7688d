"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "image_list": "--images LIST scores the images that a list names",
    "out": "give another --out",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    if error.advice is None:
        return str(error)
    return f"{error}; {ADVICE[error.advice].format(**error.values)}"

"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "baseline": "give it with --baseline",
    "ignore_unknown_classes": "or leave out their images with --ignore-unknown-classes",
    "image_list": "--images LIST scores the images that a list names",
    "other_out": "give another --out",
    "overwrite_beside": "give another --out, or --overwrite to write beside it",
    "strip_prefix": "remove that with --strip-prefix '{prefix}'",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    if error.advice is None:
        return str(error)
    return f"{error}; {ADVICE[error.advice].format(**error.values)}"

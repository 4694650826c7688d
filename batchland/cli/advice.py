"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "all_files": "--all-files lists every file",
    "image_list": "--images LIST scores the images that a list names",
    "model": "give one with --model",
    "other_out": "give another --out",
    "overwrite": "--overwrite replaces it",
    "overwrite_shard": "score that shard again with --overwrite",
    "overwrite_shards": "score all shards again with --overwrite",
    "score_shard": "score those with the same command and --shard I/{count}, then merge",
    "shard_folder": "give the --out of `batchland score --shard`",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    if error.advice is None:
        return str(error)
    return f"{error}; {ADVICE[error.advice].format(**error.values)}"

"""A mark in a page that names its inputs, so that the same command recognises its own earlier page."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batchland.system.urls import is_url

HEAD_BYTES: Final = 4096
"""The mark and the name of the program are in the first bytes of each page."""
_MARK: Final = re.compile(rb'<meta name="batchland-inputs" content="([0-9a-f]{32})">')


def input_mark(inputs: Sequence[str]) -> str:
    """32 hexadecimal digits for these paths and URLs in this order; none for no inputs."""
    if not inputs:
        return ""
    absolute = (each if is_url(each) else os.path.abspath(each) for each in inputs)  # noqa: PTH100 - keeps links as they are
    return hashlib.sha256("\0".join(absolute).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read_mark(page: Path) -> str:
    """The mark of an existing page; empty if it has none, as pages of earlier versions."""
    with page.open("rb") as file:
        found = _MARK.search(file.read(HEAD_BYTES))
    return found[1].decode() if found else ""


def has_mark(page: Path, inputs: Sequence[str]) -> bool:
    """Whether an existing page has the mark of these inputs. True if there are no inputs."""
    return not inputs or read_mark(page) == input_mark(inputs)

"""Places by URL: told from paths, and shown without their credentials. Opens nothing (filesystems.py does)."""

import os
import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether it is a URL rather than a path of this machine."""
    return isinstance(place, str) and _URL.match(place) is not None


def local_path(url: str) -> str | None:
    """The path of a file:// URL; None for any other."""
    return unquote(split_url(url).path) if url.lower().startswith("file://") else None


def display_url(url: str) -> str:
    """A URL without credentials and options, percent signs decoded: what may be logged and written down."""
    return unquote(bare_url(url))


def bare_url(url: str) -> str:
    """A URL without credentials and options."""
    parts = split_url(url)
    user, at, host = parts.netloc.rpartition("@")
    # abfs alone puts a container where others have who asks
    container = user.partition(":")[0] if parts.scheme.startswith("abfs") else ""
    return f"{parts.scheme}://{container}{at if container else ''}{host}{parts.path}"


def split_url(url: str) -> SplitResult:
    """Its parts; a `#` belongs to the path."""
    return urlsplit(url, allow_fragments=False)

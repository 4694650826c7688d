"""URLs as text: distinguish them from paths, and display them without credentials. filesystems.py opens them."""

import os
import re
from contextlib import suppress
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from batchland.errors import UsageError

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MISTYPED: Final = re.compile(r"(?is)\W*(https?|ftp|s3|gs|gcs|abfss?|hdfs|viewfs):(?:[/\\]{2}|.*@)[/\\]*")
"""The beginning of what was meant as a URL, also with backslashes or in quotes."""
INVALID: Final = "is not a valid URL; check host and port, and write special characters (also of a password) as %XX"


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL, not a path."""
    return isinstance(location, str) and _URL.match(location) is not None


def mistyped_url(location: str) -> str | None:
    """A location that was meant as a URL but is none, without any part that may be a password; None for any other."""
    found = None if is_url(location) else _MISTYPED.match(location)
    if found is None:
        return None
    rest = location[found.end(1) :].lstrip(":/\\")
    return _without_credentials(f"{found[1].lower()}://{rest}")


def local_path(url: str) -> str | None:
    """The path of a file:// URL; None for any other."""
    return unquote(split_url(url).path) if url.lower().startswith("file://") else None


def display_url(url: str) -> str:
    """A URL without credentials and options, percent signs decoded, for messages and records."""
    return unquote(bare_url(url))


def bare_url(url: str) -> str:
    """A URL without credentials and options, valid or not."""
    try:
        parts = split_url(url)
    except UsageError:
        return _without_credentials(url)
    user, at, host = parts.netloc.rpartition("@")
    # in abfs URLs the part before the @ is a container, not a user
    container = user.partition(":")[0] if parts.scheme.startswith("abfs") else ""
    return f"{parts.scheme}://{container}{at if container else ''}{host}{parts.path}"


def split_url(url: str) -> SplitResult:
    """The parts of a URL; a `#` belongs to the path. Raises UsageError for an invalid URL."""
    with suppress(ValueError):  # its text may quote a password
        parts = urlsplit(url, allow_fragments=False)
        if parts.scheme:
            _ = parts.port  # ValueError: what follows the colon is no port but a password with a slash
        if "\\" not in parts.netloc and "\t" not in url:  # libraries read \ as a slash, and remove tabs
            return parts
    raise UsageError(f"{_without_credentials(url)}: {INVALID}")


def _without_credentials(url: str) -> str:
    """An invalid URL for messages, without any part that may be a password or a token."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    return scheme + mark + re.split("[?#&;=]", rest.rpartition("@")[2])[0]

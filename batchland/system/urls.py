"""URLs as text: distinguish them from paths, and display them without credentials. filesystems.py opens them."""

import os
import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from batchland.errors import UsageError

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL, not a path."""
    return isinstance(location, str) and _URL.match(location) is not None


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
    try:
        return urlsplit(url, allow_fragments=False)
    except ValueError as error:
        raise UsageError(f"{_without_credentials(url)}: is not a valid URL ({error})") from None


def _without_credentials(url: str) -> str:
    """An invalid URL for messages, without any part that may be a password or a token."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"

"""Open URLs as pyarrow file systems. They raise the same errors as local files, with names without credentials.

    s3://BUCKET/KEY             gs://BUCKET/KEY         abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY
    hdfs://HOST:8020/PATH       and all other URLs of pyarrow.fs.FileSystem.from_uri

Credentials, region and endpoint come from the environment variables of the provider's own tools, or from the options of
the URL (`?region=eu-west-1&endpoint_override=HOST:PORT&scheme=http`).
"""

import errno
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import unquote

import pyarrow as pa

from batchland.errors import BatchlandError, InputError, NoSuchImagesError, UsageError
from batchland.system.text import first_line
from batchland.system.urls import display_url, split_url

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

PATIENCE_SECONDS: Final = 30.0
"""A run ends if a storage stops answering for this long. Tests set it to 0, because a parameter would have to pass
through every function that reads or writes a location."""
Result = TypeVar("Result")
_CONNECTIONS: Final = 64
_GCS_RETRY_SECONDS: Final = 10
"""The library's default is fifteen minutes, longer than the time limit of an image."""
_AWS_REFUSALS: Final = "ACCESS_DENIED|SIGNATURE|ACCESS_KEY|TOKEN|UNRECOGNIZED_CLIENT|NOT_INITIALIZED|REQUEST_EXPIRED"
_REFUSED: Final = re.compile(
    rf"AWS Error [A-Z_]*({_AWS_REFUSALS})|HTTP status 40[13]|[Uu]nauthorized|AuthenticationFailed"
)
_NO_BUCKET: Final = re.compile(r"NO_SUCH_BUCKET|Bucket '.*' not found|ContainerNotFound")


class OpenUrl(NamedTuple):
    """A file system and a path in it, opened from a URL."""

    filesystem: "FileSystem"
    path: str
    """Path as pyarrow's file system expects it; in object stores it starts with the bucket."""
    name: str
    """The URL for messages, without credentials and options."""
    listed: bool = True
    """Whether it was listed successfully before. Then a refusal means that the credentials have expired."""


def open_location(url: str) -> OpenUrl:
    """Open a URL. Raises UsageError, or InputError if the server does not answer.

    Percent signs in the URL's path are decoded; characters that should be encoded (spaces, letters) may stay.
    """
    parts = split_url(url)
    filesystem, root = _open(parts.scheme, parts.netloc, parts.query)
    return OpenUrl(filesystem, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}".rstrip("/"), display_url(url))


@lru_cache
def _open(scheme: str, netloc: str, query: str) -> "tuple[FileSystem, str]":
    from pyarrow.fs import FileSystem  # slow to import; local paths do not need it

    pa.set_io_thread_count(max(pa.io_thread_count(), _CONNECTIONS))  # Arrow opens as many connections
    base = f"{scheme}://{netloc}/"
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query}&retry_limit_seconds={_GCS_RETRY_SECONDS}".lstrip("&")
    try:
        filesystem, root = FileSystem.from_uri(f"{base}?{query}" if query else base)
    except (OSError, pa.ArrowException, ImportError) as error:
        raise start_error(error, display_url(base)) from None  # Arrow's text may quote the URL whole
    return filesystem, root


def check_remote_file(url: str) -> None:
    """Raise NoSuchImagesError if there is no such file, InputError if the server does not answer."""
    location = open_location(url)
    try:
        found = location.filesystem.get_file_info(location.path)
    except (OSError, pa.ArrowException) as error:
        raise start_error(error, location.name) from None
    if not found.is_file:
        raise NoSuchImagesError(f"{location.name}: there is no such file; check the name")


def start_error(error: Exception, name: str) -> BatchlandError:
    """The error for users when the first request to a storage fails."""
    reason = _reason(error)
    if "libjvm" in str(error) or "libhdfs" in str(error):
        return UsageError(
            f"{name}: hdfs needs Java and Hadoop's native library; set JAVA_HOME, HADOOP_HOME and CLASSPATH "
            f"(docs/sources.md)"
        )
    if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
        if "Unrecognized filesystem" in str(error):
            return UsageError(f"{name}: no such kind of storage; give a path, or a URL of s3, gs, abfs, hdfs or file")
        return UsageError(f"{name}: the URL cannot be used; look at the options behind its `?`, see docs/sources.md")
    if _NO_BUCKET.search(str(error)):
        return UsageError(f"{name}: there is no such bucket; check its name, the region and the endpoint")
    if is_refused(error):
        return UsageError(
            f"{name}: access is refused ({reason}); check the credentials in the environment and their permissions"
        )
    return InputError(f"{name}: does not answer ({reason}); check the host, the endpoint and the region")


def is_missing(error: Exception) -> bool:
    """Whether the error means that the file does not exist. Arrow raises several classes for that."""
    return isinstance(error, FileNotFoundError) or str(error).startswith("No such file or directory")


def is_refused(error: Exception) -> bool:
    """Whether the error is about credentials or permissions."""
    return getattr(error, "errno", None) in (errno.EACCES, errno.EPERM) or _REFUSED.search(str(error)) is not None


def os_error(error: Exception) -> OSError:
    """The OSError that a local file system would raise in place of an error of Arrow."""
    if is_missing(error):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if is_refused(error):
        return PermissionError(errno.EACCES, _reason(error))
    return OSError(errno.EIO, _reason(error))


def call(location: OpenUrl, action: Callable[[], Result]) -> Result:
    """Run `action`, and raise its errors as a local file system would. InputError if the storage no longer answers."""
    try:
        return action()
    except (OSError, pa.ArrowException) as error:
        local = os_error(error)
        final = isinstance(local, FileNotFoundError) or (is_refused(error) and not location.listed)
        if not final and not answers(location):
            raise InputError(
                f"{location.name}: does not answer any more ({local.strerror}); finished parts are kept, run the same "
                f"command again when it does"
            ) from error
        raise local from error


def answers(location: OpenUrl) -> bool:
    """Whether the storage answers within PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            location.filesystem.get_file_info(location.path)
        except (OSError, pa.ArrowException) as error:
            if is_refused(error) and not location.listed:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(1)
        else:
            return True


def listed_us(info: "FileInfo") -> int | None:
    """The modification time in microseconds, rounded down to whole seconds: only listings give fractions."""
    return None if info.mtime_ns is None else info.mtime_ns // 1_000_000_000 * 1_000_000


def _reason(error: Exception) -> str:
    """The cause in Arrow's message, in one line."""
    text = first_line(error)
    found = re.search(r"AWS Error.*|google::cloud.*|Azure Error.*", text)
    return (found[0] if found else text).rstrip(". ")

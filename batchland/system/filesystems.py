"""A URL as a file system of pyarrow's: opened, named without its credentials, its errors told as any other file's are.

    s3://BUCKET/KEY             gs://BUCKET/KEY         abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY
    hdfs://HOST:8020/PATH       and what else pyarrow.fs.FileSystem.from_uri knows

Credentials, region and endpoint come from the environment as each provider's own tools take them, or from the URL's
options (`?region=eu-west-1&endpoint_override=HOST:PORT&scheme=http`). Knows nothing of images.
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

from batchland.errors import BatchlandError, InputError, UsageError
from batchland.system.urls import display_url, split_url

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

PATIENCE_SECONDS: Final = 30.0
"""How long a storage that has answered before may be silent until it is taken for gone."""
Result = TypeVar("Result")
_CONNECTIONS: Final = 64
_GCS_RETRY_SECONDS: Final = 10
"""By itself Google's library would try for fifteen minutes, longer than an image may take."""
_AWS_REFUSALS: Final = "ACCESS_DENIED|SIGNATURE|ACCESS_KEY|TOKEN|UNRECOGNIZED_CLIENT|NOT_INITIALIZED|REQUEST_EXPIRED"
_REFUSED: Final = re.compile(
    rf"AWS Error [A-Z_]*({_AWS_REFUSALS})|HTTP status 40[13]|[Uu]nauthorized|AuthenticationFailed"
)
_NO_BUCKET: Final = re.compile(r"NO_SUCH_BUCKET|Bucket '.*' not found|ContainerNotFound")


class Location(NamedTuple):
    """A place in a file system, as a URL gives it."""

    filesystem: "FileSystem"
    path: str
    """As the file system wants it; of a bucket, with the bucket's name first."""
    name: str
    """The URL for people: without credentials and options."""
    listed: bool = True
    """Whether it could be looked at before, so that a refusal means that the credentials are worth nothing any more."""


def open_location(url: str) -> Location:
    """The file system of a URL, and the place in it. Raises UsageError, or InputError if nobody answers.

    Percent signs in the URL's path are decoded; what a URL should not hold (spaces, letters of all kinds) may stay.
    """
    parts = split_url(url)
    filesystem, root = _open(parts.scheme, parts.netloc, parts.query)
    return Location(filesystem, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}".rstrip("/"), display_url(url))


@lru_cache
def _open(scheme: str, netloc: str, query: str) -> "tuple[FileSystem, str]":
    from pyarrow.fs import FileSystem  # only who has URLs pays for it

    pa.set_io_thread_count(max(pa.io_thread_count(), _CONNECTIONS))  # Arrow allows itself as many connections
    base = f"{scheme}://{netloc}/"
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query}&retry_limit_seconds={_GCS_RETRY_SECONDS}".lstrip("&")
    try:
        filesystem, root = FileSystem.from_uri(f"{base}?{query}" if query else base)
    except (OSError, pa.ArrowException, ImportError) as error:
        raise start_error(error, display_url(base)) from None  # Arrow's text may quote the URL whole
    return filesystem, root


def check_remote_file(url: str) -> None:
    """Raise UsageError, or InputError if nobody answers, unless there is such a file."""
    location = open_location(url)
    try:
        found = location.filesystem.get_file_info(location.path)
    except (OSError, pa.ArrowException) as error:
        raise start_error(error, location.name) from None
    if not found.is_file:
        raise UsageError(f"{location.name}: there is no such file; check the name")


def start_error(error: Exception, name: str) -> BatchlandError:
    """What it means that a storage gives this error when it is asked for the first time."""
    reason = _reason(error)
    if "libjvm" in str(error) or "libhdfs" in str(error):
        return UsageError(
            f"{name}: hdfs needs Java and Hadoop's native library; set JAVA_HOME, HADOOP_HOME and CLASSPATH "
            f"(`hadoop classpath --glob`)"
        )
    if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
        if "Unrecognized filesystem" in str(error):
            return UsageError(f"{name}: no such kind of storage; give a path, or a URL of s3, gs, abfs, hdfs or file")
        return UsageError(f"{name}: the URL cannot be used; look at the options behind its `?`, see docs/sources.md")
    if _NO_BUCKET.search(str(error)):
        return UsageError(f"{name}: there is no such bucket; check its name, the region and the endpoint")
    if is_refused(error):
        return UsageError(
            f"{name}: access is refused ({reason}); check the credentials in the environment, and what they may do"
        )
    return InputError(f"{name}: does not answer ({reason}); check the host, the endpoint and the region")


def is_missing(error: Exception) -> bool:
    """Whether there is no such thing, whatever class of error says so."""
    return isinstance(error, FileNotFoundError) or str(error).startswith("No such file or directory")


def is_refused(error: Exception) -> bool:
    """Whether credentials, or what they are allowed, are the trouble."""
    return getattr(error, "errno", None) in (errno.EACCES, errno.EPERM) or _REFUSED.search(str(error)) is not None


def os_error(error: Exception) -> OSError:
    """An error of Arrow's as the OSError that a local file system gives in that case."""
    if is_missing(error):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if is_refused(error):
        return PermissionError(errno.EACCES, _reason(error))
    return OSError(errno.EIO, _reason(error))


def call(location: Location, action: Callable[[], Result]) -> Result:
    """Do it, with the errors of a local file system. Raises InputError if the storage as a whole is gone."""
    try:
        return action()
    except (OSError, pa.ArrowException) as error:
        told = os_error(error)
        final = isinstance(told, FileNotFoundError) or (is_refused(error) and not location.listed)
        if not final and not answers(location):
            raise InputError(
                f"{location.name}: does not answer any more ({told.strerror}); finished parts are kept, run the same "
                f"command again when it does"
            ) from error
        raise told from error


def answers(location: Location) -> bool:
    """Whether the storage still talks to us; waits for it up to PATIENCE_SECONDS."""
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


def listed_us(info: "FileInfo") -> int:
    """A modification time, in microseconds, but in whole seconds: listings tell of fractions that objects do not."""
    return (info.mtime_ns or 0) // 1_000_000_000 * 1_000_000


def _reason(error: Exception) -> str:
    """Arrow's words in one line, from where they speak of the cause."""
    text = str(error).partition("\n")[0]
    found = re.search(r"AWS Error.*|google::cloud.*|Azure Error.*", text)
    return (found[0] if found else text).rstrip(". ")

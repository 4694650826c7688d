"""Images on web servers, by the http and https URLs of a list. Uses few connections per host, and obeys Retry-After.

Hosts with private addresses are refused unless allowed, so that a list from elsewhere cannot read from this machine's
private network.
"""

import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util import Retry, Timeout, create_urllib3_context

from batchland._version import __version__
from batchland.errors import ImageError
from batchland.images.sources.refs import ImageFile, ImageRef
from batchland.images.sources.web_connections import PrivateAddressError, pool_classes
from batchland.images.sources.web_names import public_url
from batchland.system.times import known_time
from batchland.system.urls import split_url

MAX_BYTES: Final = 64 * 1024**2
"""Larger images fail as `too_large`; no more than this of them is received."""
PER_HOST: Final = 8
"""Connections to one host at once."""
_HOSTS: Final = 64
"""Hosts with open connections."""
RETRIES: Final = 3
_REDIRECTS: Final = 5
BACKOFF_SECONDS: Final = 0.5
_MAX_WAIT: Final = 30
"""Seconds of a pause, also if the server asks for a longer one."""
_BLOCK: Final = 256 * 1024
_SECONDS: Final = 45.0
"""For the content of an image. A server that sends it byte by byte is given up."""
_COMPRESSIONS: Final = frozenset(("br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"))
"""Values of Content-Encoding. Others, such as `none` or `aws-chunked` of S3, leave the content as it is."""
_TEMPORARY: Final = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that are retried."""


@dataclass(frozen=True)
class WebImages:
    """The Store of images by URL.

    private: whether hosts with private addresses are allowed. retries: how often an image is asked for again.
    backoff_seconds: wait before the first of them; each further wait is twice as long.
    """

    private: bool = False
    retries: int = RETRIES
    backoff_seconds: float = BACKOFF_SECONDS

    def ref(self, url: str) -> ImageRef:
        """The image at a URL. Its name is the URL without user, password and parameters that may be secret.

        Raises UsageError for an invalid URL.
        """
        split_url(url)
        url = url.partition("#")[0]
        return ImageRef(public_url(url), url.encode(), store=self)

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Raises ImageError."""
        url = path.decode()
        try:
            response, data = self._answer(url)
        except PrivateAddressError as error:
            raise ImageError("permission_denied", str(error)) from error
        except ValueError as error:  # urllib3's LocationValueError, too
            raise ImageError(
                "io_error", "the URL, or the one that it redirects to, is not a valid web address"
            ) from error
        except (HTTPError, OSError) as error:
            raise ImageError("io_error", _reason(error)) from error
        if response.status in (404, 410):
            raise ImageError("vanished", f"the web server answers {response.status}")
        if response.status in (401, 402, 403, 407, 451):
            raise ImageError("permission_denied", f"the web server answers {response.status}")
        if response.status != 200:
            raise ImageError("io_error", f"the web server answers {response.status}")
        if len(data) > MAX_BYTES:
            raise ImageError("too_large", f"more than {MAX_BYTES} bytes")
        return ImageFile(data, len(data), _modified_us(response.headers.get("Last-Modified")))

    def _answer(self, url: str) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        """The answer and its content, at most MAX_BYTES + 1 of it. Asks again if the content is cut."""
        for attempt in range(self.retries):
            try:
                return self._once(url)
            except ProtocolError:
                time.sleep(self.backoff_seconds * 2**attempt)
        return self._once(url)

    def _once(self, url: str) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        """The answer after redirects. urllib3's own redirects lose a connection for each invalid address."""
        for _ in range(_REDIRECTS + 1):
            manager = _manager(self.private, _proxy(url), self.retries, self.backoff_seconds)
            response = manager.request("GET", _escaped(url), preload_content=False, redirect=False)
            try:
                content = _content(response)
            finally:
                _release(response)
            location = response.get_redirect_location()
            if not location:
                return response, content
            url = _redirected(url, location)
        raise ImageError("io_error", f"the web server redirects more than {_REDIRECTS} times")

    def facts(self, path: bytes) -> None:  # noqa: ARG002
        """See `Store.facts`. Unknown: a resumed run does not ask the servers again."""
        return


def _redirected(url: str, location: str) -> str:
    """The URL that an answer redirects to. Raises ImageError if it is not one of the web."""
    with suppress(ValueError):
        target = urljoin(url, location)
        parts = urlsplit(target)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return target
    raise ImageError("io_error", "the web server redirects to an address that is not a valid http or https URL")


def _release(response: urllib3.BaseHTTPResponse) -> None:
    """Free the connection for the next request. It is closed first if not all of the content was read."""
    if response.length_remaining or not response.closed:
        response.close()
    response.release_conn()


class _TooSlowError(OSError):
    """The content comes too slowly."""


class _Retry(Retry):
    """Ignores an invalid Retry-After."""

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except (InvalidHeader, ValueError, OverflowError):  # a number of 5000 digits, the year 99999
            return 0


@lru_cache(8)
def _manager(private: bool, proxy: str | None, retries: int, backoff_seconds: float) -> urllib3.PoolManager:
    """Connections that all threads share."""
    tls = create_urllib3_context()
    tls.load_default_certs()  # takes 0.1 s, so not for each connection
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its warnings hold whole URLs
    settings: dict[str, Any] = {
        "num_pools": _HOSTS,
        "maxsize": PER_HOST,
        "block": True,
        "headers": {
            "User-Agent": f"batchland/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
        "ssl_context": tls,
        "timeout": Timeout(connect=10.0, read=20.0),
        "retries": _Retry(
            total=retries,
            connect=retries,
            read=retries,
            status=retries,
            other=0,
            status_forcelist=_TEMPORARY,
            backoff_factor=backoff_seconds,
            backoff_jitter=backoff_seconds,
            backoff_max=_MAX_WAIT,
            retry_after_max=_MAX_WAIT,
            raise_on_status=False,
        ),
    }
    manager = urllib3.PoolManager(**settings) if proxy is None else urllib3.ProxyManager(proxy, **settings)
    manager.pool_classes_by_scheme = pool_classes(private=private or proxy is not None)
    return manager


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL. It then decides which addresses may be reached."""
    parts = urlsplit(url)
    proxies = getproxies() if any(name.lower().endswith("_proxy") for name in os.environ) else {}
    if not proxies or proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _escaped(url: str) -> str:
    """A URL with everything outside ASCII as %XX, and no fragment."""
    parts = urlsplit(url)
    safe = "/%?&=;:@+,~!$'()*"
    return urlunsplit((parts.scheme, parts.netloc, quote(parts.path, safe), quote(parts.query, safe), ""))


def _content(response: urllib3.BaseHTTPResponse) -> bytes:
    """The content, at most MAX_BYTES + 1 of it. Raises HTTPError, _TooSlowError, ImageError."""
    end, blocks, size = time.monotonic() + _SECONDS, [], 0
    while size <= MAX_BYTES and (block := response.read1(min(_BLOCK, MAX_BYTES + 1 - size), decode_content=False)):
        blocks.append(block)
        size += len(block)
        if time.monotonic() > end:
            raise _TooSlowError(f"the web server sends too slowly, {size} bytes in {_SECONDS:.0f} s")
    encodings = re.split(r"[\s,]+", response.headers.get("Content-Encoding", "").lower())
    if response.status == 200 and not _COMPRESSIONS.isdisjoint(encodings):
        raise ImageError("io_error", "the web server compresses the content, although that was not asked for")
    return b"".join(blocks)


def _reason(error: BaseException) -> str:
    """What went wrong, without the address and the objects that urllib3 prints."""
    cause: BaseException = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, _TooSlowError):
        return str(cause)
    if isinstance(cause, ProtocolError | InvalidHeader):
        return "the connection to the web server ended too early, or its answer is not HTTP"
    if isinstance(cause, ValueError):  # its text quotes the URL whole
        return "the URL is not valid"
    text = re.sub(r"^<.*?>: |^\w+\(.*?\): ", "", str(cause))
    return f"the web server does not answer ({text or type(cause).__name__})"


def _modified_us(stamp: str | None) -> int | None:
    """Microseconds since 1970 of a Last-Modified header; None without a valid one."""
    try:
        return known_time(int(parsedate_to_datetime(stamp).timestamp()) * 1_000_000) if stamp else None
    except (ValueError, OverflowError, TypeError):
        return None

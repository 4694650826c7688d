"""Images on web servers, by the http and https URLs of a list. Uses few connections per host, and obeys Retry-After.

Hosts with private addresses are refused unless allowed, so that a list from elsewhere cannot read from this machine's
private network. The address is checked when connecting, also after redirects.
"""

import ipaddress
import logging
import os
import re
import socket
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError
from urllib3.util import Retry, Timeout

from batchland._version import __version__
from batchland.errors import ImageError, UsageError
from batchland.images.sources.refs import ImageFile, ImageRef
from batchland.system.times import known_time
from batchland.system.urls import bare_url, split_url

MAX_BYTES: Final = 64 * 1024**2
"""Larger images fail as `too_large`; no more than this of them is received."""
PER_HOST: Final = 8
"""Connections to one host at once."""
_HOSTS: Final = 64
"""Hosts with open connections."""
_RETRIES: Final = 3
_REDIRECTS: Final = 5
_BACKOFF_SECONDS: Final = 0.5
_MAX_WAIT: Final = 30
"""Seconds of a pause, also if the server asks for a longer one."""
_TEMPORARY: Final = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that are retried."""
_SECRET: Final = re.compile(r"(?i)sig|token|key|auth|pass|secret|cred|expir|policy|session|^x-(amz|goog|ms)-|^hdn")
"""Names of query parameters that may hold a signature or a password."""


@dataclass(frozen=True)
class WebImages:
    """The Store of images by URL. private: whether hosts with private addresses are allowed."""

    private: bool = False

    def ref(self, url: str) -> ImageRef:
        """The image at a URL. Its name is the URL without user, password and parameters that may be secret."""
        return ImageRef(public_url(url), url.encode(), store=self)

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Raises ImageError."""
        url = path.decode()
        try:
            response = _manager(self.private, _proxy(url)).request(
                "GET", _escaped(url), preload_content=False, redirect=True
            )
            try:
                data = response.read(MAX_BYTES + 1, decode_content=True)
                whole = not response.length_remaining
            finally:
                response.release_conn() if not response.closed and _drained(response) else response.close()
        except _PrivateAddressError as error:
            raise ImageError("permission_denied", str(error)) from error
        except (HTTPError, OSError, ValueError) as error:
            raise ImageError("io_error", f"the web server does not answer ({_reason(error)})") from error
        if response.status in (404, 410):
            raise ImageError("vanished", f"the web server answers {response.status}")
        if response.status in (401, 402, 403, 407, 451):
            raise ImageError("permission_denied", f"the web server answers {response.status}")
        if response.status != 200:
            raise ImageError("io_error", f"the web server answers {response.status}")
        if len(data) > MAX_BYTES:
            raise ImageError("too_large", f"more than {MAX_BYTES} bytes")
        if not whole:
            raise ImageError("io_error", "the connection ended too early")
        return ImageFile(data, len(data), _modified_us(response.headers.get("Last-Modified")))

    def facts(self, path: bytes) -> None:  # noqa: ARG002
        """See `Store.facts`. Unknown: a resumed run does not ask the servers again."""
        return


def public_url(url: str) -> str:
    """A URL without user, password and parameters that may be secret. Other parameters identify the image."""
    query = split_url(url).query
    kept = [pair for pair in query.split("&") if pair and not _SECRET.search(pair.partition("=")[0])]
    return bare_url(url) + ("?" if kept else "") + "&".join(kept)


def joined_url(base: str, entry: str) -> str:
    """The URL of a list's entry that is relative to a base URL. Raises UsageError for an invalid URL."""
    try:
        return urljoin(f"{base.rstrip('/')}/", quote(entry, safe="/%?&=;:@+,~!$'()*"))
    except ValueError as error:
        raise UsageError(f"{entry}: is not valid below a URL ({error})") from None


class _PrivateAddressError(Exception):
    """A host has no public address."""


class _Checked:
    """Connects only to addresses that are not private."""

    _dns_host: str
    host: str
    port: int
    timeout: Any
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NewConnectionError(self, f"no address: {error.strerror}") from error  # type: ignore[arg-type]
        public = [address[:2] for *_, address in found if is_public(str(address[0]))]
        if not public:
            raise _PrivateAddressError(
                f"the host {self.host} has the private address {found[0][4][0]}, and those are not allowed"
            )
        for number, address in enumerate(public):
            try:
                return urllib3.util.connection.create_connection(
                    (str(address[0]), int(address[1])), Timeout.resolve_default_timeout(self.timeout),
                    socket_options=self.socket_options,
                )  # fmt: skip
            except OSError as error:
                if number == len(public) - 1:
                    raise NewConnectionError(self, error.strerror or str(error)) from error  # type: ignore[arg-type]
        raise AssertionError("unreachable")


class _CheckedHttp(_Checked, HTTPConnection):
    pass


class _CheckedHttps(_Checked, HTTPSConnection):
    pass


class _CheckedHttpPool(HTTPConnectionPool):
    ConnectionCls = _CheckedHttp


class _CheckedHttpsPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedHttps


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not of a private network, this machine or a cloud's metadata."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    parsed = mapped or parsed
    return parsed.is_global and not parsed.is_multicast and parsed not in _NAT64


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@lru_cache(8)
def _manager(private: bool, proxy: str | None) -> urllib3.PoolManager:
    """Connections that all threads share."""
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its warnings hold whole URLs
    settings: dict[str, Any] = {
        "num_pools": _HOSTS,
        "maxsize": PER_HOST,
        "block": True,
        "headers": {"User-Agent": f"batchland/{__version__}", "Accept-Encoding": "identity"},
        "timeout": Timeout(connect=10.0, read=20.0),
        "retries": Retry(
            total=_RETRIES + _REDIRECTS,
            connect=_RETRIES,
            read=_RETRIES,
            status=_RETRIES,
            redirect=_REDIRECTS,
            other=0,
            status_forcelist=_TEMPORARY,
            backoff_factor=_BACKOFF_SECONDS,
            backoff_jitter=_BACKOFF_SECONDS,
            backoff_max=_MAX_WAIT,
            retry_after_max=_MAX_WAIT,
            raise_on_status=False,
        ),
    }
    if proxy is not None:
        return urllib3.ProxyManager(proxy, **settings)
    manager = urllib3.PoolManager(**settings)
    if not private:
        manager.pool_classes_by_scheme = {"http": _CheckedHttpPool, "https": _CheckedHttpsPool}
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


def _drained(response: urllib3.BaseHTTPResponse) -> bool:
    return not response.length_remaining


def _reason(error: Exception) -> str:
    """What went wrong, without the address and the object that urllib3 prints."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    return re.sub(r"^<.*?>: |^\w+\(.*?\): ", "", str(cause)) or type(cause).__name__


def _modified_us(stamp: str | None) -> int | None:
    """Microseconds since 1970 of a Last-Modified header; None without a valid one."""
    try:
        return known_time(int(parsedate_to_datetime(stamp).timestamp()) * 1_000_000) if stamp else None
    except (ValueError, OverflowError, TypeError):
        return None

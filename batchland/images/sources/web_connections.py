"""HTTP connections for one request each.

HTTP/1.1 does not number its answers. If a server sends more than it was asked for, the surplus looks like the answer to
the next request on that connection. On a new connection the first answer always belongs to the request.
"""

import http.client
import ipaddress
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.util import Timeout

_HEADER_SECONDS: Final = 20.0
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddressError(Exception):
    """A host has no public address."""


class _Answer(http.client.HTTPResponse):
    """Skips interim answers (102, 103)."""

    def begin(self) -> None:
        super().begin()
        while self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]
            super().begin()


class _Single:
    """A connection that is never used again, and gives up slow headers."""

    sock: socket.socket | None
    response_class = _Answer
    is_connected = False
    """urllib3 asks this before it uses a connection again."""

    def getresponse(self) -> Any:
        """See urllib3. Raises TimeoutError."""
        end = time.monotonic() + _HEADER_SECONDS
        timer = threading.Timer(_HEADER_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()
        if time.monotonic() >= end:  # the end of the connection looks like the end of the headers
            response.close()
            raise TimeoutError(f"no headers within {_HEADER_SECONDS:.0f} s")
        return response

    def _cut(self) -> None:
        with suppress(OSError, AttributeError):  # closed by now
            self.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class _SinglePublic(_Single):
    """Connects only to addresses that are not private."""

    host: str
    port: int
    timeout: Any
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        """See urllib3. Raises PrivateAddressError, NewConnectionError."""
        try:
            found = [info[4] for info in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise NewConnectionError(self, f"no address: {error.strerror}") from error  # type: ignore[arg-type]
        public = [(str(address[0]), self.port) for address in found if is_public(str(address[0]))]
        if not public:
            raise PrivateAddressError(
                f"the host {self.host} has the private address {found[0][0]}, and those are not allowed"
            )
        timeout = Timeout.resolve_default_timeout(self.timeout)
        for address in public:
            try:
                return urllib3.util.connection.create_connection(address, timeout, socket_options=self.socket_options)
            except OSError as error:
                failure = error
        raise NewConnectionError(self, failure.strerror or str(failure)) from failure  # type: ignore[arg-type]


def pool_classes(*, private: bool) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections by scheme. private: also connect to private addresses."""
    kind = _Single if private else _SinglePublic
    http_kind, https_kind = (type(base.__name__, (kind, base), {}) for base in (HTTPConnection, HTTPSConnection))
    return {
        "http": type("HttpPool", (HTTPConnectionPool,), {"ConnectionCls": http_kind}),
        "https": type("HttpsPool", (HTTPSConnectionPool,), {"ConnectionCls": https_kind}),
    }


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not of a private network, this machine or a cloud's metadata."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    parsed = mapped or parsed
    return parsed.is_global and not parsed.is_multicast and parsed not in _NAT64

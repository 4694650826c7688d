"""HTTP connections that are used again only while each answer certainly belongs to its request.

HTTP/1.1 does not number its answers. If a server sends more than it was asked for, the surplus looks like the answer to
the next request on that connection. So nothing may be waiting when a request is sent, and nothing may follow an answer.
"""

import http.client
import io
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.util import Timeout
from urllib3.util.wait import wait_for_read

_HEADER_SECONDS: Final = 20.0
_NEW_ANSWERS: Final = 20
"""Answers on used connections after which a host is known."""
_NEW_SECONDS: Final = 0.1
"""How long to wait for a surplus of a host that is not known. A kernel may hold back a short write for 40 ms."""
_KNOWN_SECONDS: Final = 0.002
"""The same for a known host."""
_WEIGHT: Final = 1 / 16
"""Of the latest answer in the mean time of answers."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

_log: Final = logging.getLogger("batchland")


class PrivateAddressError(Exception):
    """A host has no public address."""


@dataclass
class Host:
    """What is known about the answers of a host, of all its connections together."""

    name: str
    checked: int = 0
    """Answers on used connections that nothing followed."""
    seconds: float = 0.0
    """Mean time from a request to the head of its answer."""
    surplus: bool = False
    """Whether it has sent more than it was asked for. Then no connection is used twice."""

    @property
    def known(self) -> bool:
        """Whether it has answered well so often that shorter checks are enough."""
        return self.checked >= _NEW_ANSWERS

    def report_surplus(self, *, late: bool) -> None:
        """Record a surplus. late: an image may already have been read that was the surplus of another."""
        if not self.surplus:
            self.surplus = True
            _log.warning(
                "%s: sends more than it is asked for, so each image gets a new connection from now on%s",
                self.name,
                "; images read before may be other ones of this host: score them again" if late else "",
            )


class _Answer(http.client.HTTPResponse):
    """Skips interim answers, and looks for a surplus before the rest of its buffer is lost."""

    _owner: "_Careful | None" = None

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def _close_conn(self) -> None:
        owner, self._owner = self._owner, None
        fp, left = self.fp, self.chunk_left if self.chunked else self.length
        try:
            if owner is not None and not self.will_close and not left:
                owner.after_answer(fp, self.status)
        finally:
            super()._close_conn()  # type: ignore[misc]


class _Careful:
    """A connection that gives up slow headers, and is not used again if the server sends more than it was asked for."""

    sock: socket.socket | None
    record: Host
    """Set by the pool."""
    _answers = 0
    """Of the present socket."""
    _spoiled = False
    _asked = _ended = 0.0

    def connect(self) -> None:
        self._answers, self._spoiled = 0, False
        super().connect()  # type: ignore[misc]

    def response_class(self, *given: Any, **named: Any) -> _Answer:
        """The answer of http.client."""
        answer = _Answer(*given, **named)
        answer._owner = self
        return answer

    def getresponse(self) -> Any:
        """See urllib3."""
        cut = threading.Event()
        timer = threading.Timer(_HEADER_SECONDS, self._cut, [cut])
        timer.daemon = True
        timer.start()
        self._answers += 1
        self._asked = time.monotonic()
        try:
            response = super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()
        if cut.is_set():  # the end of the connection looks like the end of the headers
            response.close()
            raise TimeoutError(f"no headers within {_HEADER_SECONDS:.0f} s")
        return response

    def _cut(self, cut: threading.Event) -> None:
        cut.set()
        with suppress(OSError):
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)

    def after_answer(self, fp: io.BufferedReader, status: int) -> None:
        """Look for a surplus behind a complete answer, in its buffer and in the socket.

        The first answer of a socket belongs to its request in any case. A later one may be a surplus itself, above all
        one that came sooner than usual: then the right one follows, so wait until it should be there.

        Raises HTTPException if the answer may belong to another request.
        """
        used, seconds = self._answers > 1, time.monotonic() - self._asked
        wait = max(self.record.seconds - seconds, 0) if self.record.known else _NEW_SECONDS
        self._spoiled = status < 200 or bool(self._waiting(lambda: _peeked(fp), wait if used else 0))
        self._ended = time.monotonic()
        if self._spoiled:
            self.record.report_surplus(late=False)
            if used:
                raise http.client.HTTPException("an answer that may belong to another request")
            return
        self.record.checked += used
        self.record.seconds += (seconds - self.record.seconds) * (_WEIGHT if self.record.seconds else 1)

    @property
    def is_connected(self) -> bool:
        """Whether the connection can be used for another request. If not, urllib3 opens a new one."""
        sock = self.sock
        if sock is None or self._spoiled or self.record.surplus:
            return False
        grace = _KNOWN_SECONDS if self.record.known else _NEW_SECONDS
        found = self._waiting(lambda: sock.recv(1), self._ended + grace - time.monotonic())
        if found:
            self.record.report_surplus(late=self._answers > 1)
        return found is None

    def _waiting(self, read: Callable[[], bytes], seconds: float) -> bytes | None:
        """What `read` gets, now or within so many seconds; None for nothing, empty for the end of the connection."""
        assert self.sock is not None
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            for wait in (seconds, 0):
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    return read()
                if wait <= 0 or not wait_for_read(self.sock, wait):
                    return None
        except OSError:
            return b""
        finally:
            self.sock.settimeout(timeout)
        return None


def _peeked(stream: io.BufferedReader) -> bytes:
    """The next bytes of a stream that does not block. Raises BlockingIOError if there are none, or at its end."""
    if found := stream.peek(1):
        return found
    raise BlockingIOError


class _Checked(_Careful):
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
            raise PrivateAddressError(
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


class _Pool:
    """Connections to one host, which share what is known about it."""

    host: str

    def _new_conn(self) -> Any:
        connection = super()._new_conn()  # type: ignore[misc]
        connection.record = self.__dict__.setdefault("record", Host(self.host))
        return connection


def pool_classes(*, private: bool) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections by scheme. private: also connect to private addresses."""
    kind = _Careful if private else _Checked
    http_kind, https_kind = (type(base.__name__, (kind, base), {}) for base in (HTTPConnection, HTTPSConnection))
    return {
        "http": type("HttpPool", (_Pool, HTTPConnectionPool), {"ConnectionCls": http_kind}),
        "https": type("HttpsPool", (_Pool, HTTPSConnectionPool), {"ConnectionCls": https_kind}),
    }


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not of a private network, this machine or a cloud's metadata."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    parsed = mapped or parsed
    return parsed.is_global and not parsed.is_multicast and parsed not in _NAT64

"""Download one file over HTTP(S) into a partial file that a later call resumes."""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from batchland._version import __version__
from batchland.errors import DownloadError, UsageError
from batchland.system.files import open_existing, replace_file
from batchland.system.text import reason, visible
from batchland.system.urls import bare_url

_log = logging.getLogger("batchland")

_CHUNK: Final = 1 << 18
_TIMEOUT_SECONDS: Final = 30.0
"""An attempt fails if the server sends nothing for this long."""
WAITS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry."""
_TEMPORARY: Final = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses worth a retry."""

OnBytes = Callable[[int, int | None], None]
"""Called with the number of bytes received, and the total where the server sends it."""


class _State(NamedTuple):
    """The origin of a partial file. With the validator, the server confirms that it still has the same file."""

    url: str
    validator: str
    """Strong ETag, otherwise Last-Modified."""
    size: int | None


class _TemporaryError(Exception):
    """An attempt failed for a reason that may be temporary."""


def fetch(
    url: str, partial: Path, *, max_bytes: int, on_bytes: OnBytes | None = None, waits: tuple[float, ...] = WAITS
) -> None:
    """Download `url` into `partial`, resuming an earlier call if the file on the server is unchanged.

    on_bytes: may raise to stop. waits: seconds before each retry; after an attempt that received data, they start again
    with the first. Raises UsageError if the server refuses or the file is larger than `max_bytes`, DownloadError if all
    retries fail; received data is kept for the next call.
    """
    if not re.fullmatch(r"https?://[!-.0-~]+(/[!-~]*)?", url):
        raise UsageError(
            f"{bare_url(url)}: not an http or https address (write spaces and non-ASCII characters as %XX)"
        )
    fetching = _Fetching(url, partial, max_bytes, on_bytes or (lambda *_: None))
    left = list(waits)
    while True:
        before = _size(partial)
        try:
            return fetching.attempt()
        except _TemporaryError as error:
            if _size(partial) > before:
                left = list(waits)
            if not left:
                raise DownloadError(
                    f"{bare_url(url)}: {error}; {_size(partial)} bytes are kept, run it again to resume"
                ) from error
            _log.warning("%s: %s; retrying in %g s", bare_url(url), visible(str(error)), left[0])
            time.sleep(left.pop(0))
            fetching.on_bytes(_size(partial), None)


def forget(partial: Path) -> None:
    """Delete a partial file and its state."""
    partial.unlink(missing_ok=True)
    _state_path(partial).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Fetching:
    url: str
    partial: Path
    max_bytes: int
    on_bytes: OnBytes

    def attempt(self) -> None:
        state = _read_state(self.partial)
        here = _size(self.partial) if state is not None and state.url == _digest(self.url) else 0
        headers = {"User-Agent": f"batchland/{__version__}", "Accept-Encoding": "identity"}
        if here and state is not None:
            headers |= {"Range": f"bytes={here}-", "If-Range": state.validator}
        response = _open(self.url, headers)
        if response is None and state is not None and state.size == here:
            return self.on_bytes(here, here)  # the file is complete
        if response is None or (response.status == 206 and _start(response) != here):
            forget(self.partial)
            raise _TemporaryError("the server does not have the requested range any more")
        with response:
            if response.status != 206:  # the whole file: no range requested or supported, or the file has changed
                here = 0
                _write_state(self.partial, self.url, response)
            self._receive(response, here)
        return None

    def _receive(self, response: http.client.HTTPResponse, here: int) -> None:
        total = _total(response, here)
        self._require_size(total or 0)
        with open(open_existing(self.partial, os.O_WRONLY | os.O_APPEND), "ab") as file:
            self.on_bytes(here, total)
            while chunk := _read(response):
                here += len(chunk)
                self._require_size(here)
                file.write(chunk)
                self.on_bytes(here, total)
        if total is not None and here != total:
            raise _TemporaryError(f"the connection ended after {here} of {total} bytes")

    def _require_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise UsageError(f"{bare_url(self.url)}: {size} bytes or more; at most {self.max_bytes} are allowed")


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse | None:
    """The server's response; None if the requested range starts at or after the end of the file."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `fetch` checks that it is http or https
    try:
        return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and "Range" in headers:
                return None
            if error.code in _TEMPORARY:
                raise _TemporaryError(f"the server answers {error.code} {error.reason}") from error
            if str(error.reason).startswith(_SafeRedirects.inf_msg):
                raise UsageError(
                    f"{bare_url(url)}: the server redirects in a circle, or too often; check the address"
                ) from error
            raise UsageError(
                f"{bare_url(url)}: the server answers {error.code} {error.reason}; check the address"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UsageError(f"{bare_url(url)}: the server's certificate is not trusted ({cause})") from error
        raise _TemporaryError(f"no answer ({reason(cause) if isinstance(cause, Exception) else cause})") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(f"the connection broke ({error or type(error).__name__})") from error


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https, never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://" if req.type == "https" else ("http://", "https://")):
            raise UsageError(
                f"{bare_url(req.full_url)}: redirects to {bare_url(newurl)}, which is less secure; give that address "
                f"to download it anyway"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _start(response: http.client.HTTPResponse) -> int | None:
    """First byte of a partial response."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total(response: http.client.HTTPResponse, here: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return here + int(length) if length.isdigit() else None


def _state_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_state(partial: Path) -> _State | None:
    """The stored state of a partial file; None if there is none with which to resume."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        state = _State(**json.loads(_state_path(partial).read_text()))
        return state if state.validator else None
    return None


def _write_state(partial: Path, url: str, response: http.client.HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else ""  # a weak tag does not promise identical bytes
    validator = strong or response.headers.get("Last-Modified", "")
    partial.unlink(missing_ok=True)  # first, so that old bytes never have the new state
    replace_file(_state_path(partial), json.dumps(_State(_digest(url), validator, _total(response, 0))._asdict()))


def _digest(url: str) -> str:
    """A hash that identifies a URL. The URL itself is not stored: it may contain a password or a signature."""
    return hashlib.sha256(url.encode()).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""HTTP requests of heartbeats and notifications. An error is a message without the address, which may be a secret."""

import urllib.error
import urllib.request
from http.client import HTTPException, InvalidURL

from batchland._version import __version__
from batchland.system.deadline import within
from batchland.system.text import reason, visible


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a heartbeat that leads to a login page was not heard, and urllib repeats a POST as a GET
    without its document."""

    def redirect_request(self, *_: object) -> None:
        """None is an error."""


def request(url: str, seconds: float, body: bytes | None = None) -> str | None:
    """GET the URL, or POST a JSON document to it. Returns an error message, None on success (a 2xx answer).

    seconds: to wait at most, in all.
    """
    try:
        within(seconds, lambda: _send(url, seconds, body))
    except urllib.error.HTTPError as error:
        with error:
            what = "ping" if body is None else "document"
            advice = f"; it redirects, so the {what} was not taken; give the address that it leads to"
            return f"answered {error.code} {visible(str(error.reason))}{advice if error.code // 100 == 3 else ''}"
    except urllib.error.URLError as error:
        return reason(error.reason) if isinstance(error.reason, BaseException) else visible(error.reason)
    except OSError as error:  # TimeoutError, too
        return reason(error)
    except (InvalidURL, ValueError):
        return "the address is not a valid URL; remove spaces, line breaks and letters that are not ASCII"
    except HTTPException:
        return "the answer is not HTTP"
    except Exception as error:  # no notification may end the job, and the error's text may hold the address
        return type(error).__name__
    return None


def _send(url: str, seconds: float, body: bytes | None) -> None:
    headers = {"User-Agent": f"batchland/{__version__}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    message = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - the job file allows http and https only
    urllib.request.build_opener(_NoRedirects).open(message, timeout=seconds).close()

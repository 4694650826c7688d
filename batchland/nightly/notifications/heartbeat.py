"""Ping a monitor by HTTP when a job starts and ends. It never fails the job, nor delays it beyond a timeout."""

import threading
import urllib.error
import urllib.request

from batchland._version import __version__
from batchland.nightly.job_tables import HeartbeatTable
from batchland.system.text import visible


def ping_start(heartbeat: HeartbeatTable) -> str | None:
    """Ping the start address. Returns an error message, None on success."""
    return _ping(heartbeat, heartbeat.start, None)


def ping_end(heartbeat: HeartbeatTable, exit_code: int) -> str | None:
    """Ping the address for this exit code. Returns an error message, None on success."""
    return _ping(heartbeat, heartbeat.success if exit_code == 0 else heartbeat.failure, exit_code)


def _ping(heartbeat: HeartbeatTable, template: str, exit_code: int | None) -> str | None:
    if not template:
        return None
    url = heartbeat.address(template, exit_code)
    seconds = heartbeat.timeout.total_seconds()
    answers: list[str | None] = []
    # A thread, because urlopen's timeout applies to each step (name lookup, connection, each read), not to the whole.
    thread = threading.Thread(target=lambda: answers.append(_get(url, seconds)), name="heartbeat", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"heartbeat: no answer within {seconds:g} s"


def _get(url: str, seconds: float) -> str | None:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"batchland/{__version__}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310 - the job file allows http and https only
            return None
    except urllib.error.HTTPError as error:
        return f"heartbeat: answered {error.code} {visible(str(error.reason))}"
    except urllib.error.URLError as error:
        return f"heartbeat: {visible(str(error.reason))}"
    except OSError as error:
        return f"heartbeat: {visible(str(error))}"
    except Exception as error:  # no error of a ping may end the job, and its text may hold the address
        return f"heartbeat: {type(error).__name__}"

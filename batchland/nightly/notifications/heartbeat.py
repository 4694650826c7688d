"""Ping a monitor by HTTP when a job starts and ends. It never fails the job, nor delays it beyond a timeout."""

from batchland.nightly.job_tables import HeartbeatTable
from batchland.nightly.notifications.http import request


def ping_start(heartbeat: HeartbeatTable) -> str | None:
    """Ping the start address. Returns an error message, None on success."""
    return _ping(heartbeat, heartbeat.start, None)


def ping_end(heartbeat: HeartbeatTable, exit_code: int) -> str | None:
    """Ping the address for this exit code. Returns an error message, None on success."""
    return _ping(heartbeat, heartbeat.success if exit_code == 0 else heartbeat.failure, exit_code)


def _ping(heartbeat: HeartbeatTable, template: str, exit_code: int | None) -> str | None:
    if not template:
        return None
    error = request(heartbeat.address(template, exit_code), heartbeat.timeout.total_seconds())
    return error and f"heartbeat: {error}"

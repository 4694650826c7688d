"""Run the job's notification command. Never fails a job, never holds it up beyond a timeout."""

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batchland.nightly.run_record import Attempt, RunRecord

if TYPE_CHECKING:
    from batchland.nightly.job import NotifyTable


def notify(table: "NotifyTable", record: RunRecord, attempt: Attempt, path: Path, summary: str) -> str | None:
    """Run the command with `summary` on its standard input; `attempt` is what it is about, `path` the record's.

    Returns what went wrong, None if nothing did.
    """
    facts = {
        "BATCHLAND_JOB": record.job,
        "BATCHLAND_DATE": record.date.isoformat(),
        "BATCHLAND_OUTCOME": attempt.outcome,
        "BATCHLAND_EXIT_CODE": str(attempt.exit_code),
        "BATCHLAND_ERROR": attempt.error or "",
        "BATCHLAND_RUN": str(path),
    }
    program, seconds = table.command[0], table.timeout.total_seconds()
    try:
        # Files, not pipes: a grandchild that keeps a pipe open would be waited for without end.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(summary.encode())
            given.seek(0)
            child = subprocess.Popen(  # noqa: S603 - the job file's own command, without a shell
                table.command, stdin=given, stdout=said, stderr=said, env=os.environ | facts, start_new_session=True
            )
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return f"notify: {program} was ended after {seconds:g} s"
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"notify: {program} cannot be run ({error.strerror})"
    if child.returncode:
        return f"notify: {program} ended with exit code {child.returncode}{f': {lines[-1]}' if lines else ''}"
    return None

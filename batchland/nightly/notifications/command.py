"""Run the job's notification command. It never fails the job and never delays it beyond a timeout."""

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from batchland.nightly.job_tables import NotifyTable
from batchland.nightly.run_record import Attempt, RunRecord


def notify(table: NotifyTable, record: RunRecord, attempt: Attempt, path: Path, summary: str) -> str | None:
    """Run the command with `summary` on its standard input. attempt: to report. path: of the night's record.

    Returns an error message, None on success.
    """
    variables = {
        "BATCHLAND_JOB": record.job,
        "BATCHLAND_DATE": record.date.isoformat(),
        "BATCHLAND_OUTCOME": attempt.outcome,
        "BATCHLAND_EXIT_CODE": str(attempt.exit_code),
        "BATCHLAND_ERROR": attempt.error or "",
        "BATCHLAND_RUN": str(path),
    }
    program, seconds = table.command[0], table.timeout.total_seconds()
    try:
        # Files, not pipes: reading a pipe would wait for a grandchild that keeps it open.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
            stdin.write(summary.encode())
            stdin.seek(0)
            child = subprocess.Popen(  # noqa: S603 - the job file's own command, without a shell
                table.command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                env=os.environ | variables,
                start_new_session=True,
            )
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return f"notify: {program} was killed after {seconds:g} s"
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"notify: {program} cannot be run ({error.strerror})"
    if child.returncode:
        return f"notify: {program} ended with exit code {child.returncode}{f': {lines[-1]}' if lines else ''}"
    return None

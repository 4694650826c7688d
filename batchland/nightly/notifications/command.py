"""Run the job's notification command. It never fails the job and never delays it beyond a timeout."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batchland.nightly.notifications.message import Notification


def notify(command: Sequence[str], notification: Notification, path: Path, seconds: float) -> str | None:
    """Run the command with the summary on its standard input. path: of the night's record.

    seconds: after which it is killed. Returns an error message, None on success.
    """
    variables = {
        "BATCHLAND_JOB": notification.job,
        "BATCHLAND_DATE": notification.date.isoformat(),
        "BATCHLAND_TITLE": notification.title,
        "BATCHLAND_OUTCOME": notification.outcome,
        "BATCHLAND_EXIT_CODE": "" if notification.exit_code is None else str(notification.exit_code),
        "BATCHLAND_ERROR": notification.error or "",  # short: Linux takes 128 kB a variable
        "BATCHLAND_RUN": str(path),
        "BATCHLAND_TEST": "1" if notification.test else "",
    }
    program = command[0]
    try:
        # Files, not pipes: reading a pipe would wait for a grandchild that keeps it open.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
            stdin.write(notification.summary.encode())
            stdin.seek(0)
            child = subprocess.Popen(  # noqa: S603 - the job file's own command, without a shell
                command,
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
                return f"{program} was killed after {seconds:g} s"
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"{program} cannot be run ({error.strerror})"
    if child.returncode:
        return f"{program} ended with exit code {child.returncode}{f': {lines[-1]}' if lines else ''}"
    return None

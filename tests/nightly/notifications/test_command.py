"""The notification command: its environment and input, and that it never fails or delays the job."""

import sys
import time
from datetime import date
from pathlib import Path

from batchland.nightly.notifications.command import notify
from batchland.nightly.notifications.message import MAX_ERROR_LENGTH, compose
from batchland.nightly.run_record import Attempt, RunRecord

ATTEMPT = Attempt(
    run_id="r",
    pid=1,
    host="h",
    started_at="2024-11-24T02:00:00+00:00",
    finished_at="2024-11-24T02:01:00+00:00",
    outcome="gate_failed",
    exit_code=4,
    error="gate failed: top1",
)
RECORD = RunRecord(job="toy", job_file="/toy.toml", date=date(2024, 11, 23), config={}, attempts=[ATTEMPT], versions={})


def run(*command, timeout=20.0, attempt=ATTEMPT):
    notification = compose(RECORD.model_copy(update={"attempts": (attempt,)}), attempt)
    return notify(command, notification, Path("/runs/toy/2024-11-23/run.json"), timeout)


def test_the_command_gets_variables_and_the_summary(tmp_path):
    script = 'env | grep ^BATCHLAND_ | sort > "$0"; cat >> "$0"'
    assert run("sh", "-c", script, str(tmp_path / "said")) is None
    assert (tmp_path / "said").read_text() == (
        "BATCHLAND_DATE=2024-11-23\n"
        "BATCHLAND_ERROR=gate failed: top1\n"
        "BATCHLAND_EXIT_CODE=4\n"
        "BATCHLAND_JOB=toy\n"
        "BATCHLAND_OUTCOME=gate_failed\n"
        "BATCHLAND_RUN=/runs/toy/2024-11-23/run.json\n"
        "BATCHLAND_TEST=\n"
        "BATCHLAND_TITLE=toy, 2024-11-23: gate failed\n"
        "Job toy, 2024-11-23: gate failed in 60.0 s.\ngate failed: top1\n"
    )


def test_a_failing_command_returns_a_message():
    assert run("sh", "-c", "echo no mail here >&2; exit 3") == "sh ended with exit code 3: no mail here"
    assert run("no-such-program") == "no-such-program cannot be run (No such file or directory)"


def test_a_hanging_command_is_killed_with_its_children(tmp_path):
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    begin = time.monotonic()
    assert run(sys.executable, "-c", script, timeout=0.5) == f"{sys.executable} was killed after 0.5 s"
    assert time.monotonic() - begin < 20


def test_an_error_of_200_kb_is_shortened(tmp_path):
    """Linux passes no variable of more than 128 kB."""
    long = ATTEMPT.model_copy(update={"error": f"begin {'ä' * 200_000} end"})
    script = 'printf %s "$BATCHLAND_ERROR" > "$0"; cat > "$0.summary"'
    assert run("sh", "-c", script, str(tmp_path / "said"), attempt=long) is None
    said = (tmp_path / "said").read_text()
    assert (len(said), said[:6], said[-4:]) == (MAX_ERROR_LENGTH, "begin ", " end")
    assert (tmp_path / "said.summary").read_text().endswith("... (run.json has all of it)\n")

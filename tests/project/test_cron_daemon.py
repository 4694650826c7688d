"""A real cron daemon runs a job from `batchland cron install` in a folder with special characters; the job mails."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from post_server import mail_server
from toys import COLOURS, picture, write_toy_model

from batchland.nightly.record_files import read_run
from batchland.predictions.layout import manifest_path

pytestmark = pytest.mark.slow


def why_not() -> str | None:
    if os.geteuid() != 0:
        return "needs root, to start a cron daemon"
    if not all(map(shutil.which, ("cron", "crontab", "pgrep"))):
        return "needs Debian's cron, and pgrep"
    if subprocess.run(["pgrep", "-x", "cron"], capture_output=True, check=False).returncode == 0:
        return "a cron daemon is running already"
    if subprocess.run(["crontab", "-l"], capture_output=True, check=False).returncode == 0:
        return "this user has a crontab, which a daemon started here would run"
    return None


@pytest.fixture
def daemon():
    """A cron daemon of our own, stopped afterwards, its crontab taken away."""
    if reason := why_not():
        pytest.skip(reason)
    with subprocess.Popen(["cron", "-f"]) as process:
        yield
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)
        process.terminate()


def batchland(*arguments: str) -> str:
    command = [sys.executable, "-m", "batchland", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(what: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"nothing came within {seconds:g} s"
        time.sleep(1)


@pytest.fixture
def mails():
    with mail_server() as running:
        yield running


def test_cron_runs_the_job_within_two_minutes_and_it_mails(daemon, mails, tmp_path):
    home = tmp_path / "it's 100% ours"
    (home / "incoming").mkdir(parents=True)
    for number, colour in enumerate(COLOURS.values()):
        (home / "incoming" / f"{number}.jpg").write_bytes(picture(colour))
    write_toy_model(home / "toy.onnx")
    job = home / "nightly.toml"
    job.write_text(
        'images = "incoming"\nmodel = "toy.onnx"\ndate = "today"\n'
        "[notify]\n"
        'on = "always"\n'
        """command = ["sh", "-c", 'echo "$PATH|$NOTE|$(pwd)" >noted']\n"""
        '[notify.mail]\nto = ["ops@example.org"]\nsender = "batchland@example.org"\n'
        f'server = "127.0.0.1"\nport = {mails.port}\nsecurity = "none"\n'
    )
    today = date.today()
    installed = batchland("cron", "install", str(job), "--schedule", "* * * * *", "--env", "NOTE=50% off")
    log = home / "runs" / "nightly" / "cron.log"
    assert installed == f"Installed: nightly at '* * * * *', log {log}.\n"

    wait_for(lambda: mails.mails, 125)  # the last that a night does

    record = read_run(home / "runs" / "nightly" / str(today))
    assert (record.outcome, record.exit_code, record.error) == ("ok", 0, None)
    (model,) = record.models
    assert (model.state, model.counts.listed, model.counts.ok) == ("scored", 3, 3)
    partition = home / "predictions" / f"date={today}"
    assert manifest_path(partition).exists()
    line = log.read_text()
    assert f"job nightly, {today}: begins" in line
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    assert (home / "noted").read_text() == f"{path}|50% off|{home}\n"

    assert [mail["Subject"] for mail in mails.mails] == [f"batchland nightly, {today}: ok"]
    assert "3 images" in mails.mails[0].get_body(("plain",)).get_content()

    assert batchland("cron", "remove", "nightly") == "Removed: nightly.\n"
    assert subprocess.run(["crontab", "-l"], capture_output=True).returncode == 1

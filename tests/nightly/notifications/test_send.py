"""Heartbeat and notification of a night, in order, with the exit code. A backfill only writes metrics."""

from datetime import date

import pytest
from toys import picture

from batchland.errors import OutputError
from batchland.nightly.job import load_job
from batchland.nightly.runner import run_night
from batchland.system.lock import locked

NIGHT = date(2024, 11, 23)


@pytest.fixture
def job(tmp_path, toy_model, web_server):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    (tmp_path / "toy.toml").write_text(
        'images = "in"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "off"}\n'
    )

    def load(*settings):
        return load_job(tmp_path / "toy.toml", [f"heartbeat.url={web_server[0]}/check", *settings])

    return load


def test_every_start_and_end_is_pinged(job, web_server):
    heard = web_server[1]
    assert run_night(job(), NIGHT).attempt.exit_code == 0
    assert heard == ["/check/start", "/check"]
    heard.clear()
    run_night(job("model=none.onnx"), date(2024, 11, 24))
    assert heard == ["/check/start", "/check/5"]
    heard.clear()
    with locked(job().folder / ".lock", "job toy"):
        run_night(job(), NIGHT)
    assert heard == ["/check/75"]
    heard.clear()
    # Retries are one run.
    run_night(job("images=none", "retry={attempts=3, wait='0.01s'}"), date(2024, 11, 25))
    assert heard == ["/check/start", "/check/66"]


def test_a_run_that_cannot_write_its_record_is_pinged(job, web_server, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError):
        run_night(job(), NIGHT)
    assert web_server[1] == ["/check/74"]


def test_a_backfill_pings_nothing_and_writes_metrics(job, web_server, tmp_path):
    command = f"notify={{command=['touch', '{tmp_path}/notified'], on='always'}}"
    run_night(job(command, "metrics=toy.prom"), NIGHT, quiet=True)
    assert web_server[1] == []
    assert not (tmp_path / "notified").exists()
    assert 'batchland_exit_code{job_name="toy"} 0.0' in (tmp_path / "toy.prom").read_text()

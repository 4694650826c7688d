"""The log of a night: one JSON object per line, no partial lines; errors in logging do not fail the night."""

import json
import logging
import resource

import pytest

from batchland.errors import OutputError
from batchland.nightly.run_log import run_log

log = logging.getLogger("batchland")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_have_fields_data_and_traceback(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    with run_log(path, run_id="r", job="toy"):
        log.info("%d images\nof %s", 3, "Café", extra={"data": {"images": 3, "run_id": "of something else"}})
        log.debug("not asked for")
        try:
            raise ValueError("oh")
        except ValueError:
            log.exception("a bug")
    log.warning("afterwards")
    first, second = lines(path)
    assert first.pop("time").startswith("20")
    assert first == {
        "level": "info",
        "run_id": "r",
        "job": "toy",
        "message": "3 images\nof Café",
        "data": {"images": 3, "run_id": "of something else"},
    }
    assert (second["level"], second["message"]) == ("error", "a bug")
    assert second["traceback"].endswith("ValueError: oh")


def test_lines_of_other_runs_are_kept(tmp_path):
    for run_id in ("a", "b"):
        with run_log(tmp_path / "log.jsonl", run_id=run_id):
            log.info("here")
    assert [line["run_id"] for line in lines(tmp_path / "log.jsonl")] == ["a", "b"]


def test_a_full_disk_is_reported_once(capsys, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with run_log(tmp_path / "log.jsonl"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as a full disk does: no file may grow
        try:
            log.info("one")
            log.info("two")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err == f"batchland: {tmp_path}/log.jsonl: cannot be written (File too large)\n"


def test_an_unwritable_log_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught, run_log(tmp_path / "file" / "log.jsonl"):
        pass
    assert str(caught.value) == f"{tmp_path}/file/log.jsonl: cannot be written (File exists); the job was not started"

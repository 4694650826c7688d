"""The record of a night: one document per date, with all attempts and their endings."""

import os
import re
import socket
from datetime import UTC, date, datetime, timedelta

import pytest

from batchland.errors import LockedError, UsageError
from batchland.nightly.good_nights import last_good
from batchland.nightly.record_files import point_to_latest, read_run, read_runs, remove_record, update_run
from batchland.nightly.run_record import Attempt, ModelRun, RunRecord
from batchland.system.lock import locked

NIGHT = date(2024, 11, 23)
KEPT = ModelRun(name="toy", partition="/out", state="kept")


def at(seconds):
    return (datetime(2024, 11, 24, 2, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()


def attempt(run_id, begin, end=None, outcome="running", exit_code=None, error=None):
    return Attempt(
        run_id=run_id,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=at(begin),
        finished_at=None if end is None else at(end),
        outcome=outcome,
        exit_code=exit_code,
        error=error,
    )


def record(*attempts, night=NIGHT, models=(KEPT,), **fields):
    return RunRecord(
        job="toy",
        job_file="/jobs/toy.toml",
        date=night,
        config={},
        attempts=attempts,
        versions={},
        models=models,
        **fields,
    )


def test_records_are_read_oldest_first_and_other_files_skipped(tmp_path):
    assert read_runs(tmp_path / "toy") == []
    for day in (23, 21, 22):
        night = date(2024, 11, day)
        update_run(tmp_path / "toy" / str(night), record(attempt("a", 0, 5, "ok", 0), night=night))
    (tmp_path / "toy" / "2024-11-20").mkdir()
    (tmp_path / "toy" / "notes").mkdir()
    point_to_latest(tmp_path / "toy", date(2024, 11, 24))
    assert [str(run.date) for run in read_runs(tmp_path / "toy")] == ["2024-11-21", "2024-11-22", "2024-11-23"]
    assert os.readlink(tmp_path / "toy" / "latest") == "2024-11-23"
    assert read_run(tmp_path / "toy" / "latest").seconds == 5.0


def test_a_running_attempt_without_a_process_was_killed(tmp_path):
    folder = tmp_path / "toy" / "2024-11-23"
    update_run(folder, record(attempt("a", 0)))
    run = read_run(folder)
    assert (run.outcome, run.exit_code, run.seconds, run.good) == ("killed", 137, None, False)
    assert run.error == "killed, or the machine went down; run it again to resume"


def test_only_an_attempt_of_the_lock_holder_is_running(tmp_path):
    folder = tmp_path / "toy" / "2024-11-23"
    (tmp_path / "toy").mkdir()
    with locked(tmp_path / "toy" / ".lock", "job toy"):
        now = attempt("b", 0).model_copy(update={"started_at": datetime.now(UTC).isoformat()})
        update_run(folder, record(attempt("a", 0), now))
        assert [tried.outcome for tried in read_run(folder).attempts] == ["killed", "running"]
    assert [tried.outcome for tried in read_run(folder).attempts] == ["killed", "killed"]


def test_a_locked_out_run_only_adds_its_attempt(tmp_path):
    folder = tmp_path / "toy" / "2024-11-23"
    update_run(folder, record(attempt("a", 0, 9, "ok", 0), warnings=("the heartbeat failed",)))
    update_run(folder, record(attempt("b", 3, 4, "locked", 75, "job toy: another run")))
    run = read_run(folder)
    assert [tried.outcome for tried in run.attempts] == ["ok", "locked"]
    assert (run.outcome, run.exit_code, run.error, run.warnings) == ("ok", 0, None, ("the heartbeat failed",))
    alone = tmp_path / "toy" / "2024-11-24"
    update_run(alone, record(attempt("b", 3, 4, "locked", 75, "job toy: another run"), night=date(2024, 11, 24)))
    assert (read_run(alone).outcome, read_run(alone).exit_code) == ("locked", 75)


def test_the_last_good_night():
    good = record(attempt("a", 0, 1, "ok", 0), night=date(2024, 11, 21))
    bad = record(attempt("a", 0, 1, "gate_failed", 4), night=date(2024, 11, 22))
    later = record(attempt("a", 0, 1, "ok", 0), night=date(2024, 11, 25))
    assert last_good([later, bad, good]) == later
    assert last_good([later, bad, good], before=NIGHT) == good
    assert last_good([bad]) is None


def test_an_unreadable_record_is_skipped_with_a_warning(tmp_path, caplog):
    root = tmp_path / "toy"
    with pytest.raises(UsageError, match=r"run\.json: cannot be read \(No such file or directory\)"):
        read_run(root / "2024-11-23")
    update_run(root / "2024-11-22", record(attempt("a", 0, 5, "ok", 0), night=date(2024, 11, 22)))
    (root / "2024-11-23").mkdir()
    (root / "2024-11-23" / "run.json").write_text('{"job": 1}')
    (root / "2024-11-24" / "run.json").mkdir(parents=True)
    assert [str(run.date) for run in read_runs(root)] == ["2024-11-22"]
    assert "2024-11-24/run.json: cannot be read" in caplog.text
    assert re.search(
        r"2024-11-23/run\.json: is not a record that this version of batchland can read \(job\); move it away",
        caplog.text,
    )
    read_runs(root)  # a night reads them several times
    assert len(caplog.records) == 2


def test_latest_is_the_newest_record_that_is_not_in_the_future(tmp_path):
    root = tmp_path / "toy"

    def latest(today):
        point_to_latest(root, today)
        return os.readlink(root / "latest")

    for day in (date(1, 1, 1), date(2024, 11, 22), date(2030, 1, 1), date(9999, 12, 31)):
        update_run(root / str(day), record(attempt("a", 0, 5, "ok", 0), night=day))
    assert latest(date(2024, 11, 24)) == "2024-11-22"
    assert latest(date(2024, 11, 22)) == "2024-11-22"
    assert latest(date(2030, 1, 1)) == "2030-01-01"
    assert latest(date(1970, 1, 1)) == "0001-01-01"
    assert [str(remove_record(root, day, date(1970, 1, 1)).name) for day in (date(1, 1, 1),)] == ["run.json.removed"]
    assert os.readlink(root / "latest") == "9999-12-31"  # all are in the future: the newest


def test_a_record_is_removed_by_renaming_it(tmp_path):
    root, today = tmp_path / "toy", date(2024, 11, 24)
    for day in (date(2024, 11, 22), date(2024, 11, 23)):
        update_run(root / str(day), record(attempt("a", 0, 5, "ok", 0), night=day))
    with locked(root / ".lock", "job toy"), pytest.raises(LockedError):
        remove_record(root, NIGHT, today)
    assert remove_record(root, NIGHT, today) == root / "2024-11-23" / "run.json.removed"
    assert [str(run.date) for run in read_runs(root)] == ["2024-11-22"]
    assert os.readlink(root / "latest") == "2024-11-22"
    with pytest.raises(UsageError) as caught:
        remove_record(root, NIGHT, today)
    path = root / "2024-11-23" / "run.json"
    assert str(caught.value) == f"{path}: no such record; the job has records from 2024-11-22 to 2024-11-22"
    remove_record(root, date(2024, 11, 22), today)
    assert not (root / "latest").is_symlink()
    with pytest.raises(UsageError, match=r"no night of this job is recorded \(no job ran here yet\)$"):
        remove_record(root, NIGHT, today)


def test_records_that_no_run_wrote_are_unreadable(tmp_path):
    """A time without a zone cannot be compared with others; a copied folder holds the record of another night."""
    update_run(tmp_path / "2024-11-23", record(attempt("a", 0, 5, "ok", 0)))
    path = tmp_path / "2024-11-23" / "run.json"
    good = path.read_text()
    for started_at in ("x", "2024-11-23T04:05:06", ""):
        path.write_text(re.sub(r'("started_at": )"[^"]*"', rf'\1"{started_at}"', good))
        with pytest.raises(UsageError, match=r"is not a record that this version .* \(attempts\.0\.started_at\)"):
            read_run(path.parent)
    emptied = tmp_path / "toy" / "2024-11-25"
    update_run(emptied, record(attempt("a", 0, 5, "ok", 0), night=date(2024, 11, 25), models=()))
    with pytest.raises(UsageError, match=r"2024-11-25/run\.json: is damaged, it has no models$"):
        read_run(emptied)
    path.write_text(good)
    path.parent.rename(tmp_path / "2024-11-24")
    with pytest.raises(UsageError, match=r"run\.json: is the record of the night 2024-11-23, perhaps a copy$"):
        read_run(tmp_path / "2024-11-24")


def test_a_record_of_another_job_is_not_read(tmp_path):
    """A copied folder would add its nights to the reference."""
    update_run(tmp_path / "toy" / "2024-11-23", record(attempt("a", 0, 5, "ok", 0)))
    (tmp_path / "toy").rename(tmp_path / "other")
    with pytest.raises(UsageError, match=rf"^{tmp_path}/other: holds records of the job toy, perhaps copies$"):
        read_run(tmp_path / "other" / "2024-11-23")
    assert read_runs(tmp_path / "other") == []

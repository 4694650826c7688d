"""Thirty nights in a row with every kind of fault: all are in the history, no image is lost or scored twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import date

import forks
import pyarrow.dataset as ds
import pytest
from job_files import EVALUATION, JOB
from toys import COLOURS, picture, write_toy_model

from batchland.errors import OutputError
from batchland.evaluation.saved import read_report
from batchland.nightly.history import nights
from batchland.nightly.job import load_job
from batchland.nightly.record_files import read_runs
from batchland.nightly.runner import run_night

NIGHTLY = f"""{JOB}max_failed = "30%"
{EVALUATION}gates = ["drop(top1) > 10%"]
"""

NIGHTS = {day: date(2024, 11, day) for day in range(1, 31)}

# A run that has the rows of two batches and waits for a line before it takes those of the third.
PAUSING = """
import sys
from datetime import date
from pathlib import Path
from batchland.nightly.job import load_job
from batchland.nightly.runner import run_night
from batchland.scoring.engines.local import LocalEngine
score = LocalEngine.score
def pausing(self, *given):
    for number, scored in enumerate(score(self, *given)):
        if number == 2:
            print("pause", flush=True)
            sys.stdin.readline()
        yield scored
LocalEngine.score = pausing
sys.exit(run_night(load_job(Path(sys.argv[1])), date.fromisoformat(sys.argv[2])).attempt.exit_code)
"""


@pytest.fixture
def disk(tmp_path):
    """A small tmpfs and True; without root a plain folder and False."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder]
    mounted = mounted and subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", folder], check=True)


class Project:
    """The folder of the nights."""

    def __init__(self, folder):
        self.folder = folder
        self.job = folder / "toy.toml"
        self.job.write_text(NIGHTLY)
        self.delivered = set()
        write_toy_model(folder / "toy.onnx")

    def deliver(self, night, *, corrupt=0, wrong=0):
        """Four images a class; the first of them corrupt, or of another class's colour."""
        colours = list(COLOURS.values())
        number = 0
        for index, name in enumerate(COLOURS):
            folder = self.folder / "in" / str(night) / name
            folder.mkdir(parents=True)
            for image in range(4):
                data = picture(colours[(index + (number < wrong)) % 3])
                (folder / f"{image}.jpg").write_bytes(data[: len(data) // 2] if number < corrupt else data)
                self.delivered.add((str(night), f"{name}/{image}.jpg"))
                number += 1

    def run(self, night):
        """The exit code."""
        return run_night(load_job(self.job), night).attempt.exit_code

    @contextmanager
    def paused_run(self, night):
        """A process that has scored two batches, written their part and waits; it continues when the block ends."""
        command = [sys.executable, "-c", PAUSING, self.job, str(night)]
        child = forks.Popen(command)
        with child:
            assert child.stdout.readline() == "pause\n"
            part = self.folder / "out" / f".date={night}.parts" / "part-000000.parquet"
            while not part.exists():
                assert child.poll() is None, child.communicate()[1]
                time.sleep(0.01)
            yield child
            if child.poll() is None:
                child.stdin.write("\n")


def fill(folder):
    """Leave not a byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.slow
def test_thirty_nights(disk):
    folder, can_fill = disk
    project = Project(folder)
    codes = {}
    for day in range(1, 31):
        night = NIGHTS[day]
        if day not in (3, 18):
            project.deliver(night, corrupt={12: 3, 13: 9}.get(day, 0), wrong=4 * (day == 23))
        if day == 3:
            codes[day] = [project.run(night)]
            project.deliver(night)
            codes[day].append(project.run(night))
        elif day in (5, 7) or (day == 9 and can_fill):
            with project.paused_run(night) as child:
                if day == 9:
                    fill(folder)
                else:
                    child.send_signal({5: signal.SIGKILL, 7: signal.SIGTERM}[day])
            (folder / "filler").unlink(missing_ok=True)
            codes[day] = [child.returncode, project.run(night)]
        elif day == 15:  # started twice
            with project.paused_run(night) as child:
                second = project.run(night)
            codes[day] = [child.returncode, second]
        elif day == 17:  # still running when the next night starts
            project.deliver(NIGHTS[18])
            with project.paused_run(night) as child:
                codes[18] = [project.run(NIGHTS[18])]
            codes[day] = [child.returncode]
        elif day == 20:
            good = (folder / "toy.onnx").rename(folder / "good.onnx")
            (folder / "toy.onnx").write_bytes(good.read_bytes()[:500])
            codes[day] = [project.run(night)]
            good.replace(folder / "toy.onnx")
            codes[day].append(project.run(night))
        else:
            codes.setdefault(day, []).append(project.run(night))

    usual = ("ok", ["ok"], [0], "scored", 12, 0, 1.0, "passed")
    expected = dict.fromkeys(range(1, 31), usual) | {
        1: ("ok", ["ok"], [0], "scored", 12, 0, 1.0, "not_checked"),
        3: ("ok", ["missing_input", "ok"], [66, 0], "scored", 12, 0, 1.0, "passed"),
        5: ("ok", ["killed", "ok"], [-9, 0], "resumed", 12, 0, 1.0, "passed"),
        7: ("ok", ["interrupted", "ok"], [143, 0], "resumed", 12, 0, 1.0, "passed"),
        12: ("ok", ["ok"], [0], "scored", 12, 3, 1.0, "passed"),
        13: ("too_many_failed", ["too_many_failed"], [3], "scored", 12, 9, 1.0, "passed"),
        15: ("ok", ["ok", "locked"], [0, 75], "scored", 12, 0, 1.0, "passed"),
        18: ("ok", ["locked", "ok"], [75, 0], "scored", 12, 0, 1.0, "passed"),
        20: ("ok", ["failed", "ok"], [5, 0], "scored", 12, 0, 1.0, "passed"),
        23: ("gate_failed", ["gate_failed"], [4], "scored", 12, 0, 8 / 12, "failed"),
    }
    if can_fill:
        expected[9] = ("ok", ["failed", "ok"], [74, 0], "resumed", 12, 0, 1.0, "passed")
    records = read_runs(folder / "runs" / "toy")
    found = {
        night.date.day: (
            night.outcome,
            [attempt.outcome for attempt in record.attempts],
            codes[night.date.day],
            night.state,
            night.images,
            night.failed,
            night.accuracy.value,
            night.gates,
        )
        for night, record in zip(nights(records), records, strict=True)
    }
    assert found == expected

    errors = {record.date.day: [a.error for a in record.attempts if a.error] for record in records}
    assert {day for day, texts in errors.items() if texts} == {3, 5, 7, 13, 15, 18, 20, 23} | (
        {9} if can_fill else set()
    )
    assert "does not exist" in errors[3][0]
    assert "killed, or the machine went down" in errors[5][0]
    assert "stopped after 6 images" in errors[7][0]
    assert "9 of 12 images failed (truncated 9)" in errors[13][0]
    assert "another run (process " in errors[15][0]
    assert "toy.onnx: " in errors[20][0]
    assert "top1 went from 100% to 66.67%" in errors[23][0]
    if can_fill:
        assert "No space left on device" in errors[9][0]
    baselines = {record.date.day: record.models[0].evaluation.baseline for record in records}
    assert (baselines[1], baselines[14], baselines[24]) == (None, "2024-11-12", "2024-11-22")

    rows = ds.dataset(folder / "out", partitioning="hive").to_table(columns=["date", "image"]).to_pylist()
    assert sorted(tuple(row.values()) for row in rows) == sorted(project.delivered)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"date={night}" for night in NIGHTS.values()]


def test_ten_nights_of_an_archive_that_grows(tmp_path):
    """With mode "new", the next night scores the images of a killed night that was not rerun, and of one that was not
    started. An image that changed is scored again, a broken one is not."""
    project = Project(tmp_path)
    archive = tmp_path / "archive"
    archive.mkdir()
    project.job.write_text(JOB.replace("in/{date}", "archive") + 'mode = "new"\n')
    counts = {}
    for day in range(1, 11):
        night = NIGHTS[day]
        for number in range(6 if day != 8 else 0):
            data = picture()
            (archive / f"{day:02}-{number}.jpg").write_bytes(data[:100] if number == 5 else data)
        if day == 9:
            (archive / "02-0.jpg").write_bytes(picture((0, 0, 255)))
        if day == 3:
            with project.paused_run(night) as child:
                child.kill()
        elif day != 5:
            assert project.run(night) == 0
        record = {record.date: record for record in read_runs(tmp_path / "runs" / "toy")}.get(night)
        counts[day] = record and [
            (record.outcome, model.state, model.counts and model.counts.listed, model.already_scored)
            for model in record.models
        ]
    assert counts == {
        1: [("ok", "scored", 6, 0)],
        2: [("ok", "scored", 6, 6)],
        3: [("killed", "unfinished", None, 0)],
        4: [("ok", "scored", 12, 12)],
        5: None,
        6: [("ok", "scored", 12, 24)],
        7: [("ok", "scored", 6, 36)],
        8: [("skipped", "nothing_new", None, 0)],
        9: [("ok", "scored", 7, 41)],
        10: [("ok", "scored", 6, 48)],
    }
    rows = ds.dataset(tmp_path / "out", partitioning="hive").to_table(columns=["image", "status"]).to_pylist()
    names = sorted(row["image"] for row in rows)
    assert names == sorted([path.name for path in archive.iterdir()] + ["02-0.jpg"])
    assert {row["image"] for row in rows if row["status"] == "failed"} == {name for name in names if name[3] == "5"}
    # Run again, the killed night finds nothing left to do.
    assert project.run(NIGHTS[3]) == 0
    assert {record.date.day: record.outcome for record in read_runs(tmp_path / "runs" / "toy")}[3] == "skipped"


def kill_and_rerun(folder, kills):
    """Kill runs of one night at random moments: during start, scoring, evaluation, report or record."""
    rng = random.Random(kills)
    project, night = Project(folder), NIGHTS[2]
    for day in (1, 2):
        project.deliver(NIGHTS[day])
    assert project.run(NIGHTS[1]) == 0
    command = [sys.executable, "-m", "batchland", "run", project.job, "--date", str(night)]

    @contextmanager
    def begun():
        with forks.Popen(command) as child:
            assert "begins" in child.stderr.readline()
            yield child

    with begun() as child:
        begin = time.monotonic()
        child.communicate()
    patience = time.monotonic() - begin
    partition, records = folder / "out" / f"date={night}", folder / "runs" / "toy" / str(night)
    undisturbed = {path.name: path.read_bytes() for path in partition.glob("*.parquet")}
    shutil.rmtree(records)
    done = 0
    while done < kills:
        if (partition / "_manifest.json").exists():
            shutil.rmtree(partition)
        with begun() as child:
            time.sleep(rng.uniform(0, patience))
            child.kill()
        done += child.returncode == -signal.SIGKILL
        assert read_runs(records.parent)[-1].date == night  # whole, and there since the log said "begins"
    assert project.run(night) == 0
    assert {path.name: path.read_bytes() for path in partition.glob("*.parquet")} == undisturbed
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"date={NIGHTS[1]}", f"date={night}"]
    left = {path.name for path in records.iterdir()}
    assert left == {"log.jsonl", "report", "run.json"}
    record = read_runs(records.parent)[-1]
    outcomes = [attempt.outcome for attempt in record.attempts]
    assert set(outcomes[:-1]) <= {"killed", "ok"}
    assert outcomes[-1] == "ok"
    assert record.models[0].evaluation.baseline == str(NIGHTS[1])
    assert read_report(record.models[0].evaluation.report).summary.account.scored == 12
    return outcomes.count("killed")


def test_nights_killed_at_random_moments_end_like_undisturbed_ones(tmp_path):
    kill_and_rerun(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_of_a_night(tmp_path):
    assert kill_and_rerun(tmp_path, 50) > 20  # others are killed before the record is begun, or after it is finished


def test_a_full_disk_is_an_error_and_loses_nothing(disk):
    folder, can_fill = disk
    if not can_fill:
        pytest.skip("a small disk needs root, to mount a tmpfs")
    project = Project(folder)
    project.deliver(NIGHTS[1])
    project.deliver(NIGHTS[2])
    assert project.run(NIGHTS[1]) == 0
    fill(folder)
    with pytest.raises(OutputError) as caught:
        project.run(NIGHTS[2])
    assert "No space left on device" in str(caught.value)
    (folder / "filler").unlink()
    assert project.run(NIGHTS[2]) == 0
    assert [record.outcome for record in read_runs(folder / "runs" / "toy")] == ["ok", "ok"]

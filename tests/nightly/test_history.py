"""The nights of a job as rows and as a table."""

import json
from datetime import date

import pytest
from click.testing import CliRunner
from nights import model_run, night

from batchland.cli.main import main
from batchland.errors import UsageError
from batchland.evaluation.schema import Figure
from batchland.monitoring.schema import Acceptance
from batchland.nightly.history import Night, job_records, nights, table
from batchland.nightly.notifications.message import compose
from batchland.nightly.record_files import update_run
from batchland.nightly.run_record import GateVerdict, ModelRun


def day(number: int) -> date:
    return date(2024, 11, number)


PASSED = GateVerdict(gate="top1 < 0.5", verdict="passed", value=0.8, message="top1 is 0.8 (fails if top1 < 0.5)")
FAILED = GateVerdict(gate="top1 < 0.9", verdict="failed", value=0.8, message="top1 is 0.8 (fails if top1 < 0.9)")
UNCHECKED = GateVerdict(gate="drop(top1) > 0.1", verdict="not_checked", message="no good night yet")

RECORDS = [
    night(day(19), model_run(listed=1250, failed=12, right=1000, gates=(PASSED, UNCHECKED)), seconds=61.4),
    night(day(20), outcome="missing_input", error="/data/2024/11/20: does not exist; wait for it", seconds=0.2),
    night(
        day(21),
        model_run(right=80, gates=(PASSED, FAILED)),
        model_run("other", rate=1234.56, right=100, gates=(PASSED,)),
        outcome="gate_failed",
        error="gate failed: top1 is 0.8 (fails if top1 < 0.9)",
        before=("killed", "locked"),
        seconds=7322,
    ),
    night(
        day(22), ModelRun(name="toy", partition="/data/toy", state="unfinished"), outcome="killed", seconds=None,
        error="ended without a word",
    ),
    night(day(23), model_run(listed=10).model_copy(update={"ignored": {".zip": 3}})),
]  # fmt: skip


TABLE = """\
date        outcome        tries  model  images  failed  images/s  accuracy                 gates        duration
2024-11-19  ok                 1  toy     1,250      12      50.0  80.8% (78.5 to 82.9%)    not checked   0:01:01
2024-11-20  missing input      1  –           –       –         –  –                        –             0:00:00
            /data/2024/11/20: does not exist; wait for it
2024-11-21  gate failed        3  toy       100       0      50.0  80.0% (71.1 to 86.7%)    failed        2:02:02
            gate failed: top1 is 0.8 (fails if top1 < 0.9)
                                  other     100       0   1,234.6  100.0% (96.3 to 100.0%)  passed
2024-11-22  killed             1  toy         –       –         –  –                        –                   –
            ended without a word
2024-11-23  ok                 1  toy        10       0      50.0  –                        –             0:01:00
            toy, 3 ignored (.zip)
5 nights: 2 ok, 1 missing input, 1 gate failed, 1 killed; the last good one is 2024-11-23.
"""


def test_the_table():
    assert table(nights(RECORDS)) == TABLE


def test_a_night_in_the_future_is_not_the_last_good_one():
    rows = nights([night(day(22), model_run(listed=10)), night(date(2030, 1, 1), model_run(listed=10))])
    last = table(rows, day(24)).splitlines()[-1]
    assert last == "2 nights: 2 ok; the last good one is 2024-11-22; 1 night after today, 2024-11-24."


def test_errors_are_whole_and_an_accepted_night_says_who_accepted_it():
    long = "a sentence of many words, " * 30
    accepted = night(day(22), model_run(), outcome="suspicious", error=f"{long}accept it with `batchland accept`")
    acceptance = Acceptance(
        accepted_at="2024-11-23T08:00:00+00:00", by="kim", reason="new camera", since=day(22), once=False
    )
    records = [
        night(day(21), outcome="missing_input", error=long),
        accepted.model_copy(update={"accepted": acceptance}),
    ]
    shown = [line.removeprefix(f"{'':12}") for line in table(nights(records)).splitlines()]
    assert (shown[2], shown[4]) == (long, "accepted by kim on 2024-11-23: new camera")
    assert compose(records[1], records[1].deciding).error == shown[4]


def test_a_row_holds_every_fact():
    assert nights(RECORDS)[2] == Night(
        job="nightly",
        date=day(21),
        outcome="gate_failed",
        exit_code=4,
        good=False,
        error="gate failed: top1 is 0.8 (fails if top1 < 0.9)",
        attempts=3,
        seconds=7322.0,
        model="toy",
        model_sha256=RECORDS[2].models[0].model.sha256,
        state="scored",
        images=100,
        failed=0,
        failed_by_code={},
        images_per_second=50.0,
        accuracy=Figure(value=0.8, low=0.7111708344068413, high=0.8666330666689674),
        gates="failed",
        gate_messages=("top1 is 0.8 (fails if top1 < 0.5)", "top1 is 0.8 (fails if top1 < 0.9)"),
        report="/reports/toy",
    )


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for record in RECORDS:
        update_run(tmp_path / "runs" / "nightly" / str(record.date), record)
    run = CliRunner().invoke
    assert run(main, ["history", "nightly", "--last", "1"]).output == (
        "date        outcome  tries  model  images  failed  images/s  accuracy  gates  duration\n"
        "2024-11-23  ok           1  toy        10       0      50.0  –         –       0:01:00\n"
        "            toy, 3 ignored (.zip)\n"
        "1 night: 1 ok; the last good one is 2024-11-23.\n"
    )
    document = json.loads(run(main, ["history", "nightly", "--json"]).stdout)
    assert (document["kind"], document["job"]) == ("batchland.history", "nightly")
    assert [(row["date"], row["model"], row["outcome"]) for row in document["nights"]] == [
        ("2024-11-19", "toy", "ok"),
        ("2024-11-20", None, "missing_input"),
        ("2024-11-21", "toy", "gate_failed"),
        ("2024-11-21", "other", "gate_failed"),
        ("2024-11-22", "toy", "killed"),
        ("2024-11-23", "toy", "ok"),
    ]
    result = run(main, ["history", "nigthly"])
    assert (result.exit_code, result.stderr) == (
        2, "batchland: runs/nigthly: no night of this job is recorded (did you mean 'nightly'?)\n"
    )  # fmt: skip
    assert run(main, ["history", "nightly", "--runs", "other"]).stderr == (
        "batchland: other/nightly: no night of this job is recorded (no job ran here yet); give the folder of the "
        "records with --runs\n"
    )


@pytest.mark.parametrize(
    ("jobs", "advice"), [((), "no job ran here yet"), (("weekly", "evaluate"), "there is evaluate, weekly")]
)
def test_a_job_without_nights(tmp_path, jobs, advice):
    for job in jobs:
        (tmp_path / "runs" / job).mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        job_records(tmp_path / "runs", "nightly")
    assert str(caught.value) == f"{tmp_path}/runs/nightly: no night of this job is recorded ({advice})"

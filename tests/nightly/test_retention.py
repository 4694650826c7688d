"""Retention: deletes old nights by the rules, never the last good one, and only files that belong to the job."""

import shutil
from datetime import date

import pytest
from toys import picture, write_toy_model

from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_runs
from batchland.nightly.retention import delete, find_expired
from batchland.nightly.run_text import describe_run
from batchland.nightly.runner import run_night

TODAY = date(2024, 12, 31)
DAYS = [date(2024, 11, day) for day in range(20, 25)]


@pytest.fixture(scope="module")
def five_nights(tmp_path_factory):
    """Five good nights of two images."""
    folder = tmp_path_factory.mktemp("five") / "project"
    (folder / "in").mkdir(parents=True)
    write_toy_model(folder / "toy.onnx")
    (folder / "toy.toml").write_text(
        'images = "in"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "off"}\n'
    )
    for name in ("a", "b"):
        (folder / "in" / f"{name}.jpg").write_bytes(picture())
    for day in DAYS:
        assert run_night(load_job(folder / "toy.toml"), day).attempt.outcome == "ok"
    return folder


@pytest.fixture
def project(five_nights, tmp_path):
    """A copy of the five nights."""
    shutil.copytree(five_nights, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def expired(project, *rules, night=DAYS[-1], forget=(), today=TODAY):
    job = load_job(project / "toy.toml", [f"retention.{rule}" for rule in rules])
    records = [record for record in read_runs(job.folder) if record.date not in forget]
    return [folder.folder.name for folder in find_expired(job, night, records, today)]


def test_a_night_is_kept_if_one_rule_keeps_it(project):
    assert expired(project) == []
    assert expired(project, "keep_nights=2") == ["date=2024-11-20", "date=2024-11-21", "date=2024-11-22"]
    assert expired(project, "keep_days=4") == ["date=2024-11-20"]
    assert expired(project, "keep_days=2", "keep_nights=4") == ["date=2024-11-20"]
    # The night of the run counts, even if it has no record yet.
    assert expired(project, "keep_nights=3", night=date(2024, 11, 25)) == [f"date={day}" for day in DAYS[:3]]


def test_a_dry_run_lists_expired_folders_and_deletes_nothing(project):
    partition = project / "out" / "date=2024-11-20"
    size = sum(path.stat().st_size for path in partition.iterdir())
    plan = plan_night(load_job(project / "toy.toml", ["retention.keep_nights=4"]), DAYS[-1]).lines
    assert plan[3:5] == ('[monitor] action = "off"', "[retention] keep_nights = 4")
    assert plan[5] == f"if all this is good, delete {partition}: 2 files, {size} bytes"
    assert len(list(partition.iterdir())) == 2


def test_the_last_good_night_is_always_kept(project):
    job = load_job(project / "toy.toml", ["retention.keep_nights=1"])
    (project / "in" / "b.jpg").write_bytes(b"broken")
    late = date(2024, 12, 24)
    bad = load_job(project / "toy.toml", ["max_failed=0"])
    assert run_night(bad, late).attempt.outcome == "too_many_failed"
    names = [folder.folder.name for folder in find_expired(job, late, read_runs(job.folder), TODAY)]
    assert names == [f"date={day}" for day in DAYS[:-1]]
    # For a rerun of an old night, the last good one before it is the baseline, and stays as well.
    names = [folder.folder.name for folder in find_expired(job, DAYS[2], read_runs(job.folder), TODAY)]
    assert names == ["date=2024-11-20"]


def test_files_that_no_manifest_of_the_job_names_are_never_deleted(project):
    foreign = project / "out" / "date=2024-11-20" / "notes.txt"
    foreign.write_text("mine")
    (project / "out" / "date=2024-11-19").mkdir()
    (project / "out" / "date=2024-11-19" / "part-000000.parquet").write_bytes(b"somebody's")
    manifest = project / "out" / "date=2024-11-21" / "_manifest.json"
    manifest.write_text(manifest.read_text().replace('"path": "part-000000.parquet"', '"path": "../../toy.toml"'))
    other = project / "out" / "date=2024-11-22" / "_manifest.json"
    other.write_text(other.read_text().replace('"run_id": "', '"run_id": "another-'))
    (project / "out" / "date=2024-11-23" / "_manifest.json").write_text("{}")
    # Another job has not made them, whatever its records say.
    twin = load_job(project / "toy.toml", ["name=twin", "retention.keep_nights=1"])
    assert find_expired(twin, DAYS[-1], read_runs(project / "runs" / "toy"), TODAY) == []
    job = load_job(project / "toy.toml", ["retention.keep_nights=1"])
    found = find_expired(job, DAYS[-1], read_runs(job.folder), TODAY)
    assert [(folder.folder.name, list(folder.files)) for folder in found] == [
        ("date=2024-11-20", ["part-000000.parquet", "_manifest.json"]),
        ("date=2024-11-21", ["_manifest.json"]),
    ]
    deletions = [delete(folder, "r") for folder in found]
    assert [(deletion.date, deletion.files) for deletion in deletions] == [(DAYS[0], 2), (DAYS[1], 1)]
    assert [path.name for path in foreign.parent.iterdir()] == ["notes.txt"]
    assert (project / "toy.toml").exists()
    assert [path.name for path in manifest.parent.iterdir()] == ["part-000000.parquet"]
    # Without its record, a night no longer belongs to the job.
    assert expired(project, "keep_nights=1", forget=DAYS) == []


def test_a_killed_deletion_is_resumed(project):
    job = load_job(project / "toy.toml", ["retention.keep_nights=4"])
    (first,) = find_expired(job, DAYS[-1], read_runs(job.folder), TODAY)
    (first.folder / first.files[0]).unlink()  # as far as the killed one came
    (again,) = find_expired(job, DAYS[-1], read_runs(job.folder), TODAY)
    assert delete(again, "r").files == 1
    assert not again.folder.exists()


def test_a_comparison_is_deleted_with_its_night(project, colour_folders):
    text = "images = 'labelled'\noutput = 'out2'\nmonitor = {action = 'off'}\n"
    text += "[models]\na = 'toy.onnx'\nb = 'toy.onnx'\n"
    (project / "pair.toml").write_text(
        text + "[evaluation]\nlabels = 'labelled'\nbrightness_sample = 0\nresamples = 200\n"
    )
    for day in DAYS[:2]:
        assert run_night(load_job(project / "pair.toml"), day).attempt.outcome == "ok"
    job = load_job(project / "pair.toml", ["retention.keep_nights=1"])
    found = find_expired(job, DAYS[2], read_runs(job.folder), TODAY)
    assert [folder.folder.name for folder in found] == ["date=2024-11-20", "a", "date=2024-11-20", "b", "a-b"]
    for folder in found:
        delete(folder, "r")
    assert sorted(path.name for path in (job.folder / str(DAYS[0])).iterdir()) == ["log.jsonl", "run.json"]


def test_a_run_deletes_partitions_and_reports_and_records_it(project, caplog):
    for folder, colour in (("00.Red_Tower", (255, 0, 0)), ("02.Blue_Lake", (0, 0, 255))):
        (project / "in" / folder).mkdir()
        (project / "in" / folder / "1.jpg").write_bytes(picture(colour))
    settings = ["evaluation.labels=in", "evaluation.brightness_sample=0", "evaluation.resamples=200"]
    for day in (25, 26):
        run_night(load_job(project / "toy.toml", settings), date(2024, 11, day))
    job = load_job(project / "toy.toml", ["retention.keep_nights=1"])
    record = run_night(job, date(2024, 11, 27)).record
    gone = {(str(deletion.date), deletion.path.removeprefix(f"{project}/")) for deletion in record.deleted}
    assert ("2024-11-25", "out/date=2024-11-25") in gone
    assert ("2024-11-25", "runs/toy/2024-11-25/report/toy") in gone
    assert len(gone) == 7
    lines = [line for line in describe_run(record).splitlines() if line.startswith("Deleted")]
    assert len(lines) == 7
    assert lines[0] == f"Deleted, 2024-11-20: {project}/out/date=2024-11-20 (2 files)."
    # A rerun deletes and prints nothing more; the record still has the earlier deletions.
    again = run_night(job, date(2024, 11, 27)).record
    assert again.deleted == record.deleted
    assert "Deleted" not in describe_run(again)
    assert sorted(path.name for path in (project / "out").iterdir()) == ["date=2024-11-26", "date=2024-11-27"]
    assert sorted(path.name for path in (project / "runs" / "toy" / "2024-11-25").iterdir()) == [
        "log.jsonl",
        "run.json",
    ]
    assert (project / "runs" / "toy" / "2024-11-26" / "report" / "toy" / "summary.json").exists()
    drop = load_job(project / "toy.toml", [*settings, "evaluation.gates=['drop(top1) > 1%']"])
    (gate,) = run_night(drop, date(2024, 11, 26)).record.models[0].evaluation.gates
    message = "no report of an earlier good night to compare with (fails if drop(top1) > 1%)"
    assert (gate.verdict, gate.message) == ("not_checked", message)
    reason = "so no drop is checked: the report of 2024-11-25 was deleted"
    assert f"toy: the last good night cannot be the baseline, {reason}" in caplog.messages


@pytest.mark.parametrize(("on_missing", "outcome", "code"), [("fail", "missing_input", 66), ("skip", "skipped", 0)])
def test_a_deleted_night_without_its_delivery_stays_good(project, on_missing, outcome, code):
    job = load_job(project / "toy.toml", ["retention.keep_nights=1", f"on_missing={on_missing}"])
    run_night(job, date(2024, 11, 25))
    assert not job.partition("toy", DAYS[0]).exists()
    before = read_runs(job.folder)[0]
    (project / "in").rename(project / "archived")
    record, attempt = run_night(job, DAYS[0])
    assert record == before.model_copy(update={"attempts": (*before.attempts, attempt)})
    assert (record.good, attempt.refused, attempt.outcome, attempt.exit_code) == (True, True, outcome, code)
    reason = (
        f"{project}/in: does not exist; is the delivery late, or `images` in {job.file} wrong? (nothing was changed, "
        "and the night stays good)"
    )
    assert attempt.error == reason
    text = f"Job toy, {DAYS[0]}: {outcome.replace('_', ' ')}. The night is still ok.\n"
    assert describe_run(record, attempt) == f"{text}{reason}\n"
    assert describe_run(record, attempt, error=False) == (text if code else f"{text}{reason}\n")


@pytest.mark.parametrize("rule", ["keep_nights=1", "keep_days=1", "keep_days=36500"])
@pytest.mark.parametrize("night", [date(1, 1, 1), date(2030, 1, 1), date(9999, 12, 31)])
def test_an_unusual_date_expires_no_more_nights_than_the_newest_good_night(project, rule, night):
    usual = expired(project, rule)
    assert set(expired(project, rule, night=night)) <= set(usual)
    assert usual == ([] if rule.endswith("36500") else [f"date={day}" for day in DAYS[:3]])


def test_nights_in_the_future_are_kept_and_not_counted(project):
    for day in (date(2030, 1, 1), date(2030, 1, 2)):
        assert run_night(load_job(project / "toy.toml"), day, future=True).record.good
    assert expired(project, "keep_nights=4") == ["date=2024-11-20"]
    assert expired(project, "keep_days=4") == ["date=2024-11-20"]
    # To a clock that is slow, all of them are in the future, but for the run's own night.
    assert expired(project, "keep_days=1", night=date(1970, 1, 1), today=date(1970, 1, 2)) == []


def test_after_a_gap_everything_expires_only_on_the_second_night(project):
    """A clock that is fast for one run deletes nothing that the last night would not have deleted."""
    first, second = date(2024, 12, 30), date(2024, 12, 31)
    assert expired(project, "keep_days=3", night=first) == ["date=2024-11-20", "date=2024-11-21"]
    assert run_night(load_job(project / "toy.toml"), first).record.good
    assert expired(project, "keep_days=3", night=second) == [f"date={day}" for day in DAYS]


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        (["images=none"], "missing_input"),
        (["images=none", "on_missing=skip"], "skipped"),
        (["model=none.onnx"], "failed"),
        (["max_failed=0"], "too_many_failed"),
        (["time_limit=0.000001s"], "time_limit"),
    ],
)
def test_a_night_that_is_not_good_deletes_nothing(project, settings, outcome):
    (project / "in" / "c.jpg").write_bytes(b"broken")
    before = sorted(project.glob("out/date=*/*"))
    job = load_job(project / "toy.toml", ["retention.keep_nights=1", *settings])
    record = run_night(job, date(2024, 11, 25)).record
    assert (record.outcome, record.deleted) == (outcome, ())
    assert set(before) <= set(project.glob("out/date=*/*"))

"""Run one night of a job: partitions, record, messages, and every way to fail."""

import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import forks
import pyarrow.dataset as ds
import pytest
from commands import batchland
from job_files import EVALUATION, JOB, deliver
from prometheus_client.parser import text_string_to_metric_families
from toys import picture, toy_card, write_toy_model

import batchland.nightly.delivery as delivery_module
import batchland.nightly.runner as runner_module
import batchland.nightly.steps as steps_module
from batchland.errors import OutputError, UsageError
from batchland.images.sources.refs import MAX_FILE_BYTES
from batchland.nightly.accept import accept_night
from batchland.nightly.dates import local_now
from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_run, read_runs, update_run
from batchland.nightly.run_text import describe_run
from batchland.nightly.runner import run_night
from batchland.predictions.local import LocalOutput
from batchland.predictions.reader import read_manifest
from batchland.system.lock import locked

NIGHT = date(2024, 11, 23)
GATES = """gates = ["top1 < 90%", "drop(top1) > 1%"]
"""


def run(project, night=NIGHT, *settings, **options):
    return run_night(load_job(project / "toy.toml", settings), night, **options)


def images(project):
    """Date and name of every row of the output, as any reader of Parquet sees them."""
    table = ds.dataset(project / "out", partitioning="hive").to_table(columns=["date", "image"])
    return [tuple(row.values()) for row in table.to_pylist()]


def test_a_good_night(project):
    (project / "in" / str(NIGHT) / "00.Red_Tower" / "0.jpg").write_bytes(b"")
    record, attempt = run(project)
    assert (attempt.outcome, attempt.exit_code, attempt.error) == ("ok", 0, None)
    (model,) = record.models
    assert (model.name, model.state, model.counts.failed_by_code) == ("toy", "scored", {"empty": 1})
    assert model.partition == str(project / "out" / "date=2024-11-23")
    assert (model.device, model.provider, model.mix.classes["Red Tower"]) == ("cpu", "CPUExecutionProvider", 2)
    assert record == read_run(project / "runs" / "toy" / "latest")
    assert record.config["batch_size"] == 2
    assert sorted(path.name for path in (project / "runs" / "toy" / "2024-11-23").iterdir()) == [
        "log.jsonl",
        "run.json",
    ]
    assert len(images(project)) == 9


def test_the_log_is_json_lines_with_the_run_id(project):
    attempt = run(project).attempt
    lines = [json.loads(line) for line in (project / "runs/toy/latest/log.jsonl").read_text().splitlines()]
    assert {(line["run_id"], line["job"], line["date"]) for line in lines} == {(attempt.run_id, "toy", "2024-11-23")}
    assert [line["message"].partition(", 9 images")[0] for line in lines] == [
        "job toy, 2024-11-23: begins",
        "toy: scored",
        "job toy, 2024-11-23: ok",
    ]
    assert lines[-1]["data"]["exit_code"] == 0


def test_running_on_the_cpu_without_a_gpu_is_a_warning_on_the_first_night_only(project):
    levels = []
    for night in (NIGHT, NIGHT + timedelta(days=1)):
        deliver(project, night)
        run(project, night, "device=auto")
        log = (project / "runs/toy" / str(night) / "log.jsonl").read_text().splitlines()
        levels += [line["level"] for line in map(json.loads, log) if "ran on the CPU" in line["message"]]
    if not levels:
        pytest.skip("CUDA can be used here")
    assert levels == ["warning", "info"]


def test_a_complete_night_is_kept_unless_forced(project):
    first = run(project).record
    part = project / "out" / "date=2024-11-23" / "part-000000.parquet"
    before = part.stat().st_ino
    again = run(project)
    assert (again.record.models[0].state, again.attempt.outcome) == ("kept", "ok")
    assert [attempt.outcome for attempt in again.record.attempts] == ["ok", "ok"]
    assert part.stat().st_ino == before
    forced = run(project, NIGHT, "top_k=1", force=True)
    assert forced.record.models[0].state == "replaced"
    assert forced.record.models[0].run_id != first.models[0].run_id
    assert part.stat().st_ino != before
    assert [path.name for path in (project / "out").iterdir()] == ["date=2024-11-23"]


def test_a_rerun_removes_what_a_killed_run_left_beside_a_complete_night(project, monkeypatch):
    """Published parts are removed. Unpublished parts of a killed run stay, because a rerun resumes it."""
    monkeypatch.setattr(LocalOutput, "_clean_up", lambda _: None)  # as if the run was killed before it
    run(project)
    monkeypatch.undo()
    out = project / "out"
    (out / ".date=2024-11-23.lock").touch()
    (out / ".date=2024-11-23.new").mkdir()
    assert (out / ".date=2024-11-23.parts" / "publishing").exists()
    assert run(project).record.warnings == ()
    assert [path.name for path in out.iterdir()] == ["date=2024-11-23"]
    forced = out / ".date=2024-11-23.parts"
    for published, left in ((None, True), (1, True), (-1, False)):
        forced.mkdir(exist_ok=True)
        (forced / "part-000000.parquet").touch()
        if published is not None:
            (forced / "publishing").touch()
            moment = (out / "date=2024-11-23" / "_manifest.json").stat().st_mtime + published
            os.utime(forced / "publishing", (moment, moment))
        assert run(project).attempt.outcome == "ok"
        assert forced.exists() == left


def test_a_failed_replacement_keeps_the_old_night(project):
    before = run(project).record.models
    record, attempt = run(project, NIGHT, "device=cuda:99", force=True)
    assert (attempt.exit_code, attempt.refused, record.outcome, record.models) == (5, True, "ok", before)
    assert describe_run(record, attempt).splitlines()[0] == f"Job toy, {NIGHT}: failed. The night is still ok."
    assert len(images(project)) == 9


@pytest.mark.parametrize("force", [False, True])
def test_a_good_night_that_lost_its_manifest_stays_good(project, force):
    before = run(project).record.models
    partition = project / "out" / "date=2024-11-23"
    (partition / "_manifest.json").unlink()
    record, attempt = run(project, force=force)
    assert (attempt.exit_code, attempt.refused, attempt.error) == (
        2, True, f"{partition}: holds files but no _manifest.json; delete this folder, then run the night again "
        "(nothing was changed, and the night stays good)",
    )  # fmt: skip
    assert (record.good, record.models) == (True, before)
    shutil.rmtree(partition)
    assert run(project).record.good


def test_a_good_night_that_lost_a_part_says_what_to_do(project):
    assert run(project).record.good
    part = project / "out/date=2024-11-23/part-000000.parquet"
    part.unlink()
    record, attempt = run(project)
    assert (record.good, attempt.exit_code, attempt.error) == (
        True, 2, f"{part.parent}: lost {part.name}; restore it, or replace the night (nothing was "
        "changed, and the night stays good)",
    )  # fmt: skip
    assert run(project, force=True).attempt.outcome == "ok"


def test_an_older_night_of_a_folder_without_dates_is_warned_about(project):
    folder = project / "in" / str(NIGHT)
    settings = (f"images={folder}", "output=out")
    for day in (0, 1):
        assert run(project, NIGHT + timedelta(days=day), *settings).record.warnings == ()
    warning = f"{folder}: is the folder of all nights, and may hold the images of a later one, 2024-11-24"
    assert run(project, NIGHT, *settings, force=True).record.warnings == (warning,)
    assert run(project, NIGHT, *settings, "monitor={action='off', repeats=true}", force=True).record.warnings == ()


def test_readers_see_the_old_or_the_new_night(project):
    run(project)
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            manifest = json.loads((project / "out" / "date=2024-11-23" / "_manifest.json").read_text())
            seen.add(manifest["config"]["top_k"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for top_k in (1, 2, 3):
            assert run(project, NIGHT, f"top_k={top_k}", force=True).attempt.outcome == "ok"
    finally:
        done.set()
        reader.join()
    assert seen == {5, 1, 2, 3}


def test_a_missing_delivery_fails_or_is_skipped_as_the_job_says(project):
    other = NIGHT + timedelta(days=1)
    record, attempt = run(project, other)
    assert (attempt.outcome, attempt.exit_code, record.models) == ("missing_input", 66, ())
    assert attempt.error.startswith(f"{project}/in/2024-11-24: does not exist; ")
    record, attempt = run(project, other, "on_missing=skip")
    assert (attempt.outcome, attempt.exit_code) == ("skipped", 0)
    assert attempt.error.startswith(f"{project}/in/2024-11-24: does not exist; ")
    assert not record.good


def test_a_growing_delivery_is_retried_as_soon_as_it_can_have_settled(project, monkeypatch):
    ages, waits = iter((30.5, 10.5, 50.5, 91)), []  # seconds since the last change, at each attempt
    monkeypatch.setattr(delivery_module, "_changed_at", lambda *_: time.time() - next(ages))
    monkeypatch.setattr(runner_module, "time", SimpleNamespace(sleep=waits.append))
    record, attempt = run(project, NIGHT, "settle='90s'", "retry={attempts=3, wait='100s'}")
    assert waits == [0, 60, 40, 40]  # 60 and 40 are the first 100 seconds
    errors = [(tried.error or "ok").partition("2024-11-23: ")[2] for tried in record.attempts]
    advice = f"run the night again in {{}} s, or shorten settle (90 s) in {project}/toy.toml"
    assert errors == [
        f"is still growing, it changed {age} s ago; {advice.format(rest)}"
        for age, rest in ((30, 60), (10, 80), (50, 40))
    ] + [""]
    assert attempt.outcome == "ok"


def test_only_temporary_faults_are_retried(project):
    other = NIGHT + timedelta(days=1)
    late = threading.Timer(0.3, deliver, (project, other))
    late.start()
    record, attempt = run(project, other, "retry={attempts=5, wait='0.2s'}")
    late.join()
    outcomes = [tried.outcome for tried in record.attempts]
    assert outcomes == ["missing_input"] * (len(outcomes) - 1) + ["ok"]
    assert 2 <= len(outcomes) <= 4
    assert len({tried.run_id for tried in record.attempts}) == 1
    # A job that may skip a night waits for it all the same.
    never = run(project, NIGHT + timedelta(days=2), "on_missing=skip", "retry={attempts=2, wait='0.1s'}").record
    assert [tried.outcome for tried in never.attempts] == ["skipped", "skipped"]
    record, attempt = run(project, NIGHT, "model=none.onnx", "retry={attempts=5, wait='0.2s'}")
    assert (attempt.outcome, attempt.exit_code, len(record.attempts)) == ("failed", 5, 1)
    assert attempt.error.startswith(f"{project}/none.onnx: ")
    assert record.models[0].state == "unfinished"


def test_a_night_is_resumed_after_the_time_limit(project):
    record, attempt = run(project, NIGHT, "time_limit=0.000001s")
    assert (attempt.outcome, attempt.exit_code) == ("time_limit", 143)
    deliver(project, NIGHT, per_class=20)
    small, limit = ("batch_size=1", "part_size=1"), timedelta(seconds=0.05)
    while not list(project.glob("out/.date=*.parts/part-*")):  # on a busy machine, nothing is scored in so short a time
        limit *= 2
        record, attempt = run(project, NIGHT, *small, f"time_limit={limit.total_seconds()}s")
        assert (attempt.outcome, attempt.exit_code, record.models[0].state) == ("time_limit", 143, "unfinished")
        assert attempt.error.endswith(f", at its time limit of {limit}; a rerun resumes")
    record, attempt = run(project, NIGHT, *small)
    assert (attempt.outcome, record.models[0].state) == ("ok", "resumed")
    assert {tried.outcome for tried in record.attempts[:-1]} == {"time_limit"}
    assert len(set(images(project))) == len(images(project)) == 60


def test_too_many_failures_fail_the_night_after_everything_is_written(project):
    (project / "in" / str(NIGHT) / "00.Red_Tower" / "0.jpg").write_bytes(b"")
    record, attempt = run(project, NIGHT, "max_failed=0")
    assert (attempt.outcome, attempt.exit_code) == ("too_many_failed", 3)
    assert attempt.error.startswith("1 of 9 images failed (empty 1), more than ")
    assert (record.models[0].counts.listed, record.good) == (9, False)
    assert run(project, NIGHT, "max_failed=1").record.good


@pytest.mark.parametrize("limit", [(), ("max_failed='100%'",)], ids=["no limit", "100%"])
def test_a_night_without_one_scored_image_fails_with_any_limit(project, limit):
    for image in (project / "in" / str(NIGHT)).rglob("*.jpg"):
        image.write_bytes(b"")
    record, attempt = run(project, NIGHT, "monitor={action='off'}", *limit)
    assert (attempt.outcome, attempt.exit_code, attempt.error) == (
        "too_many_failed",
        3,
        "none of 9 images could be scored (empty 9); the predictions are written, see the rows with status = 'failed'",
    )
    assert (record.models[0].counts.failed, record.good) == (9, False)


def test_gates_compare_with_the_last_good_night(project):
    (project / "toy.toml").write_text(JOB + EVALUATION + GATES)
    nights = [NIGHT + timedelta(days=days) for days in range(4)]
    for night, wrong in zip(nights, (0, 1, 0, 0), strict=True):
        deliver(project, night, per_class=10, wrong=wrong)
    first, worse, good, _ = (run(project, night, "evaluation.gates=['drop(top1) > 1%']") for night in nights)
    (gate,) = first.record.models[0].evaluation.gates
    assert (gate.verdict, gate.message) == (
        "not_checked", "no report of an earlier good night to compare with (fails if drop(top1) > 1%)",
    )  # fmt: skip
    assert (worse.attempt.outcome, worse.attempt.exit_code) == ("gate_failed", 4)
    report = project / "runs" / "toy" / "2024-11-24" / "report" / "toy" / "report.html"
    assert worse.attempt.error == f"toy: top1 went from 100% to 90% (fails if drop(top1) > 1%); see {report}"
    assert report.exists()
    (report.parent / "corrections.csv").write_text("saved from the page")
    (report.parent / ".DS_Store").touch()
    again = run(project, nights[1], "evaluation.gates=['drop(top1) > 1%']")
    assert (again.attempt.exit_code, again.attempt.error) == (4, worse.attempt.error)
    assert (report.parent / "corrections.csv").read_text() == "saved from the page"
    evaluation = good.record.models[0].evaluation
    assert (evaluation.baseline, evaluation.gates[0].verdict) == ("2024-11-23", "passed")
    assert evaluation.figures.top1.value == 1.0
    assert [record.outcome for record in read_runs(project / "runs" / "toy")] == ["ok", "gate_failed", "ok", "ok"]
    assert read_run(project / "runs/toy/latest").models[0].evaluation.baseline == "2024-11-25"


def test_a_new_model_file_is_compared_with_the_last_good_night_of_the_old_one(project):
    (project / "toy.toml").write_text(JOB + EVALUATION + GATES)
    assert run(project).record.good
    tomorrow = NIGHT + timedelta(days=1)
    deliver(project, tomorrow, wrong=1)
    write_toy_model(project / "toy-v2.onnx", toy_card().model_copy(update={"name": "newer"}))
    settings = ("model=toy-v2.onnx", "evaluation.gates=['drop(top1) > 1%']")
    assert (
        "compared with the night of 2024-11-23; "
        in plan_night(load_job(project / "toy.toml", settings), tomorrow).lines[3]
    )
    record, attempt = run(project, tomorrow, *settings)
    assert (attempt.outcome, record.models[0].name) == ("gate_failed", "toy-v2")
    assert record.models[0].evaluation.baseline == "2024-11-23"


def test_a_run_that_changed_nothing_says_that_the_night_stays_good(project):
    """Its text, error and notification are about the run, not about the night's earlier result."""
    command = "notify.command=['sh', '-c', 'echo \"$BATCHLAND_TITLE\" >> sent; cat >> sent']"
    arguments = ("run", project / "toy.toml", "--date", NIGHT, "--set", command.replace("sent", f"{project}/sent"))
    assert batchland(*arguments).exit_code == 0
    result = batchland(*arguments, "--set", "evaluation.labels=none")
    first = f"Job toy, {NIGHT}: failed. The night is still ok.\n"
    error = (
        f"{project}/none: does not exist; give a folder of class folders, or a CSV or Parquet file (nothing was "
        "changed, and the night stays good)"
    )
    assert (result.exit_code, result.stdout) == (2, first)
    assert result.stderr.splitlines()[-1] == f"batchland: job toy, {NIGHT}: failed: {error}"
    assert (project / "sent").read_text() == f"toy, {NIGHT}: failed\n{first}{error}\n"
    assert read_run(project / "runs" / "toy" / str(NIGHT)).good


def test_a_suspicious_night_without_its_delivery_stays_suspicious(project):
    """A forced run that cannot begin must not prevent an acceptance."""
    for image in (project / "in" / str(NIGHT)).rglob("*.jpg"):
        image.write_bytes(picture((0, 0, 0)))
    monitor = "monitor={action='fail'}"
    before = run(project, NIGHT, monitor).record
    assert (before.outcome, before.exit_code) == ("suspicious", 6)
    shutil.rmtree(project / "in" / str(NIGHT))
    record, attempt = run(project, NIGHT, monitor, force=True)
    assert (attempt.outcome, attempt.exit_code, attempt.refused) == ("missing_input", 66, True)
    assert attempt.error.endswith(" (nothing was changed, and the night is still suspicious)")
    assert (record.outcome, record.exit_code, record.models) == ("suspicious", 6, before.models)
    assert accept_night(project / "runs" / "toy", NIGHT).nights == [NIGHT]
    assert read_run(project / "runs" / "toy" / str(NIGHT)).good


def test_the_speed_of_a_run_that_scored_few_images_is_not_known(project):
    late = "delivery={late='score'}"
    assert run(project, NIGHT, late).record.models[0].images_per_second > 0
    (project / "in" / str(NIGHT) / "late.jpg").write_bytes(picture())
    record = run(project, NIGHT, late, f"metrics={project}/toy.prom").record
    (model,) = record.models
    assert (model.state, model.counts.listed, model.images_per_second) == ("extended", 10, None)
    assert "10 ok, 0 failed, on cpu; " in describe_run(record)
    assert "batchland_images_per_second{" not in (project / "toy.prom").read_text()


def test_a_missing_model_is_named_before_another_one_scores(project):
    models = (
        (project / "toy.toml").read_text().replace('model = "toy.onnx"', 'models = {a = "toy.onnx", x = "no.onnx"}')
    )
    (project / "toy.toml").write_text(models)
    assert run(project).attempt.exit_code == 5
    log = [json.loads(line)["message"] for line in (project / f"runs/toy/{NIGHT}/log.jsonl").read_text().splitlines()]
    (missing,) = (index for index, text in enumerate(log) if text.startswith(f"x: {project}/no.onnx: cannot be read"))
    (scored,) = (index for index, text in enumerate(log) if text.startswith("a: scored, 9 images"))
    assert missing < scored


def test_labels_may_come_later_if_the_job_allows_it(project):
    (project / "toy.toml").write_text(JOB + EVALUATION + GATES)
    settings = ["evaluation.labels=labels/{date}.csv", "evaluation.on_missing=skip", "evaluation.gates=['top1 < 50%']"]
    assert run(project, NIGHT, *settings).record.models[0].evaluation is None
    (project / "labels").mkdir()
    rows = [f"00.Red_Tower/{number}.jpg,Blue Lake\n" for number in range(3)]
    (project / "labels" / f"{NIGHT}.csv").write_text("image,label\n" + "".join(rows))
    record, attempt = run(project, NIGHT, *settings)
    assert (record.models[0].state, attempt.outcome) == ("kept", "gate_failed")
    assert record.models[0].evaluation.figures.top1.value == 0.0


def test_each_model_has_a_partition_and_a_bad_model_does_not_stop_the_others(project):
    write_toy_model(project / "other.onnx", toy_card(4))
    (project / "bad.onnx").write_text("no model")
    models = (
        JOB.replace('model = "toy.onnx"', "")
        + "[models]\nfirst = 'toy.onnx'\nbad = 'bad.onnx'\nsecond = 'other.onnx'\n"
    )
    (project / "toy.toml").write_text(models + EVALUATION + GATES)
    record, attempt = run(project)
    assert (attempt.outcome, attempt.exit_code) == ("failed", 5)
    assert attempt.error.startswith(f"{project}/bad.onnx: ")
    assert [(model.name, model.state) for model in record.models] == [
        ("first", "scored"), ("bad", "unfinished"), ("second", "scored"),
    ]  # fmt: skip
    assert [bool(model.evaluation) for model in record.models] == [True, False, True]
    table = ds.dataset(project / "out", partitioning="hive").to_table(columns=["model", "date"]).to_pandas()
    assert table.value_counts().to_dict() == {("first", "2024-11-23"): 9, ("second", "2024-11-23"): 9}
    shutil.copy(project / "other.onnx", project / "bad.onnx")
    record, attempt = run(project)
    assert (attempt.outcome, [model.state for model in record.models]) == ("ok", ["kept", "scored", "kept"])
    comparisons = project / "runs" / "toy" / "2024-11-23" / "comparison"
    assert record.comparisons == (f"{comparisons}/first-bad", f"{comparisons}/first-second")
    assert (comparisons / "first-second" / "report.html").exists()


def test_mode_new_scores_an_image_again_only_if_it_changed(project):
    archive = project / "archive"
    shutil.move(project / "in" / str(NIGHT), archive)
    new = ('images="archive"', "mode=new")
    assert run(project, NIGHT, *new).record.models[0].counts.listed == 9
    (archive / "00.Red_Tower" / "0.jpg").write_bytes(picture((200, 0, 0)))
    (archive / "00.Red_Tower" / "7.jpg").write_bytes(picture())
    second = run(project, NIGHT + timedelta(days=1), *new).record.models[0]
    assert (second.counts.listed, second.already_scored) == (2, 8)
    record, attempt = run(project, NIGHT + timedelta(days=2), *new)
    assert (attempt.outcome, attempt.exit_code, attempt.error) == ("skipped", 0, "every image was scored already")
    assert record.models[0].state == "nothing_new"
    # An older date has nothing to score either, although its images are in later nights.
    assert run(project, NIGHT - timedelta(days=1), *new).attempt.outcome == "skipped"
    assert sorted(images(project))[9:] == [
        ("2024-11-24", "00.Red_Tower/0.jpg"), ("2024-11-24", "00.Red_Tower/7.jpg"),
    ]  # fmt: skip


def test_mode_new_tries_failed_images_again_only_if_nothing_was_read(project):
    archive = project / "archive"
    shutil.move(project / "in" / str(NIGHT), archive)
    (archive / "text.jpg").write_text("no image")
    with (archive / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    nights = (NIGHT, NIGHT + timedelta(days=1))
    counts = [run(project, night, 'images="archive"', "mode=new").record.models[0].counts for night in nights]
    assert [(each.listed, each.failed_by_code) for each in counts] == [
        (11, {"not_an_image": 1, "too_large": 1}),
        (1, {"too_large": 1}),
    ]


def test_a_night_reuses_rows_of_earlier_nights(project):
    later = NIGHT + timedelta(days=1)
    deliver(project, later, per_class=2)
    (project / "in" / str(later) / "new.jpg").write_bytes(picture((90, 120, 30)))
    first, second = (run(project, night, "reuse.nights=1").record.models[0] for night in (NIGHT, later))
    manifests = [read_manifest(Path(model.partition)) for model in (first, second)]
    assert [(each.reused_images, each.scored_images) for each in manifests] == [(0, 9), (6, 1)]
    plain = read_manifest(project / "out" / f"date={later}").files
    (project / "out" / f"date={NIGHT}" / "part-000000.parquet").write_bytes(b"damaged")
    again = run(project, later, "reuse.nights=1", force=True).record.models[0]
    assert read_manifest(Path(again.partition)).reused_images == 0
    assert read_manifest(Path(again.partition)).files == plain


def test_a_second_run_is_locked_out_and_recorded(project):
    job = load_job(project / "toy.toml")
    job.folder.mkdir(parents=True)
    with locked(job.folder / ".lock", "job toy"):
        record, attempt = run(project)
    assert (attempt.outcome, attempt.exit_code) == ("locked", 75)
    assert attempt.error.startswith(f"job toy: another run (process {os.getpid()} on ")
    assert not (project / "out").exists()
    record = run(project).record
    assert ([tried.outcome for tried in record.attempts], record.outcome) == (["locked", "ok"], "ok")
    with locked(job.folder / ".lock", "job toy"):
        assert run(project).attempt.exit_code == 75
    again = read_run(project / "runs" / "toy" / "latest")
    assert ([tried.outcome for tried in again.attempts], again.outcome) == (["locked", "ok", "locked"], "ok")
    assert (again.models, again.config) == (record.models, record.config)


def test_a_second_start_of_a_running_night_is_not_reported(project):
    notify = f"notify={{command=['touch', '{project}/notified'], on='failure'}}"
    job = load_job(project / "toy.toml")
    record = run(project).record
    with locked(job.folder / ".lock", "job toy"):
        assert run(project, NIGHT + timedelta(days=1), notify).attempt.exit_code == 75
        (project / "notified").unlink()  # this night does not run
        begun = record.attempts[0].model_copy(
            update={"outcome": "running", "exit_code": None, "started_at": local_now(), "finished_at": None}
        )
        update_run(job.folder / str(NIGHT), record.model_copy(update={"attempts": (begun,)}))
        assert run(project, NIGHT, notify).attempt.exit_code == 75
    assert not (project / "notified").exists()


SIGNALLED = """
import os, sys, time
from datetime import date
from pathlib import Path
import batchland.models.session
from batchland.images.sources.refs import MAX_FILE_BYTES
from batchland.nightly.job import load_job
from batchland.nightly.runner import run_night
predict = batchland.models.session.Session.answer
def slow(self, *batch):
    os.write(1, b"scoring\\n")  # in one write, because several calls run at once
    time.sleep(0.05)
    return predict(self, *batch)
batchland.models.session.Session.answer = slow
sys.exit(run_night(load_job(Path(sys.argv[1])), date(2024, 11, 23)).attempt.exit_code)
"""


@pytest.mark.parametrize(
    ("signum", "status", "outcome"),
    [(signal.SIGTERM, 143, "interrupted"), (signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -9, "killed")],
)
def test_a_stopped_run_is_resumed(project, signum, status, outcome):
    deliver(project, NIGHT, per_class=16)
    command = [sys.executable, "-c", SIGNALLED, project / "toy.toml"]
    with forks.Popen(command) as child:
        for _ in range(8):
            assert child.stdout.readline() == "scoring\n"
        assert read_run(project / "runs" / "toy" / "2024-11-23").outcome == "running"
        child.send_signal(signum)
    assert child.returncode == status
    stopped = read_run(project / "runs" / "toy" / "2024-11-23")
    assert (stopped.outcome, stopped.exit_code) == (outcome, 137 if status < 0 else status)
    record, attempt = run(project)
    assert ([tried.outcome for tried in record.attempts], attempt.exit_code) == ([outcome, "ok"], 0)
    (model,) = record.models
    assert (model.state, model.counts.listed) == ("resumed", 48)
    assert model.resumed_images > 0  # of the sixteen begun, some were in the model, some in an unfinished part
    assert len(set(images(project))) == len(images(project)) == 48


def test_a_signal_while_waiting_for_a_retry_ends_the_wait(project):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begin = time.monotonic()
    record, attempt = run(project, NIGHT, "images=nowhere", "retry={attempts=2, wait='60s'}")
    assert time.monotonic() - begin < 10
    assert [tried.outcome for tried in record.attempts] == ["missing_input", "interrupted"]
    assert (attempt.exit_code, attempt.error) == (143, "stopped by SIGTERM; run the same command again to continue")


def test_a_system_error_is_retried_and_is_not_a_bug(project, monkeypatch):
    real, faults = steps_module.delivered_images, [OSError(5, "Input/output error", "/mnt/in")]

    def deliver(*arguments, **settings):
        if faults:
            raise faults.pop()
        return real(*arguments, **settings)

    monkeypatch.setattr(steps_module, "delivered_images", deliver)
    record = run(project, NIGHT, "retry={attempts=2, wait='0.1s'}").record
    assert [(tried.outcome, tried.exit_code, tried.error) for tried in record.attempts] == [
        ("failed", 74, "/mnt/in: Input/output error"), ("ok", 0, None),
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--verbose",)])
def test_a_bug_is_recorded_and_its_traceback_shows_no_secret(project, monkeypatch, flags):
    def broken(*args, **options):
        raise ZeroDivisionError("oh, hook-token-7281")

    monkeypatch.setattr(steps_module, "score", broken)
    monkeypatch.setenv("HOOK_TOKEN", "hook-token-7281")
    command = [*flags, "run", project / "toy.toml", "--date", NIGHT, "--set", "registry=https://a.org/${HOOK_TOKEN}"]
    result = batchland(*command)
    record = read_run(project / "runs" / "toy" / "latest")
    assert (result.exit_code, record.outcome, record.exit_code) == (1, "failed", 1)
    assert record.error == "ZeroDivisionError: oh, ${HOOK_TOKEN} (a bug; the log has its traceback)"
    assert result.stderr.splitlines()[-1] == f"batchland: job toy, 2024-11-23: failed: {record.error}"
    log = (project / "runs/toy/latest/log.jsonl").read_text()
    assert '"traceback": "Traceback' in log
    document = json.loads(batchland(*command, "--json").stdout)
    assert (document["exit_code"], document["nights"][0]["attempts"][-1]["error"]) == (1, record.error)
    assert "7281" not in result.output + log + json.dumps(document)


def test_a_full_memory_is_recorded_and_ends_the_command_with_75(project, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(steps_module, "score", broken)
    result = batchland("run", project / "toy.toml", "--date", NIGHT, "--json")
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (75, 75)
    assert read_run(project / "runs" / "toy" / "latest").outcome == "failed"


def test_an_unwritable_folder_of_records_is_an_error(project):
    (project / "runs").write_text("a file")
    with pytest.raises(OutputError, match=r"log\.jsonl: cannot be written \(.*\); the job was not started"):
        run(project)


def test_a_record_that_cannot_be_created_ends_the_run_with_74(project):
    result = batchland("run", project / "toy.toml", "--date", NIGHT, "--set", "runs=/proc/none")
    assert (result.exit_code, result.stdout) == (74, "")
    log = "/proc/none/toy/2024-11-23/log.jsonl"
    reason = "cannot be written (No such file or directory); the job was not started"
    assert result.stderr == f"batchland: {log}: {reason}\n"


def test_a_record_of_another_version_is_moved_aside(project):
    run(project)
    path = project / "runs" / "toy" / "2024-11-23" / "run.json"
    path.write_text('{"schema_version": 99}')
    record, attempt = run(project)
    assert (attempt.outcome, len(record.attempts)) == ("ok", 1)
    assert record.warnings == (
        f"{path}: is not a record that this version of batchland can read (schema_version); "
        "moved to run.json.unreadable",
    )
    assert (path.parent / "run.json.unreadable").read_text() == '{"schema_version": 99}'


def test_failed_notifications_are_warnings(project):
    record, attempt = run(
        project,
        NIGHT,
        "heartbeat={url='http://127.0.0.1:9', timeout='1s'}",
        "notify={command=['false'], on='always'}",
        "metrics=/proc/none/toy.prom",
    )
    assert attempt.outcome == "ok"
    assert [warning.partition(":")[0] for warning in record.warnings] == ["heartbeat", "metrics", "notify", "heartbeat"]
    assert read_run(project / "runs" / "toy" / "latest") == record


@pytest.mark.parametrize(
    ("on", "outcomes"), [("always", ["ok", "failed", "ok"]), ("failure", ["failed"]), ("change", ["failed", "ok"])]
)
def test_notifications_by_setting(project, on, outcomes):
    settings = f"notify={{command=['sh', '-c', 'echo $BATCHLAND_OUTCOME >> {project}/notified'], on='{on}'}}"
    for days in range(3):
        deliver(project, NIGHT + timedelta(days=days))
    run(project, NIGHT, settings)
    run(project, NIGHT + timedelta(days=1), settings, "model=none.onnx")
    run(project, NIGHT + timedelta(days=2), settings)
    assert (project / "notified").read_text().split() == outcomes


def test_metrics_of_the_newest_night_and_the_last_good_one(project):
    (project / "toy.toml").write_text(JOB + "metrics = 'toy.prom'\n" + EVALUATION + GATES)
    next_night = NIGHT + timedelta(days=1)
    deliver(project, next_night, wrong=3)
    run(project)
    (project / "in" / str(next_night) / "00.Red_Tower" / "0.jpg").write_bytes(b"")
    run(project, next_night)
    run(project)  # an older night again: the file stays about the newest
    families = text_string_to_metric_families((project / "toy.prom").read_text())
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels.pop("job_name") for sample in samples} == {"toy"}
    metrics = {
        (sample.name.removeprefix("batchland_"), *dict(sorted(sample.labels.items())).values()): sample.value
        for sample in samples
    }
    assert metrics[("exit_code",)] == 4
    assert metrics["images", "toy", "failed"] == 1
    assert metrics["failed_images", "empty", "toy"] == 1
    assert metrics["accuracy", "value", "toy"] == 0
    assert metrics["gate_passed", "top1 < 90%", "toy"] == 0
    assert metrics[("success_timestamp_seconds",)] > time.time() - 600
    assert next(name for name in metrics if name[0] == "model_info")[1:3] == ("cpu", "toy")


def test_the_plan_lists_the_steps_and_does_nothing(project):
    (project / "toy.toml").write_text(JOB + EVALUATION + GATES)
    before = sorted(project.rglob("*"))
    rules = ["delivery.min_of_usual='50%'", "delivery.min_images=3", "retention.keep_days=30"]
    job = load_job(project / "toy.toml", ["max_failed=5", "metrics=toy.prom", *rules])
    assert plan_night(job, NIGHT) == ((
        f"job toy of {project}/toy.toml, night 2024-11-23",
        f"model toy: {project}/toy.onnx",
        f"  score {project}/out/date=2024-11-23: 9 images of {project}/in/2024-11-23",
        f"  evaluate against {project}/in/2024-11-23, compared with no earlier good night; "
        f"report {project}/runs/toy/2024-11-23/report/toy",
        "gate: fail if top1 < 90%",
        "gate: fail if drop(top1) > 1%",
        '[delivery] min_images = 3, min_of_usual = "50%"',
        '[monitor] action = "off"',
        "[retention] keep_days = 30",
        "fail if more than 5 of the images fail",
        f"record {project}/runs/toy/2024-11-23/run.json",
        f"metrics {project}/toy.prom",
    ), ())  # fmt: skip
    assert sorted(project.rglob("*")) == before
    complete = run(project).record.models[0]
    plan = plan_night(job, NIGHT).lines
    assert plan[2].startswith(f"  keep {project}/out/date=2024-11-23: complete since ")
    assert plan_night(job, NIGHT, force=True).lines[2].startswith(f"  replace {complete.partition}: 9 images of ")
    assert plan_night(job, NIGHT + timedelta(days=1)).lines[2].startswith(f"  fail: {project}/in/2024-11-24: does not ")


def test_the_plan_finds_missing_corrections_and_a_missing_baseline(project):
    (project / "toy.toml").write_text(JOB + EVALUATION)
    for setting, message in [
        (
            "corrections=fix.csv",
            f"{project}/fix.csv: cannot be read (No such file or directory); give a CSV file of corrections, with ",
        ),
        ("baseline=fixed", f"{project}/fixed: holds no summary.json"),
    ]:
        result = run(project, NIGHT, f"evaluation.{setting}")
        plan = plan_night(load_job(project / "toy.toml", [f"evaluation.{setting}"]), NIGHT)
        assert [str(problem) for problem in plan.problems] == [result.attempt.error]
        assert result.attempt.error.startswith(message)
    (project / "fix.csv").write_text("path,label,decision\n")
    assert plan_night(load_job(project / "toy.toml", ["evaluation.corrections=fix.csv"]), NIGHT).problems == ()


def test_a_date_after_today_needs_permission(project):
    tomorrow, job = NIGHT + timedelta(days=1), load_job(project / "toy.toml")
    message = "night 2024-11-24: is after today, 2024-11-23 by this machine's clock"
    with pytest.raises(UsageError) as caught:
        run_night(job, tomorrow, today=NIGHT)
    assert (str(caught.value), caught.value.advice) == (message, "future")
    assert str(plan_night(job, tomorrow, today=NIGHT).problems[0]) == message
    assert not (project / "runs").exists()
    assert run(project, today=NIGHT).record.good
    deliver(project, tomorrow)
    assert run(project, tomorrow, today=NIGHT, future=True).record.good
    assert os.readlink(project / "runs" / "toy" / "latest") == str(NIGHT)
    run(project, today=tomorrow)
    assert os.readlink(project / "runs" / "toy" / "latest") == str(tomorrow)


def test_images_that_came_after_a_complete_night_are_named(project):
    assert run(project).record.warnings == ()
    for name in ("8.jpg", "9.jpg", "a.jpg", "b.jpg"):
        (project / "in" / str(NIGHT) / "00.Red_Tower" / name).write_bytes(picture())
    (project / "in" / str(NIGHT) / "00.Red_Tower" / "0.jpg").unlink()
    late = (
        "4 images came after the night was scored and are missing in it (00.Red_Tower/8.jpg, 00.Red_Tower/9.jpg, "
        "00.Red_Tower/a.jpg and 1 more); "
        '`late = "score"` in [delivery] adds late images, a run with force scores all again'
    )
    record = run(project).record
    assert (record.outcome, record.models[0].state, record.warnings) == ("ok", "kept", (f"toy: {late}",))
    assert f"  though {late}" in plan_night(load_job(project / "toy.toml"), NIGHT).lines
    planned = batchland("run", project / "toy.toml", "--date", NIGHT, "--dry-run").stdout
    assert f"  though {late}\n" in planned
    assert run(project, force=True).record.warnings == ()
    assert run(project).record.warnings == ()
    shutil.rmtree(project / "in" / str(NIGHT))  # archived
    assert run(project).record.warnings == ()


@pytest.mark.parametrize("settings", [(), ("delivery.late=score",), ("mode=new",)], ids=["all", "late", "new"])
def test_images_that_changed_after_a_complete_night_are_named(project, settings):
    """Another size or modification time is a change. Deleted images and images that were not read have not changed."""
    folder = project / "in" / str(NIGHT)
    (folder / "huge.jpg").write_bytes(b"")
    os.truncate(folder / "huge.jpg", MAX_FILE_BYTES + 1)
    assert run(project, NIGHT, *settings).record.warnings == ()
    larger, later, gone = (folder / "00.Red_Tower" / f"{number}.jpg" for number in range(3))
    moment = larger.stat().st_mtime_ns
    larger.write_bytes(larger.read_bytes() + b" ")
    os.utime(larger, ns=(moment, moment))
    os.utime(later, (1, 1))
    gone.unlink()
    (folder / "huge.jpg").write_bytes(picture())
    changed = (
        "toy: 2 images have another size or modification time than when the night was scored (00.Red_Tower/0.jpg, "
        "00.Red_Tower/1.jpg); "
    )
    changed += "a run with force scores all again"
    assert run(project, NIGHT, *settings).record.warnings == (changed,)
    (folder / "new.jpg").write_bytes(picture())
    after = run(project, NIGHT, *settings).record
    if "delivery.late=score" in settings:
        assert (after.models[0].state, after.warnings) == ("extended", (changed,))
    else:
        late = "toy: 1 image came after the night was scored and is missing in it (new.jpg); "
        assert (after.models[0].state, after.warnings) == ("kept", (late + changed.removeprefix("toy: "),))
    assert run(project, NIGHT, *settings, force=True).record.warnings == ()
    assert run(project, NIGHT, *settings).record.warnings == ()


def test_a_check_of_several_models_names_a_missing_delivery_once(project, toy_model):
    job_file = project / "toy.toml"
    text = job_file.read_text().replace('model = "toy.onnx"\n', "")
    job_file.write_text(f'{text}\n[models]\na = "toy.onnx"\nb = "toy.onnx"\n')
    (problem,) = plan_night(load_job(job_file), NIGHT + timedelta(days=9)).problems
    assert "does not exist" in str(problem)


def test_late_images_of_mode_new_are_those_that_no_night_has(project):
    new = (f'images="in/{NIGHT}"', "mode=new")
    run(project, NIGHT, *new)
    (project / "in" / str(NIGHT) / "new.jpg").write_bytes(picture())
    (warning,) = run(project, NIGHT, *new).record.warnings
    assert warning.startswith("toy: 1 image came after the night was scored and is missing in it (new.jpg); ")
    assert run(project, NIGHT + timedelta(days=1), *new).record.models[0].counts.listed == 1
    assert run(project, NIGHT, *new).record.warnings == ()


def test_a_record_that_cannot_be_written_is_never_exit_code_0(project, web_server, caplog):
    folder = project / "runs" / "toy" / str(NIGHT)
    (folder / ".run.json.lock").mkdir(parents=True)
    heartbeat = f"heartbeat.url={web_server[0]}/check"
    attempt = run(project, NIGHT, heartbeat).attempt
    assert (attempt.outcome, attempt.exit_code) == ("failed", 74)
    assert attempt.error == f"{folder}/run.json: cannot be written (Is a directory); write elsewhere"
    assert caplog.messages.count(attempt.error) == 1
    assert web_server[1] == ["/check/start", "/check/74"]
    assert len(images(project)) == 9


def test_a_night_succeeds_if_the_latest_link_cannot_be_written(project, caplog):
    (project / "runs" / "toy" / "latest").mkdir(parents=True)
    assert run(project).attempt.exit_code == 0
    assert read_run(project / "runs" / "toy" / str(NIGHT)).good
    assert f"{project}/runs/toy/latest: cannot be written (Is a directory)" in caplog.messages
    assert [path.name for path in (project / "runs" / "toy").iterdir() if path.name.startswith(".latest")] == []


def test_storage_that_fails_is_an_error_without_a_traceback(project, monkeypatch, caplog):
    """`stat` of the records fails."""

    def fails(folder):
        raise OSError(errno.EIO, "Input/output error", f"{folder}/2026-11-20/run.json")

    monkeypatch.setattr(steps_module, "read_runs", fails)
    attempt = run(project).attempt
    message = f"{project}/runs/toy/2026-11-20/run.json: Input/output error"
    assert (attempt.outcome, attempt.exit_code, attempt.error) == ("failed", 74, message)
    assert "Traceback" not in caplog.text


def test_a_reserve_that_cannot_be_removed_is_named(project):
    (project / "runs" / "toy" / str(NIGHT) / ".reserve").mkdir(parents=True)
    result = run(project)
    assert result.attempt.exit_code == 0
    (warning,) = result.record.warnings
    assert warning.startswith(f"{project}/runs/toy/{NIGHT}/.reserve: cannot be removed (")


def test_a_class_with_only_failed_images_is_named(project):
    (project / "toy.toml").write_text(JOB + EVALUATION + GATES)
    for path in (project / "in" / str(NIGHT) / "02.Blue_Lake").iterdir():
        path.write_bytes(b"")
    (project / "in" / str(NIGHT) / "00.Red_Tower" / "0.jpg").write_bytes(b"")
    record = run(project).record
    assert record.models[0].evaluation.failed_classes == {"Blue Lake": 3}
    assert record.warnings == ("toy: all 3 images of class 'Blue Lake' failed",)

"""Jobs with images and output in an object store: each night is as with local folders."""

import json
import os
import time
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest
from commands import batchland
from job_files import EVALUATION, deliver
from s3_server import Bucket
from toys import picture

from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_runs
from batchland.nightly.runner import run_night

NIGHT = date(2024, 11, 23)
DAYS = [NIGHT + timedelta(days=number) for number in range(4)]
JOB = """
images = "s3://{bucket}/in/{{date}}"
output = "s3://{bucket}"
model = "toy.onnx"
device = "cpu"
batch_size = 2
part_size = 4
monitor = {{action = "off"}}
"""


@pytest.fixture
def job_file(tmp_path, toy_model, bucket):
    path = tmp_path / "toy.toml"
    path.write_text(JOB.format(bucket=bucket.name))
    return path


def run(job_file, night=NIGHT, *settings, **options):
    return run_night(load_job(job_file, settings), night, **options)


def rows(folder):
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def partitions(bucket: Bucket):
    return sorted(path.parent.name for path in bucket.folder.glob("date=*/_manifest.json"))


def test_a_night_from_s3_to_s3_equals_one_of_folders(job_file, bucket, tmp_path):
    deliver(bucket.folder, NIGHT)
    deliver(tmp_path, NIGHT)
    record, attempt = run(job_file)
    assert (attempt.outcome, attempt.error) == ("ok", None)
    (model,) = record.models
    assert model.partition == f"s3://{bucket.name}/date=2024-11-23"
    assert (model.counts.listed, model.counts.ok, model.mix.classes["Red Tower"]) == (9, 9, 3)
    assert record.config["output"] == f"s3://{bucket.name}"
    local = run(job_file, NIGHT, "images=in/{date}", "output=out", "runs=local")
    assert local.attempt.outcome == "ok"
    shown = ("image", "status", "label", "probability", "width", "file_size")
    here, there = rows(tmp_path / "out/date=2024-11-23"), rows(bucket.folder / "date=2024-11-23")
    assert [[row[name] for name in shown] for row in there] == [[row[name] for name in shown] for row in here]
    assert len(there) == 9


def test_a_complete_night_is_kept_and_late_images_are_named(job_file, bucket):
    deliver(bucket.folder, NIGHT)
    run(job_file)
    again = run(job_file)
    assert (again.record.models[0].state, again.attempt.outcome) == ("kept", "ok")
    check = batchland("job", "check", job_file, "--set", "date=today")
    assert check.exit_code == 66
    plan = batchland("run", job_file, "--date", NIGHT, "--dry-run").stdout
    assert f"  keep s3://{bucket.name}/date=2024-11-23: complete since " in plan
    deliver(bucket.folder, NIGHT, per_class=4)
    warned = run(job_file).record.warnings
    assert len(warned) == 1
    assert warned[0].startswith("toy: 3 images came after the night was scored")


@pytest.mark.slow  # see below
def test_a_forced_run_replaces_a_complete_night(job_file, bucket):
    deliver(bucket.folder, NIGHT)
    before = run(job_file).record.models[0]
    deliver(bucket.folder, NIGHT, per_class=4)
    forced = run(job_file, force=True).record.models[0]
    assert (forced.state, forced.counts.listed) == ("replaced", 12)
    assert forced.run_id != before.run_id


def test_no_delivery_yet_is_retried_and_then_missing(job_file, bucket):
    record, attempt = run(job_file, NIGHT, "retry={attempts=2, wait='0.01s'}")
    assert (attempt.outcome, attempt.exit_code) == ("missing_input", 66)
    assert attempt.error == (
        f"s3://{bucket.name}/in/2024-11-23: does not exist; is the delivery late, or `images` in {job_file} wrong?"
    )
    assert len(record.attempts) == 2
    assert run(job_file, NIGHT, "on_missing=skip").attempt.outcome == "skipped"


def test_a_delivery_that_still_grows_is_waited_for(job_file, bucket):
    deliver(bucket.folder, NIGHT)
    for path in (bucket.folder / "in").rglob("*.jpg"):
        os.utime(path, (time.time() - 3600,) * 2)
    assert run(job_file, NIGHT, "settle=10m").attempt.outcome == "ok"
    deliver(bucket.folder, DAYS[1])
    attempt = run(job_file, DAYS[1], "settle=10m").attempt
    assert attempt.outcome == "missing_input"
    assert f"s3://{bucket.name}/in/2024-11-24: is still growing, it changed " in attempt.error


def test_mode_new_scores_only_images_that_are_in_no_other_partition(job_file, bucket):
    deliver(bucket.folder, NIGHT, per_class=1)
    images = f"images=s3://{bucket.name}/in"
    assert run(job_file, DAYS[0], images, "mode=new").record.models[0].counts.listed == 3
    (bucket.folder / "in" / "later").mkdir()  # the server may not know the time of a new file in a folder it has listed
    (bucket.folder / "in" / "later" / "1.jpg").write_bytes(picture())
    second = run(job_file, DAYS[1], images, "mode=new").record.models[0]
    assert (second.counts.listed, second.already_scored) == (1, 3)
    third = run(job_file, DAYS[2], images, "mode=new")
    assert (third.record.models[0].state, third.attempt.outcome) == ("nothing_new", "skipped")
    assert partitions(bucket) == ["date=2024-11-23", "date=2024-11-24"]


def test_the_delivery_contract_counts_objects(job_file, bucket):
    deliver(bucket.folder, NIGHT)
    attempt = run(job_file, NIGHT, "delivery={min_images=10}").attempt
    assert (attempt.exit_code, attempt.error) == (
        66,
        f"s3://{bucket.name}/in/2024-11-23: 9 images, fewer than min_images 10; run the night again when everything "
        f"has arrived, or correct [delivery] in {job_file}",
    )
    assert run(job_file, NIGHT, "delivery={max_duplicates='70%'}").attempt.outcome == "ok"


def test_labels_of_this_machine_match_images_of_a_bucket(job_file, bucket, tmp_path):
    deliver(bucket.folder, NIGHT)
    deliver(tmp_path, NIGHT)
    job_file.write_text(job_file.read_text() + EVALUATION)
    (model,) = run(job_file).record.models
    assert model.evaluation.figures.top1.value == 1


@pytest.mark.slow  # after a deletion Arrow writes an object for the folder, which this server refuses for 6 seconds
def test_retention_deletes_old_partitions_of_a_bucket(job_file, bucket):
    for day in DAYS:
        deliver(bucket.folder, day)
        assert run(job_file, day, "retention={keep_nights=2}").attempt.outcome == "ok"
    assert partitions(bucket) == ["date=2024-11-25", "date=2024-11-26"]
    deleted = [each for record in read_runs(job_file.parent / "runs/toy") for each in record.deleted]
    assert [each.path for each in deleted] == [f"s3://{bucket.name}/date={day}" for day in DAYS[:2]]
    assert [each.files for each in deleted] == [4, 4]


def test_tar_files_of_a_night_by_path_and_by_url(job_file, bucket, tmp_path):
    import tarfile

    deliver(tmp_path, NIGHT)
    for folder in (tmp_path, bucket.folder):
        with tarfile.open(folder / f"photos-{NIGHT}.tar", "w") as archive:
            archive.add(tmp_path / "in" / str(NIGHT), ".")
    here = run(job_file, NIGHT, "images=photos-{date}.tar", "output=out", "settle=0s")
    there = run(job_file, NIGHT, f"images=s3://{bucket.name}/photos-{{date}}.tar", "output=out2", force=True)
    assert [each.record.models[0].counts.ok for each in (here, there)] == [9, 9]
    late = run(job_file, DAYS[1], f"images=s3://{bucket.name}/photos-{{date}}.tar").attempt
    assert (late.exit_code, late.error.partition(";")[0]) == (
        66,
        f"s3://{bucket.name}/photos-2024-11-24.tar: does not exist",
    )


def test_credentials_in_urls_are_recorded_and_printed_nowhere(job_file, bucket, tmp_path):
    deliver(bucket.folder, NIGHT)
    server = bucket.server
    options = f"?endpoint_override={server.endpoint}&scheme=http"
    host = f"s3://test-key:test%2Fsecret%2Bkey@{bucket.name}"
    settings = [f"images={host}/in/{{date}}{options}", f"output={host}{options}"]
    assert run(job_file, NIGHT, *settings).attempt.outcome == "ok"
    arguments = [part for setting in settings for part in ("--set", setting)]
    shown = batchland("run", job_file, "--date", NIGHT, *arguments).output
    shown += batchland("run", job_file, "--date", NIGHT, "--dry-run", *arguments).output
    shown += batchland("job", "check", job_file, "--json", *arguments).output
    written = [path.read_text() for path in (tmp_path / "runs").rglob("*") if path.suffix in (".json", ".jsonl")]
    assert len(written) == 2
    for text in (shown, *written, *(path.read_text() for path in bucket.folder.glob("date=*/_manifest.json"))):
        assert "secret" not in text
    record = json.loads((tmp_path / "runs/toy/2024-11-23/run.json").read_text())
    assert record["config"]["images"] == f"s3://{bucket.name}/in/{{date}}"


def test_a_partition_without_its_manifest_is_refused_also_by_a_dry_run(job_file, bucket):
    deliver(bucket.folder, NIGHT)
    run(job_file)
    (bucket.folder / f"date={NIGHT}/_manifest.json").unlink()
    error = (
        f"s3://{bucket.name}/date={NIGHT}: holds files but no _manifest.json; delete this folder, then run the night "
    )
    attempt = run(job_file).attempt
    assert (attempt.outcome, attempt.exit_code) == ("failed", 2)
    assert attempt.error == f"{error}again (nothing was changed, and the night stays good)"
    assert [str(problem) for problem in plan_night(load_job(job_file), NIGHT).problems] == [f"{error}again"]

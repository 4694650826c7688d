"""Outputs in an object store equal local outputs byte for byte, also after killed runs. Uses a real S3 server."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import forks
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import batchland
from s3_server import Bucket, new_bucket
from slow_score import SLOW_SCORE
from toys import COLOURS, Stop, options, picture, stop_after, toy_card, write_toy_model

from batchland import evaluate, score
from batchland.errors import LockedError, MissingInputError, OutputError, UsageError
from batchland.predictions.objects import Objects, Upload
from batchland.predictions.schema import Manifest
from batchland.predictions.storage import remove_leftovers
from batchland.scoring.merge.merge import merge
from batchland.scoring.options import Shard
from batchland.system.filesystems import OpenUrl

# After each deletion in a nested folder, Arrow writes an empty object for that folder. The test server refuses this,
# because the folder exists, and Arrow retries for six seconds. So tests with nested folders are slow.
NAMES = ("p.parquet", "p")


def listed(bucket: Bucket) -> list[str]:
    """Keys of all objects, without the server's own files for unfinished uploads."""
    paths = [path for path in bucket.folder.rglob("*") if path.is_file() and not path.name.startswith(".rclone_temp")]
    return sorted(str(path.relative_to(bucket.folder)) for path in paths)


def read(bucket: Bucket) -> dict[str, bytes]:
    """All objects except manifests, which contain times."""
    return {name: (bucket.folder / name).read_bytes() for name in listed(bucket) if not name.endswith("manifest.json")}


def visible(bucket: Bucket) -> dict[str, bytes]:
    return {name: data for name, data in read(bucket).items() if not name.startswith(".")}


def local(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*.parquet") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", NAMES)
def test_output_has_the_same_bytes_as_a_local_output(tmp_path, bucket, photos, toy_model, name):
    whole = score(photos, tmp_path / "local" / name, options(toy_model))
    remote = score(photos, bucket.url(name), options(toy_model))
    assert read(bucket) == local(tmp_path / "local")
    assert remote.manifest.files == whole.manifest.files
    assert (remote.manifest.run_id, remote.manifest.counts) == (whole.manifest.run_id, whole.manifest.counts)
    assert str(remote.out) == f"s3://{bucket.name}/{name}"
    path = str(remote.manifest_path).removeprefix(f"s3://{bucket.name}/")
    assert Manifest.model_validate_json((bucket.folder / path).read_bytes()) == remote.manifest
    assert listed(bucket) == sorted([*local(tmp_path / "local"), path])
    for file in remote.manifest.files:
        stored = bucket.folder / (name if name == file.path else f"{name}/{file.path}")
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize("name", ["p.parquet", pytest.param("p", marks=pytest.mark.slow)])
def test_killed_runs_resume_on_any_machine(tmp_path, bucket, photos, toy_model, name, monkeypatch):
    """SIGKILL several runs. Each has a different state folder, as on another machine."""
    score(photos, tmp_path / "local" / name, options(toy_model))
    manifest = bucket.folder / ("p.manifest.json" if name == "p.parquet" else "p/_manifest.json")

    def parts() -> list[Path]:
        return list((bucket.folder / f".{name}.parts").glob("part-*"))

    for machine in range(3):
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / f"machine-{machine}")}
        command = [sys.executable, SLOW_SCORE, photos, bucket.url(name), toy_model, "0.04"]
        with forks.Popen(command, env=environment) as child:
            assert child.stdout.readline() == "ready\n"
            before = len(parts())
            # The first two runs are killed after writing a part; the last one finishes.
            while machine < 2 and child.poll() is None and len(parts()) == before:
                time.sleep(0.001)
            if machine < 2:
                child.kill()
        assert manifest.exists() == (machine == 2)
    assert visible(bucket) == local(tmp_path / "local")


@pytest.mark.parametrize(("note", "mark", "left"), [("done", False, 0), ("x", True, 0), ("x", False, 2)])
def test_leftovers_beside_a_published_output_are_removed(bucket, photos, toy_model, note, mark, left):
    """`x` stands for a fingerprint; without the mark, the run has not begun to publish."""
    score(photos, bucket.url("p"), options(toy_model))
    parts = bucket.folder / ".p.parts"
    parts.mkdir()
    (parts / "run.json").write_text(note)
    (parts / ("publishing" if mark else "part-000000.parquet")).touch()
    remove_leftovers(bucket.url("p"))
    assert len(list(parts.glob("*"))) == left
    assert (bucket.folder / "p" / "_manifest.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_continues_from_its_parts(tmp_path, bucket, photos, toy_model, name):
    with pytest.raises(Stop):
        score(photos, bucket.url(name), options(toy_model), on_progress=stop_after(24))
    assert visible(bucket) == {}
    score(photos, tmp_path / name, options(toy_model))
    assert score(photos, bucket.url(name), options(toy_model)).manifest.resumed_images in (16, 24)
    assert read(bucket) == local(tmp_path)


def test_an_upload_that_fails_leaves_no_object_even_when_the_process_ends(bucket):
    """pyarrow's own streams would complete the partial object, at the latest when they are garbage-collected."""
    failing_upload = """
import sys
from pathlib import PurePosixPath
from batchland.system.filesystems import OpenUrl
from batchland.predictions.objects import Objects, Upload
objects = Objects.at(sys.argv[1])
try:
    with Upload(objects, PurePosixPath(objects.location.path)) as upload:
        upload.write(b"x" * int(sys.argv[2]))
        raise RuntimeError
except RuntimeError:
    pass
"""
    for name, size in (("small", 10), ("large", 25_000_000)):
        subprocess.run([sys.executable, "-c", failing_upload, bucket.url(name), str(size)], check=True)
    assert listed(bucket) == []


def test_an_error_while_the_file_is_assembled_keeps_the_old_file(bucket, photos, toy_model, monkeypatch):
    url = bucket.url("p.parquet")
    score(photos, url, options(toy_model))
    before = read(bucket)
    manifest = (bucket.folder / "p.manifest.json").read_bytes()
    real, calls = Upload.flush, []

    def fail_third_flush(self):
        calls.append(self)
        if len(calls) == 3:
            raise OSError(5, "gone")
        real(self)

    monkeypatch.setattr(Upload, "flush", fail_third_flush)
    with pytest.raises(OutputError, match=r"s3://\S+/p.parquet: cannot be written \(gone\); finished parts are kept"):
        score(photos, url, options(toy_model, overwrite=True))
    assert visible(bucket) == before
    assert (bucket.folder / "p.manifest.json").read_bytes() == manifest
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["p.parquet", pytest.param("deep/er/p", marks=pytest.mark.slow)])
def test_overwriting_removes_the_manifest_first_and_writes_it_last(
    tmp_path, bucket, photos, toy_model, monkeypatch, name
):
    new = write_toy_model(tmp_path / "new.onnx", toy_card().model_copy(update={"name": "new"}))
    url = bucket.url(name)
    score(photos, url, options(toy_model))
    with pytest.raises(UsageError, match="exists already"):
        score(photos, url, options(new))
    for path in sorted(photos.rglob("*.jpg"))[44:]:
        path.unlink()
    steps = []
    real = {name: getattr(Objects, name) for name in ("put", "remove")}

    def spy(action):
        def act(self, path, *data):
            steps.append((action, PurePosixPath(path).name))
            real[action](self, path, *data)

        return act

    for action in real:
        monkeypatch.setattr(Objects, action, spy(action))
    score(photos, url, options(new, overwrite=True))
    score(photos, tmp_path / "local" / name, options(new))
    assert read(bucket) == local(tmp_path / "local")
    manifest = "p.manifest.json" if name == "p.parquet" else "_manifest.json"
    published = steps[steps.index(("put", "publishing")) :]
    assert published[1] == ("remove", manifest)
    assert published[-2:] == [("put", manifest), ("put", "run.json")]
    if name != "p.parquet":
        parts = [f"part-{index:06}.parquet" for index in range(8)]
        assert sorted(published[2:8]) == [("put", part) for part in parts[:6]]  # several at once
        assert sorted(published[8:-2]) == [("remove", part) for part in parts[6:]]


def test_the_same_command_completes_a_run_killed_while_replacing_a_folder(
    tmp_path, bucket, photos, toy_model, monkeypatch
):
    new = write_toy_model(tmp_path / "new.onnx", toy_card().model_copy(update={"name": "new"}))
    url = bucket.url("p")
    score(photos, url, options(toy_model))
    real = Objects.put

    def killed(self, path, data):
        if path.name == "_manifest.json":
            raise Stop
        real(self, path, data)

    monkeypatch.setattr(Objects, "put", killed)
    with pytest.raises(Stop):
        score(photos, url, options(new, overwrite=True))
    assert "p/_manifest.json" not in listed(bucket)
    monkeypatch.undo()
    score(photos, tmp_path / "p", options(new))
    for variable, value in bucket.server.environment.items():
        monkeypatch.setenv(variable, value)
    assert score(photos, url, options(new)).manifest.resumed_images == 60
    assert read(bucket) == local(tmp_path)
    assert "p/_manifest.json" in listed(bucket)


def test_files_that_batchland_did_not_write_are_never_replaced(bucket, photos, toy_model):
    (bucket.folder / "precious").mkdir()
    (bucket.folder / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="exists already"):
        score(photos, bucket.url("precious"), options(toy_model))
    with pytest.raises(UsageError, match="is a folder that batchland did not write"):
        score(photos, bucket.url("precious"), options(toy_model, overwrite=True))
    (bucket.folder / "notes.parquet").write_text("x")
    with pytest.raises(UsageError, match=r"/notes.parquet: is a file that batchland did not write"):
        score(photos, bucket.url("notes.parquet"), options(toy_model, overwrite=True))
    assert listed(bucket) == ["notes.parquet", "precious/thesis.tex"]


@pytest.mark.parametrize("name", ["p.parquet", pytest.param("p", marks=pytest.mark.slow)])
def test_retry_failed_scores_only_failed_images(tmp_path, bucket, photos, toy_model, name):
    url = bucket.url(name)
    assert score(photos, url, options(toy_model)).manifest.counts.failed == 6
    for number in range(7, 60, 10):
        data = picture(list(COLOURS.values())[number % 3])
        (photos / f"camera-{number // 20}" / f"{number:03}.jpg").write_bytes(data)
    manifest = score(photos, url, options(toy_model, retry_failed=True)).manifest
    assert (manifest.kept_images, manifest.counts.failed) == (54, 0)
    score(photos, tmp_path / name, options(toy_model))
    assert read(bucket) == local(tmp_path)


def leave_unfinished_run(bucket: Bucket, photos: Path, model: Path, host: str) -> None:
    """Leave an unfinished run whose holder.json names this host."""

    with pytest.raises(Stop):
        score(photos, bucket.url("p.parquet"), options(model), on_progress=stop_after(24))
    note = bucket.folder / ".p.parquet.parts" / "holder.json"
    note.write_text(json.dumps({"pid": 7, "host": host, "since": "2026-11-25T01:00:00+00:00"}))


def test_another_machines_run_blocks_unless_it_has_the_same_options_or_is_dead(
    tmp_path, bucket, photos, toy_model, caplog
):
    new = write_toy_model(tmp_path / "new.onnx", toy_card().model_copy(update={"name": "new"}))
    url = bucket.url("p.parquet")
    leave_unfinished_run(bucket, photos, toy_model, "elsewhere")
    with pytest.raises(LockedError) as caught:
        score(photos, url, options(new))
    assert str(caught.value) == (
        f"{url}: another run (process 7 on elsewhere, since 2026-11-25T01:00:00+00:00) is writing it; wait for that "
        f"run or stop it (it counts as dead 10 minutes after its last part)"
    )
    assert score(photos, url, options(toy_model)).manifest.resumed_images > 0
    assert "continues with the parts of another run (process 7 on elsewhere" in caplog.text
    (bucket.folder / "p.parquet").unlink()
    leave_unfinished_run(bucket, photos, toy_model, "elsewhere")
    for path in (bucket.folder / ".p.parquet.parts").iterdir():
        os.utime(path, (time.time() - 700, time.time() - 700))
    assert score(photos, url, options(new)).manifest.resumed_images == 0
    message = rf"{url}: discards (16|24) finished images of an interrupted run, which differs in model"
    assert re.fullmatch(message, caplog.messages[-1])


def test_the_second_run_on_one_machine_names_the_first(bucket, photos, toy_model):
    url = bucket.url("p.parquet")

    def second(progress):
        with pytest.raises(
            LockedError, match=rf"{url}: another run \(process {os.getpid()} on \S+, since \S+\) is writing"
        ):
            score(photos, url, options(toy_model))

    score(photos, url, options(toy_model), on_progress=second)


def test_parts_that_another_run_has_replaced_are_never_published(bucket, photos, toy_model, monkeypatch):
    part = bucket.folder / ".p.parquet.parts" / "part-000001.parquet"
    written = []

    def replace_part(progress):
        if part.exists() and not written:
            written.append(part.write_bytes((part.parent / "part-000000.parquet").read_bytes()))

    with pytest.raises(
        OutputError, match=r"p.parquet: another run has replaced part-000001.parquet; make sure that only one"
    ):
        score(photos, bucket.url("p.parquet"), options(toy_model), on_progress=replace_part)
    assert written
    assert visible(bucket) == {}


def test_a_run_that_was_taken_over_publishes_nothing(bucket, photos, toy_model):
    note = bucket.folder / ".p.parquet.parts" / "run.json"

    def take_over(progress):
        note.write_text("another one's")

    with pytest.raises(LockedError, match=r"p.parquet: another run has started to write it; make sure that only one"):
        score(photos, bucket.url("p.parquet"), options(toy_model), on_progress=take_over)
    assert visible(bucket) == {}


def test_a_run_continues_after_a_server_restart(tmp_path, own_s3_server, photos, toy_model, monkeypatch):
    bucket = new_bucket(own_s3_server, monkeypatch)
    restarted = []

    def restart(progress):
        if progress.done >= 24 and not restarted:
            own_s3_server.kill()
            own_s3_server.start()
            restarted.append(progress.done)

    score(photos, bucket.url("p.parquet"), options(toy_model), on_progress=restart)
    score(photos, tmp_path / "p.parquet", options(toy_model))
    assert restarted
    assert read(bucket) == local(tmp_path)


def test_a_lost_server_ends_the_run_and_the_next_run_continues(tmp_path, own_s3_server, photos, toy_model, monkeypatch):
    monkeypatch.setattr("batchland.system.filesystems.PATIENCE_SECONDS", 0.0)
    bucket = new_bucket(own_s3_server, monkeypatch)

    def kill(progress):
        if progress.done >= 24:
            own_s3_server.kill()

    with pytest.raises(OutputError) as caught:
        score(photos, bucket.url("p.parquet"), options(toy_model, part_size=8), on_progress=kill)
    message = str(caught.value)
    assert message.startswith(f"s3://{bucket.name}/p.parquet: cannot be written (AWS Error NETWORK_CONNECTION")
    assert message.endswith("finished parts are kept: fix this, then run the same command again to continue")
    own_s3_server.start()
    assert score(photos, bucket.url("p.parquet"), options(toy_model, part_size=8)).manifest.resumed_images > 0
    score(photos, tmp_path / "p.parquet", options(toy_model, part_size=8))
    assert read(bucket) == local(tmp_path)


def test_an_unwritable_output_is_an_error_before_scoring(bucket, photos, toy_model, monkeypatch):
    with pytest.raises(UsageError, match=r"^s3://no-such-bucket/p.parquet: there is no such bucket; check its name"):
        score(photos, "s3://no-such-bucket/p.parquet", options(toy_model))
    with pytest.raises(UsageError, match=r"is a whole bucket; give a name within it, like s3://\S+/preds.parquet"):
        score(photos, bucket.url(), options(toy_model))
    secret = "very-secret"
    with pytest.raises(UsageError, match=r"^s3://\S+/p.parquet: access is refused \(AWS Error SIGNATURE") as caught:
        score(photos, f"s3://test-key:{secret}@{bucket.name}/p.parquet", options(toy_model))
    assert secret not in str(caught.value)
    assert listed(bucket) == []


def test_the_score_command_accepts_urls(bucket, photos, toy_model):
    arguments = ["score", str(photos), "--out", bucket.url("a b.parquet"), "--model", str(toy_model)]
    result = batchland(*arguments, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    url = f"s3://{bucket.name}/a b"
    assert result.stdout.endswith(f"Predictions: {url}.parquet; manifest: {url}.manifest.json.\n")
    result = batchland(*arguments, "--device", "cpu")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"batchland: {url}.parquet: exists already; --overwrite replaces it\n")


def test_credentials_in_the_url_are_written_nowhere(bucket, photos, toy_model, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    url = f"s3://test-key:test%2Fsecret%2Bkey@{bucket.name}/p.parquet"
    summary = score(photos, url, options(toy_model))
    assert summary.manifest.config["out"] == str(summary.out) == f"s3://{bucket.name}/p.parquet"
    for name in listed(bucket):
        assert b"secret" not in (bucket.folder / name).read_bytes()


def test_images_and_output_both_in_the_store(tmp_path, bucket, photos, toy_model):
    for path in photos.rglob("*.jpg"):
        (bucket.folder / path.relative_to(photos.parent)).parent.mkdir(parents=True, exist_ok=True)
        (bucket.folder / path.relative_to(photos.parent)).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"lies inside the images to score$"):
        score(bucket.url("photos"), bucket.url("photos/p.parquet"), options(toy_model))
    pq.write_table(pa.table({"image": [picture()]}), bucket.folder / "table.parquet")
    with pytest.raises(UsageError, match=r"table.parquet: would replace s3://.*/table.parquet, which is an input$"):
        score(bucket.url("table.parquet"), bucket.url("table.parquet"), options(toy_model, overwrite=True))
    score(bucket.url("photos"), bucket.url("p.parquet"), options(toy_model))
    score(photos, tmp_path / "p.parquet", options(toy_model))
    columns = ["image", "status", "error_code", "top_k", "width", "height", "file_size"]
    assert pq.read_table(bucket.folder / "p.parquet", columns=columns) == pq.read_table(
        tmp_path / "p.parquet", columns=columns
    )


def test_a_file_url_is_a_path(tmp_path, photos, toy_model):
    summary = score(photos, f"file://{tmp_path}/a%20b/p.parquet", options(toy_model))
    assert summary.out == tmp_path / "a b" / "p.parquet"
    assert sorted(os.listdir(tmp_path / "a b")) == ["p.manifest.json", "p.parquet"]


def test_predictions_in_the_store_are_evaluated(tmp_path, bucket, colour_folders, toy_model):
    for name in NAMES:
        score(colour_folders, bucket.url(name), options(toy_model))
        summary = evaluate(bucket.url(name), colour_folders).summary
        assert summary.predictions == f"s3://{bucket.name}/{name}"
        assert summary.figures.top1.value == 1.0
    (bucket.folder / "job").mkdir()
    shutil.copytree(bucket.folder / "p", bucket.folder / "job" / "date=2026-11-23")
    (bucket.folder / "p" / "_manifest.json").unlink()
    for name, message in (
        ("p", "holds no _manifest.json"),
        ("none", "does not exist"),
        ("job", "holds the partitions of a job, .*; give one, like date=2026-11-23"),
    ):
        with pytest.raises(UsageError, match=rf"^{bucket.url(name)}: {message}"):
            evaluate(bucket.url(name), colour_folders)


@pytest.mark.slow
def test_a_finished_shard_in_an_object_store_is_not_scored_again(bucket, photos, toy_model):
    shard = options(toy_model, shard=Shard(index=0, count=2))
    first = score(photos, bucket.url("all"), shard)
    assert "all/shard-00000-of-00002/_manifest.json" in listed(bucket)
    again = score(photos, bucket.url("all"), shard)
    assert again.done_before
    assert again.manifest == first.manifest


def test_shards_are_merged_from_a_local_folder_into_the_store(tmp_path, bucket, photos, toy_model):
    for index in range(2):
        score(photos, tmp_path / "all", options(toy_model, shard=Shard(index=index, count=2)))
    summary = merge(tmp_path / "all", bucket.url("p.parquet"))
    score(photos, tmp_path / "whole" / "p.parquet", options(toy_model))
    assert read(bucket) == local(tmp_path / "whole")
    assert str(summary.manifest_path) == f"s3://{bucket.name}/p.manifest.json"


def test_shards_are_merged_from_the_store(tmp_path, bucket, photos, toy_model):
    """`test_plan.py` scores shards into a store; here they are copied, which is faster: see s3_server."""
    score(photos, tmp_path / "all", options(toy_model, shard=Shard(index=0, count=2)))
    shutil.copytree(tmp_path / "all", bucket.folder / "all")
    with pytest.raises(MissingInputError, match=rf"^{bucket.url('all')}: shard 1 of 2 is missing"):
        merge(bucket.url("all"), tmp_path / "p.parquet")
    score(photos, tmp_path / "all", options(toy_model, shard=Shard(index=1, count=2)))
    shutil.copytree(tmp_path / "all", bucket.folder / "all", dirs_exist_ok=True)
    merge(bucket.url("all"), tmp_path / "p.parquet")
    merge(bucket.url("all"), bucket.url("far.parquet"))
    score(photos, tmp_path / "whole.parquet", options(toy_model))
    expected = (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "p.parquet").read_bytes() == (bucket.folder / "far.parquet").read_bytes() == expected
    part = next((bucket.folder / "all" / "shard-00001-of-00002").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UsageError, match=rf"^{bucket.url('all')}/shard-00001-of-00002: is damaged"):
        merge(bucket.url("all"), tmp_path / "q.parquet")


def test_files_are_renamed_into_place_where_unfinished_files_are_visible(tmp_path):
    """As on HDFS; tested on the local file system."""
    from pyarrow.fs import LocalFileSystem

    objects = Objects(OpenUrl(LocalFileSystem(), str(tmp_path), "local"))
    target = PurePosixPath(tmp_path) / "p.parquet"
    objects.put(target, b"old")
    Upload(objects, target).abandon()
    with Upload(objects, target) as upload:
        upload.write(b"new")
        upload.flush()
        assert Path(target).read_bytes() == b"old"
    assert Path(target).read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["p.parquet"]

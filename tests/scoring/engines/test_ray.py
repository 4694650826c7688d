"""Ray writes the same file as the local engine, whichever process is killed, and leaves no process behind."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import forks
import pyarrow.parquet as pq
import pytest
from commands import batchland
from toys import COLOURS, contents, options, picture, toy_card, write_toy_model

from batchland import Shard, merge, score
from batchland.errors import EngineError, ModelError, TimeLimitError, UsageError
from batchland.images.sources.refs import ImageRef
from batchland.images.sources.web import WebImages
from batchland.predictions.layout import manifest_path
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import Manifest
from batchland.scoring.engines.engine import Part
from batchland.scoring.engines.ray.cluster_plan import ClusterPlan
from batchland.scoring.engines.ray.engine import _again
from batchland.scoring.engines.ray.shared_images import KnownImage
from batchland.scoring.engines.ray.start import start_ray
from batchland.scoring.engines.ray.worker import StoredContent
from batchland.scoring.plan.write import make_plan

DECODER = """
import ctypes, os, signal, time
import simplejpeg
decode = simplejpeg.decode_jpeg
def evil(data, **options):
    time.sleep(SECONDS)
    if b"crash" in data:
        ctypes.string_at(0)
    if b"killed" in data:  # as the kernel does when memory is short
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return decode(data, **options)
simplejpeg.decode_jpeg = evil
"""
"""It crashes on certain JPEG files, for real, and takes its time."""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the processes of a test, each of which is gone when it ends."""
    mark = f"BATCHLAND_TEST={uuid4()}"
    yield os.environ | dict([mark.split("=")])
    until = time.monotonic() + 60
    while alive := [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in read(path)]:
        assert time.monotonic() < until, [read(Path("/proc", pid, "cmdline")) for pid in alive]
        time.sleep(0.2)


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def decoder(folder: Path, seconds: float = 0.0) -> dict[str, str]:
    """Environment in which each Python process has that decoder."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DECODER.replace("SECONDS", str(seconds)))
    return {"PYTHONPATH": str(folder)}


def command(images: Path, out: Path, model: Path, *more: str) -> list[str]:
    given = ["--out", out, "--model", model, "--batch-size", 4, "--part-size", 16, "--device", "cpu", *more]
    return [sys.executable, "-m", "batchland", "score", *map(str, [images, *given])]


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=280, check=False)


def manifest(out: Path) -> Manifest:
    return Manifest.model_validate_json(manifest_path(out).read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def locally(photos: Path, out: Path, model: Path) -> bytes:
    score(photos, out, options(model, device="cpu"))
    return out.read_bytes()


def test_both_engines_write_the_same_file_and_resume_each_other(tmp_path, photos, environment):
    """A run of the local engine stops at its time limit, and Ray continues it. Some images are broken."""
    model = write_toy_model(tmp_path / "toy.onnx", toy_card().model_copy(update={"features": 3}))
    given = options(model, device="cpu", features=True)
    score(photos, tmp_path / "local.parquet", given)
    expected = (tmp_path / "local.parquet").read_bytes()
    out = tmp_path / "p.parquet"
    with pytest.raises(TimeLimitError):
        score(photos, out, given.model_copy(update={"time_limit": 1e-9}))
    result = run(command(photos, out, model, "--engine", "ray", "--features"), environment)
    assert result.returncode == 0, result.stderr
    assert out.read_bytes() == expected
    found = manifest(out)
    assert (found.config["engine"], found.resumed_images, found.counts.failed_by_code) == ("ray", 4, {"truncated": 6})
    assert found.seconds.decode > 0
    assert found.seconds.infer > 0
    assert result.stdout.startswith(f"Scored 60 images of {photos} (4 of them by an earlier run) with toy on cpu ")
    said = [line.split(" INFO ")[1] for line in result.stderr.splitlines()]
    assert [line for line in said if not line.endswith("images/s")] == [f"model: {model}"]  # nothing of Ray's
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_an_image_that_kills_its_decoder_fails_and_no_other_does(tmp_path, toy_model, environment):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(24):
        data = picture(list(COLOURS.values())[number % 3])
        (photos / f"{number:02}.jpg").write_bytes(data + {5: b"crash", 14: b"killed"}.get(number, b""))
    out = tmp_path / "p.parquet"
    arguments = command(photos, out, toy_model, "--engine", "ray", "--max-failed", "1")
    result = run(arguments, environment | decoder(tmp_path / "evil"))
    assert result.returncode == 3, result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        "batchland: 2 of 24 images failed (crashed 2), more than max-failed"
    )
    rows = pq.read_table(out).to_pylist()
    assert [row["image"] for row in rows] == [f"{number:02}.jpg" for number in range(24)]
    assert {row["image"]: (row["error_code"], row["error_message"]) for row in rows if row["status"] == "failed"} == {
        "05.jpg": ("crashed", "its decoder was killed by SIGSEGV"),
        "14.jpg": ("crashed", "its decoder was killed by SIGKILL"),
    }
    labels = ["Red Tower", "Green Hill", "Blue Lake"]
    assert all(row["label"] == labels[number % 3] for number, row in enumerate(rows) if row["status"] == "ok")


@pytest.mark.slow
@pytest.mark.parametrize(("send", "signum"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)])
def test_an_interrupted_run_keeps_its_rows_and_the_local_engine_resumes_it(
    tmp_path, photos, toy_model, environment, send, signum
):
    """SIGTERM to the process, SIGINT to its whole group as a terminal sends it."""
    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    out = tmp_path / "p.parquet"
    slow = environment | decoder(tmp_path / "slow", 0.2)
    arguments = command(photos, out, toy_model, "--engine", "ray", "--num-workers", "1")
    with subprocess.Popen(arguments, env=slow, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        wait_for(lambda: (tmp_path / ".p.parquet.parts" / "part-000000.parquet").exists())
        send(running.pid, signum)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + signum, errors
    last = errors.splitlines()[-1]
    assert last.startswith(f"batchland: {out}: stopped after ")
    assert last.endswith(" images; run the same command again to resume")
    assert "Traceback" not in errors
    resumed = score(photos, out, options(toy_model, device="cpu"))
    assert f"stopped after {resumed.manifest.resumed_images} images" in last
    assert 0 < resumed.manifest.resumed_images < 60
    assert out.read_bytes() == expected


@pytest.mark.slow
def test_a_killed_driver_is_resumed(tmp_path, photos, toy_model, environment):
    """By SIGKILL; Ray's processes end by themselves, and the same command goes on."""
    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    out = tmp_path / "p.parquet"
    slow = environment | decoder(tmp_path / "slow", 0.2)
    with subprocess.Popen(
        command(photos, out, toy_model, "--engine", "ray", "--num-workers", "1"), env=slow
    ) as running:
        wait_for(lambda: (tmp_path / ".p.parquet.parts" / "part-000001.parquet").exists())
        running.kill()
    result = run(command(photos, out, toy_model, "--engine", "ray"), environment)
    assert result.returncode == 0, result.stderr
    assert 16 <= manifest(out).resumed_images < 60
    assert out.read_bytes() == expected


@pytest.mark.slow
def test_a_lost_node_loses_no_row(tmp_path, photos, toy_model, environment, monkeypatch):
    """Two nodes and the driver's, which has no cores. One is killed when some parts are done."""
    from ray.cluster_utils import Cluster

    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    for name, value in (environment | decoder(tmp_path / "slow", 0.2)).items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "p.parquet"
    small = {"include_dashboard": False, "object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        nodes = [cluster.add_node(num_cpus=2, object_store_memory=100 * 1024**2) for _ in range(2)]
        arguments = command(photos, out, toy_model, "--engine", "ray", "--ray-address", cluster.address)
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            wait_for(lambda: (tmp_path / ".p.parquet.parts" / "part-000001.parquet").exists())
            cluster.remove_node(nodes[0], allow_graceful=False)
            summary, errors = running.communicate(timeout=250)
    finally:
        cluster.shutdown()
    assert running.returncode == 0, errors
    assert "Traceback" not in errors
    assert out.read_bytes() == expected
    assert summary.startswith(f"Scored 60 images of {photos} with toy on cpu ")
    assert manifest(out).resumed_images == 0


RAY_OF_A_PROGRAM = """
import sys
import ray
from batchland import ScoreOptions, score
images, out, model = sys.argv[1:]
ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
score(images, out, ScoreOptions(model=model, batch_size=4, part_size=16, device="cpu", engine="ray"))
assert ray.is_initialized()
ray.shutdown()
"""


@pytest.mark.slow
def test_workers_write_the_files_of_a_folder_and_the_ray_of_a_program_is_left_running(
    tmp_path, photos, toy_model, environment
):
    score(photos, tmp_path / "local", options(toy_model, device="cpu"))
    result = run([sys.executable, "-c", RAY_OF_A_PROGRAM, *map(str, [photos, tmp_path / "p", toy_model])], environment)
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "p") == contents(tmp_path / "local")
    found, expected = (StoredPredictions(tmp_path / name).manifest() for name in ("p", "local"))
    assert found.model_dump(include={"files", "run_id", "counts"}) == expected.model_dump(
        include={"files", "run_id", "counts"}
    )


@pytest.mark.slow
def test_failed_rows_are_scored_again_by_ray_and_good_ones_kept(tmp_path, photos, toy_model, environment):
    out = tmp_path / "p.parquet"
    locally(photos, out, toy_model)
    for number in (7, 17, 57):
        data = picture(list(COLOURS.values())[number % 3])
        (photos / f"camera-{number // 20}" / f"{number:03}.jpg").write_bytes(data)
    result = run(command(photos, out, toy_model, "--engine", "ray", "--retry-failed"), environment)
    assert result.returncode == 0, result.stderr
    assert (manifest(out).counts.failed, manifest(out).kept_images) == (3, 54)
    assert out.read_bytes() == locally(photos, tmp_path / "local.parquet", toy_model)


@pytest.mark.slow
def test_shards_and_object_stores_by_ray(tmp_path, photos, toy_model, bucket, environment):
    """Two shards of a bucket, one by each engine, into a bucket; merged they are what one process writes."""
    shutil.copytree(photos, bucket.folder / "photos")
    where, shards = bucket.url("photos"), bucket.url("shards")
    score(where, shards, options(toy_model, device="cpu", shard=Shard(index=0, count=2)))
    result = run(command(where, shards, toy_model, "--engine", "ray", "--shard", "1/2"), environment)
    assert result.returncode == 0, result.stderr
    merge(bucket.folder / "shards", tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == locally(where, tmp_path / "local.parquet", toy_model)


@pytest.mark.slow
def test_known_rows_are_reused_by_ray(tmp_path, photos, toy_model, environment):
    """The rows of a third of the images are known; the workers score the others."""
    (tmp_path / "night before").mkdir()
    for number in (21, 24, 30):  # of the first of three colours
        shutil.copyfile(photos / "camera-1" / f"{number:03}.jpg", tmp_path / "night before" / f"{number}.jpg")
    score(tmp_path / "night before", tmp_path / "before.parquet", options(toy_model, device="cpu"))
    out = tmp_path / "p.parquet"
    given = ("--engine", "ray", "--reuse", str(tmp_path / "before.parquet"))
    result = run(command(photos, out, toy_model, *given), environment)
    assert result.returncode == 0, result.stderr
    assert out.read_bytes() == locally(photos, tmp_path / "local.parquet", toy_model)
    assert manifest(out).reused_images == 18


@pytest.mark.slow
def test_workers_read_their_ranges_of_a_plan(tmp_path, photos, toy_model, environment):
    """The plan's images, and a shard of it; the driver lists nothing."""
    make_plan(photos, tmp_path / "plan")
    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    for out, more in (("p.parquet", ()), ("shards", ("--shard", "0/2"))):
        arguments = command(photos, tmp_path / out, toy_model, "--engine", "ray", "--plan", str(tmp_path / "plan"))
        result = run([*arguments, *more], environment)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "p.parquet").read_bytes() == expected
    given = options(toy_model, device="cpu", plan=str(tmp_path / "plan"), shard=Shard(index=1, count=2))
    score(None, tmp_path / "shards", given)
    merge(tmp_path / "shards", tmp_path / "merged.parquet")
    assert (tmp_path / "merged.parquet").read_bytes() == expected


WITHOUT_A_MOUNT = """
import os, sys
if sys.argv[0].endswith("default_worker.py") or "ray::" in sys.argv[0]:
    opened = os.open
    def missing(path, *arguments, **options):
        if b"/photos/" in os.fsencode(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return opened(path, *arguments, **options)
    os.open = missing
"""


@pytest.mark.slow
@pytest.mark.parametrize("planned", [False, True])
def test_a_worker_that_does_not_see_the_images_is_one_error(tmp_path, photos, toy_model, environment, planned):
    """Its rows were `vanished`, and the run a good one."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_A_MOUNT)
    arguments = command(photos, tmp_path / "p.parquet", toy_model, "--engine", "ray")
    if planned:
        make_plan(photos, tmp_path / "plan")
        arguments += ["--plan", str(tmp_path / "plan")]
    result = run(arguments, environment | {"PYTHONPATH": str(tmp_path / "site")})
    name = min(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        2,
        f"batchland: node {socket.gethostname()} of the Ray cluster does not read {name} as the driver does (vanished: "
        "No such file or directory): its workers read the images; give a folder that all nodes share, or a URL",
    )
    assert not (tmp_path / "p.parquet").exists()


def test_a_node_must_read_the_images_as_the_driver_does(tmp_path):
    image, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    other.write_bytes(b"two")
    entries = [ImageRef(path.name, os.fsencode(path)) for path in (image, other)]
    known = KnownImage.among(entries)
    assert known == (entries[1], hashlib.sha256(b"two").hexdigest())
    known.check()
    other.write_bytes(b"2")
    node = f"node {socket.gethostname()} of the Ray cluster does not read b.jpg as the driver does"
    rest = "its workers read the images; give a folder that all nodes share, or a URL"
    with pytest.raises(UsageError) as caught:
        known.check()
    assert str(caught.value) == f"{node} (it has other content there): {rest}"
    other.unlink()
    with pytest.raises(UsageError) as caught:
        known.check()
    assert str(caught.value) == f"{node} (vanished: No such file or directory): {rest}"
    assert KnownImage.among([*entries, WebImages().ref("http://127.0.0.1:9/a.jpg")]) is None


def test_ray_that_does_not_start_is_an_error_of_one_line_after_a_second_try():
    tried = []

    def init(address: str, **settings: Any) -> None:
        tried.append((address, settings["_temp_dir"]))
        raise Exception("The current node timed out during startup.\nThis could happen because the raylet failed.")

    with ExitStack() as stack, pytest.raises(EngineError) as caught:
        start_ray(stack, "local", gpus=False, init=init)
    assert str(caught.value) == (
        "Ray cannot be started here: The current node timed out during startup; run the command again when the machine "
        "is less busy"
    )
    assert caught.value.exit_code == 69
    assert [address for address, _ in tried] == ["local", "local"]
    assert not any(Path(folder).exists() for _, folder in tried)


def test_a_slow_first_start_is_tried_again():
    tried = []

    def init(address: str, **settings: Any) -> None:
        tried.append(address)
        if len(tried) == 1:
            raise Exception("The current node timed out during startup.")

    with ExitStack() as stack:
        assert start_ray(stack, "local", gpus=False, init=init)
    assert len(tried) == 2


def test_a_worker_here_reads_the_file_unless_it_was_changed(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    stored = StoredContent(hashlib.sha256(b"model").hexdigest(), path)
    assert stored.read() == b"model"
    path.write_bytes(b"other")
    with pytest.raises(ModelError, match="was changed while the run started; run again"):
        stored.read()


def test_without_the_ray_extra_the_error_says_what_to_install(tmp_path, photos, toy_model):
    arguments = command(photos, tmp_path / "p.parquet", toy_model, "--engine", "ray")[3:]
    code = f"import sys; sys.modules['ray'] = None; from batchland.cli.main import main; main({arguments!r})"
    result = forks.run([sys.executable, "-c", code])
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "batchland: engine ray needs ray; install with `pip install 'batchland[ray]'`"
    )


@pytest.mark.parametrize(
    ("more", "exit_code", "says"),
    [
        (["--ray-address", "ray://head:10001"], 2, "run on a machine of the cluster, with HOST:PORT or auto"),
        (["--device", "cuda:1"], 5, "Ray assigns GPUs to workers by itself; use device cuda"),
        (["--ray-address", "127.0.0.1:1"], 69, "cannot be used: Connection refused; see `ray status` there"),
    ],
)
def test_options_that_ray_cannot_serve_are_refused_at_once(tmp_path, photos, toy_model, more, exit_code, says):
    out = tmp_path / "p.parquet"
    result = batchland(*command(photos, out, toy_model, "--engine", "ray", *more)[3:])
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.splitlines()[-1].endswith(says)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_device_cuda_on_a_cluster_without_gpus_is_an_error_of_one_line(
    tmp_path, photos, toy_model, environment, device
):
    arguments = command(photos, tmp_path / "p.parquet", toy_model, "--engine", "ray", "--device", device)
    result = run(arguments, environment)
    assert (result.returncode, result.stdout) == (5, "")
    assert result.stderr.splitlines()[1:] == [
        f"batchland: device {device} cannot be used here: the Ray cluster has no GPUs; or use --device cpu"
    ]


@pytest.mark.parametrize(
    ("nodes", "on_gpus", "plan"),
    [
        ([{"CPU": 2.0}], False, ClusterPlan(1, 2, 2, 0)),
        ([{"CPU": 64.0}], False, ClusterPlan(4, 16, 16, 0)),
        ([{"CPU": 4.0}, {"CPU": 8.0}, {"memory": 1.0}], False, ClusterPlan(3, 4, 4, 0)),
        ([{"CPU": 1.0}], False, ClusterPlan(1, 1, 1, 0)),
        ([{"CPU": 0.0, "GPU": 1.0}], True, ClusterPlan(1, 1, 0, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 32.0, "GPU": 2.0}, {"CPU": 64.0}], True, ClusterPlan(4, 8, 8, 1)),
    ],
)
def test_workers_divide_cores_and_gpus(nodes, on_gpus, plan):
    assert ClusterPlan.of(nodes, on_gpus=on_gpus) == plan


def test_a_part_whose_worker_died_is_decoded_in_subprocesses_unless_its_node_was_lost():
    part = Part(3, [ImageRef("a.jpg", b"a.jpg")])
    assert _again(part, node_is_alive=False) == part._replace(losses=1)
    assert _again(part, node_is_alive=True) == part._replace(losses=1, isolated=True)
    with pytest.raises(EngineError, match=r"11 workers in a row were lost over the part from a\.jpg to a\.jpg"):
        _again(part._replace(losses=10), node_is_alive=False)

"""The Ray engine writes the same file as the local engine, whatever dies on the way, and leaves no process behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from toys import COLOURS, options, picture

from batchland import ScoreOptions, score
from batchland.errors import TimeLimitError
from batchland.images.sources.refs import ImageRef
from batchland.predictions.layout import manifest_path
from batchland.predictions.schema import Manifest
from batchland.scoring.engines.ray.batch_queue import BatchQueue
from batchland.scoring.engines.ray.cluster_plan import ClusterPlan

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
    until = time.monotonic() + 20
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
    given = ["--out", out, "--model", model, "--batch-size", 4, "--part-size", 8, "--device", "cpu", *more]
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


def test_both_engines_write_the_same_file_and_resume_each_other(tmp_path, photos, toy_model, environment):
    """A run of the local engine stops at its time limit, and Ray continues it. Some images are broken."""
    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    out = tmp_path / "p.parquet"
    with pytest.raises(TimeLimitError):
        score(photos, out, options(toy_model, device="cpu", time_limit=1e-9))
    result = run(command(photos, out, toy_model, "--engine", "ray"), environment)
    assert result.returncode == 0, result.stderr
    assert out.read_bytes() == expected
    found = manifest(out)
    assert (found.config["engine"], found.resumed_images, found.counts.failed_by_code) == ("ray", 4, {"truncated": 6})
    assert found.seconds.decode > 0
    assert found.seconds.infer > 0
    assert result.stdout.startswith(f"Scored 60 images of {photos}, 4 of them by an earlier run with toy on cpu ")
    said = [line.split(" INFO ")[1] for line in result.stderr.splitlines()]
    assert [line for line in said if not line.endswith("images/s")] == [f"model: {toy_model}"]  # nothing of Ray's
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
    assert 8 <= resumed.manifest.resumed_images < 60
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


WINDOWS_ON_THE_PROGRAMS_RAY = """
import sys
import ray
from batchland import ScoreOptions, score
from batchland.scoring.engines.ray import engine
engine.WINDOW = 6
images, out, model = sys.argv[1:]
ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
score(images, out, ScoreOptions(model=model, batch_size=4, part_size=8, device="cpu", engine="ray"))
assert ray.is_initialized()
ray.shutdown()
"""


@pytest.mark.slow
def test_windows_follow_each_other_and_the_ray_of_a_program_is_left_running(tmp_path, photos, toy_model, environment):
    """Fifteen batches in executions of six, six and three."""
    expected = locally(photos, tmp_path / "local.parquet", toy_model)
    out = tmp_path / "p.parquet"
    result = run([sys.executable, "-c", WINDOWS_ON_THE_PROGRAMS_RAY, *map(str, [photos, out, toy_model])], environment)
    assert result.returncode == 0, result.stderr
    assert out.read_bytes() == expected


def test_without_the_ray_extra_the_error_says_what_to_install(tmp_path, photos, toy_model):
    arguments = command(photos, tmp_path / "p.parquet", toy_model, "--engine", "ray")[3:]
    code = f"import sys; sys.modules['ray'] = None; from batchland.cli.main import main; main({arguments!r})"
    result = run([sys.executable, "-c", code], dict(os.environ))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "batchland: engine ray needs ray; install with `pip install 'batchland[ray]'`"
    )


@pytest.mark.parametrize(
    ("more", "exit_code", "says"),
    [
        (["--ray-address", "ray://head:10001"], 2, "run on a machine of the cluster, with HOST:PORT or auto"),
        (["--device", "cuda:1"], 5, "Ray assigns GPUs to sessions by itself; use device cuda"),
        (["--ray-address", "127.0.0.1:1"], 69, "cannot be used: Connection refused; see `ray status` there"),
    ],
)
def test_options_that_ray_cannot_serve_are_refused_at_once(
    tmp_path, photos, toy_model, environment, more, exit_code, says
):
    out = tmp_path / "p.parquet"
    result = run(command(photos, out, toy_model, "--engine", "ray", *more), environment)
    assert (result.returncode, result.stdout) == (exit_code, "")
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
    ("cores", "gpus", "given", "plan", "ahead"),
    [
        ([2.0], 0, {}, ClusterPlan(2, 0.5, 1, 0.01, 0, 2, 1), 8),
        ([64.0], 0, {}, ClusterPlan(64, 0.5, 4, 0.01, 0, 4, 4), 160),
        ([4.0, 8.0], 0, {}, ClusterPlan(12, 0.5, 3, 0.01, 0, 4, 1), 48),
        ([2.0], 0, {"num_workers": 8, "intra_op_threads": 2}, ClusterPlan(8, 0.125, 1, 0.01, 0, 1, 2), 18),
        ([1.0], 0, {}, ClusterPlan(1, 0.5, 1, 0.01, 0, 1, 1), 4),
        ([16.0, 16.0], 4, {}, ClusterPlan(32, 1.0, 4, 0.0, 1, 2, 4), 80),
    ],
)
def test_half_of_the_cores_decode_without_gpus_and_all_of_them_with_gpus(cores, gpus, given, plan, ahead):
    found = ClusterPlan.of(cores, gpus, ScoreOptions(**given))
    assert found == plan
    assert found.ahead(2) == ahead
    assert found.decoders * found.decoder_cpus + found.sessions * found.session_cpus <= sum(cores)


def test_the_queue_returns_a_lost_batch_again_and_holds_later_ones_back():
    one, two = [[ImageRef(name, name.encode())] for name in "ab"]

    async def story() -> None:
        queue = BatchQueue([one, two], ahead=1)
        assert [await queue.take(0), await queue.take(0)] == [(one, 0), (one, 1)]
        early = asyncio.create_task(queue.take(1))
        await asyncio.sleep(0)
        assert not early.done()
        await queue.remove(0)
        assert await early == (two, 0)

    asyncio.run(story())

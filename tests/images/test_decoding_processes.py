"""Decoding processes: the batches of threads. One that dies is replaced; the image that killed it is a failed row."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toys import COLOURS, contents, options, picture

from batchland import score
from batchland.errors import EngineError, UsageError
from batchland.images.crash_guard import CrashGuard
from batchland.images.decoding_processes import DecodingProcesses, automatic_processes
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef, LocalFiles

SPEC = PreprocessSpec(height=8, width=8, resize="simd")


class OddFiles(LocalFiles):
    """A store that cannot read the file `hanging` and has a bug with `broken`."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return OddFiles, ()

    def read(self, path):
        match Path(os.fsdecode(path)).stem:
            case "hanging":
                time.sleep(30)
            case "broken":
                raise LookupError("a bug")
        return super().read(path)


@pytest.fixture
def photos(tmp_path):
    """Photo i has the colour i modulo 3; number 4 is no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        data = b"text" if number == 4 else picture(list(COLOURS.values())[number % 3], (20 + number, 30))
        (folder / f"{number:02}.jpg").write_bytes(data)
    return folder


def processes(guard: CrashGuard, count: int = 2, **further) -> DecodingProcesses:
    return DecodingProcesses(count, guard, SPEC, 4, cores=2, num_workers=2, **further)


def load(refs, tmp_path, count=2, **further) -> list:
    """All batches by processes: names, pixels and outcomes without times."""
    (tmp_path / "notes").mkdir(exist_ok=True)
    with CrashGuard(tmp_path / "notes", 60) as guard:
        return seen(BatchLoader(refs, SPEC, 4, held=1, later=processes(guard, count, held=1, **further)))


def seen(loader: BatchLoader) -> list:
    return [
        (
            [ref.name for ref in batch.refs],
            batch.pixels.tolist(),
            [outcome._replace(read_seconds=0, decode_seconds=0) for outcome in batch.outcomes],
        )
        for batch in loader
    ]


def renamed(photos: Path, number: int, name: str) -> list[ImageRef]:
    (photos / f"{number:02}.jpg").rename(photos / f"{name}.jpg")
    store = OddFiles()
    return [ref._replace(store=store) for ref in list_images(photos)]


def test_batches_are_those_of_threads(photos, tmp_path):
    refs = list(list_images(photos))
    assert load(refs, tmp_path) == seen(BatchLoader(refs, SPEC, 4))


def test_processes_take_over_after_some_images(photos, tmp_path):
    refs = list(list_images(photos)) * 40
    found = load(refs, tmp_path, images_before_start=16)
    assert found == seen(BatchLoader(refs, SPEC, 4))


@pytest.mark.parametrize(("cores", "count"), [(1, 0), (7, 0), (8, 2), (16, 4), (18, 5)])
def test_number_of_processes_depends_on_the_cores(cores, count):
    assert automatic_processes(cores) == count


def test_image_that_kills_its_process_is_a_failed_row_of_the_same_run(
    photos, tmp_path, toy_model, evil_decoder, caplog
):
    settings = options(toy_model)
    score(photos, tmp_path / "good.parquet", settings)
    (photos / "13.jpg").write_bytes(picture() + b"crash")
    score(photos, tmp_path / "p.parquet", settings.model_copy(update={"decode_processes": 2}))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    crashed = rows.pop(13)
    expected = pq.read_table(tmp_path / "good.parquet").to_pylist()
    del expected[13]
    assert rows == expected
    assert (crashed["image"], crashed["error_code"]) == ("13.jpg", "crashed")
    assert crashed["error_message"] == "its decoder was killed by SIGSEGV"
    assert caplog.messages[0].startswith("a process that decodes images died; the ")


def test_predictions_are_byte_for_byte_those_of_threads(photos, tmp_path, toy_model):
    score(photos, tmp_path / "a" / "p.parquet", options(toy_model))
    score(photos, tmp_path / "b" / "p.parquet", options(toy_model, decode_processes=2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_processes_end_when_the_run_is_killed(photos, tmp_path):
    code = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import test_decoding_processes as test
from pathlib import Path
guard = test.CrashGuard(Path({str(tmp_path)!r}), 60).__enter__()
decoders = test.processes(guard)
decoders.take_over(0)
decoders.finish(decoders.start(list(test.list_images(Path({str(photos)!r})))[:4], 0))
print(*(each.helper._process.pid for each in decoders._processes), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    children = list(map(int, parent.stdout.readline().split()))
    assert len(children) == 2
    assert all(map(is_running, children))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, children))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_bug_in_a_process_is_raised(photos, tmp_path):
    with pytest.raises(RuntimeError, match="LookupError in a process that decodes images: a bug"):
        load(renamed(photos, 13, "broken"), tmp_path, 1)


def test_hanging_images_time_out_in_their_process(photos, tmp_path):
    refs = renamed(photos, 13, "hanging")
    found = load(refs, tmp_path, 1, timeout=0.5)
    failed = {
        name: outcome.error for names, _, outcomes in found for name, outcome in zip(names, outcomes, strict=True)
        if outcome.error
    }  # fmt: skip
    assert failed == {
        "04.jpg": ("not_an_image", "the content is not that of an image file"),
        "hanging.jpg": ("timeout", "not read within 0.5 s"),
    }


def test_processes_that_cannot_be_used_are_an_error(photos, tmp_path, toy_model, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert automatic_processes(16) == 0
    with pytest.raises(UsageError, match="decode_processes needs Linux; leave it out: the threads of one process"):
        score(photos, tmp_path / "p.parquet", options(toy_model, decode_processes=2))
    score(photos, tmp_path / "p.parquet", options(toy_model, decode_processes=0))


def test_processes_that_end_at_once_are_an_error(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("batchland.system.helper_process._CODE", "raise SystemExit('no memory')")
    with pytest.raises(EngineError, match="processes that decode images end by themselves: no memory; finished parts"):
        load(list_images(photos), tmp_path, 1)

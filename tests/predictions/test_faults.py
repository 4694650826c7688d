"""Faults during a run (disks, other runs, models): the error message, the exit code and the remaining files."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import forks
import onnx
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from commands import batchland
from toys import COLOURS, contents, options, picture, toy_card

import batchland.images.crash_guard as suspects_module
from batchland import score
from batchland.errors import Interrupted, OutputError, UsageError
from batchland.images.loader import load_image
from batchland.models.card import METADATA_KEY


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "batchland", "score", *map(str, arguments), "--device", "cpu"]


def run(*arguments: object) -> Result:
    return batchland(*command(*arguments)[3:])


def last_line(result: Result) -> str:
    return result.stderr.splitlines()[-1]


@contextmanager
def mounted(folder: Path, *options: str):
    folder.mkdir()
    mount = subprocess.run(["mount", *options, folder], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"needs the right to mount: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root, to mount")


@needs_root
@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_a_disk_that_fills_up(tmp_path, toy_model, name):
    """A tmpfs of 160 KiB has space for some parts only; it is enlarged step by step."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(300):
        (root / f"{number:03}-{'x' * 200}.jpg").write_bytes(picture(list(COLOURS.values())[number % 3]))
    score(root, tmp_path / "whole" / name, options(toy_model, part_size=8))
    arguments = ("--model", toy_model, "--batch-size", 4, "--part-size", 8)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=160k", "tmpfs") as small:
        out = small / name
        first = run(root, "--out", out, *arguments)
        assert first.exit_code == 74
        assert last_line(first) == (
            f"batchland: {out}: cannot be written (No space left on device); finished parts are kept: free some space, "
            f"then run the same command again to continue"
        )
        assert not out.exists()
        assert os.listdir(small) == [f".{name}.parts"]
        kept = len(list((small / f".{name}.parts").glob("part-*.parquet")))
        assert 0 < kept < 38
        assert not list((small / f".{name}.parts").glob(".*"))
        refused = 1
        for size in (200, 2000):
            subprocess.run(["mount", "-o", f"remount,size={size}k", small], check=True)
            again = run(root, "--out", out, *arguments)
            if again.exit_code == 0:
                break
            assert again.exit_code == 74, again.stderr
            assert not out.exists()
            refused += 1
        assert refused >= 2
        assert "of them by an earlier run" in again.stdout
        assert contents(small) == contents(tmp_path / "whole")


@pytest.mark.parametrize(("name", "overwrite"), [("p.parquet", False), ("p.parquet", True), ("p", False), ("p", True)])
def test_an_output_that_appears_during_a_run_is_not_replaced(tmp_path, photos, toy_model, name, overwrite):
    out, mine = tmp_path / name, tmp_path / (name if name == "p.parquet" else f"{name}/mine.txt")

    def appear(_: object) -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")

    given = options(toy_model, overwrite=overwrite)
    with pytest.raises(UsageError, match="that batchland did not write" if overwrite else "exists already"):
        score(photos, out, given, on_progress=appear)
    assert mine.read_text() == "mine"
    mine.unlink()
    if name == "p":
        out.rmdir()
    again = score(photos, out, given).manifest
    assert again.resumed_images == again.counts.listed


@needs_root
def test_a_folder_that_cannot_be_written(tmp_path, photos, toy_model):
    with mounted(tmp_path / "readonly", "-t", "tmpfs", "-o", "ro", "tmpfs") as readonly:
        for out in (readonly / "p.parquet", readonly / "p", readonly / "new" / "p.parquet"):
            result = run(photos, "--out", out, "--model", toy_model)
            assert result.exit_code == 74
            assert last_line(result) == (
                f"batchland: {out}: cannot be written (Read-only file system); give an output that this user may write"
            )


def test_a_folder_that_this_user_may_not_write(nobody, photos, toy_model):
    (nobody.folder / "in").mkdir()
    (nobody.folder / "in" / "a.jpg").write_bytes(picture())
    (nobody.folder / "toy.onnx").write_bytes(toy_model.read_bytes())
    (nobody.folder / "out").mkdir(0o755)
    with nobody, pytest.raises(OutputError) as caught:
        score(nobody.folder / "in", nobody.folder / "out" / "p.parquet", options(nobody.folder / "toy.onnx"))
    assert str(caught.value).endswith("cannot be written (Permission denied); give an output that this user may write")
    assert os.listdir(nobody.folder / "out") == []


def test_one_of_several_runs_that_start_together_writes_and_the_others_name_it(tmp_path, photos, toy_model):
    out = tmp_path / "out" / "p.parquet"
    runs = [forks.Popen(command(photos, "--out", out, "--model", toy_model)) for _ in range(3)]
    ends = []
    for process in runs:
        _, printed = process.communicate()
        ends.append((process.returncode, printed.splitlines()[-1], process.pid))
    (winner,) = [pid for code, _, pid in ends if code == 0]
    for code, printed, _ in ends:
        if code == 75:
            pattern = (
                rf"batchland: \S+/p\.parquet: another run( \(process {winner} on \S+, since \S+\))? is writing it; .*"
            )
            assert re.fullmatch(pattern, printed)
        elif code != 0:  # it came when the first had finished
            assert (code, printed) == (
                2, f"batchland: {out}: exists already; --overwrite replaces it",
            )  # fmt: skip
    assert pq.read_table(out).num_rows == 60
    assert sorted(os.listdir(out.parent)) == ["p.manifest.json", "p.parquet"]


def test_the_second_of_two_runs_names_the_first(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    refused = []

    def second(progress):
        if not refused:
            arguments = command(photos, "--out", out, "--model", toy_model)
            refused.append(forks.run(arguments))

    score(photos, out, options(toy_model), on_progress=second)
    assert refused[0].returncode == 75
    pattern = rf"batchland: {out}: another run \(process {os.getpid()} on \S+, since \S+\) is writing it; wait for .*"
    assert re.fullmatch(pattern, refused[0].stderr.splitlines()[-1])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_in_good_order(tmp_path, toy_model, signum, code):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(300):
        (root / f"{number:04}.jpg").write_bytes(picture(list(COLOURS.values())[number % 3]))
    out = tmp_path / "out" / "p.parquet"
    arguments = command(root, "--out", out, "--model", toy_model, "--batch-size", 4, "--part-size", 8)
    with forks.Popen(arguments) as process:
        while not (out.parent / ".p.parquet.parts" / "part-000001.parquet").exists():
            time.sleep(0.005)
        process.send_signal(signum)
        _, printed = process.communicate()
    assert process.returncode == code, printed
    stopped = re.fullmatch(rf"batchland: {out}: stopped after (\d+) images; .*", printed.splitlines()[-1])
    assert sorted(os.listdir(out.parent)) == [".p.parquet.parts"]
    again = run(root, "--out", out, "--model", toy_model, "--batch-size", 4, "--part-size", 8)
    assert f"Scored 300 images of {root} ({stopped[1]} of them by an earlier run" in again.stdout


def test_a_signal_is_answered_even_while_images_hang(tmp_path, photos, toy_model, monkeypatch):
    release = threading.Event()

    def hang(ref, spec, decoding):
        if ref.name == "camera-0/009.jpg":
            os.kill(os.getpid(), signal.SIGTERM)
            release.wait()
        return load_image(ref, spec)

    monkeypatch.setattr(suspects_module, "load_image", hang)
    out = tmp_path / "p.parquet"
    with pytest.raises(Interrupted) as caught:
        score(photos, out, options(toy_model), grace_seconds=0.1)
    release.set()
    assert caught.value.exit_code == 143
    kept = int(re.search(r"stopped after (\d+) images", str(caught.value))[1])
    assert kept in (0, 4, 8)
    monkeypatch.undo()
    assert score(photos, out, options(toy_model)).manifest.resumed_images == kept


HANGING_EXIT = """
import sys, threading, time
import batchland.images.crash_guard
from batchland import ScoreOptions, score
from batchland.images.loader import load_image
def hang(ref, spec, decoding):
    if ref.name.endswith("7.jpg"):
        threading.Event().wait()  # for ever
    return load_image(ref, spec)
batchland.images.crash_guard.load_image = hang
images, out, model = sys.argv[1:]
summary = score(images, out, ScoreOptions(model=model, num_workers=2, timeout=0.3))
print(summary.manifest.counts.failed_by_code)
"""


def test_hanging_decoders_fail_only_their_own_images(tmp_path, photos, toy_model):
    arguments = [sys.executable, "-c", HANGING_EXIT, photos, tmp_path / "p.parquet", toy_model]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=True)
    assert result.stdout == "{'timeout': 6}\n"


def refusal_of_model(tmp_path, photos, data: bytes) -> str:
    model = tmp_path / "m.onnx"
    model.write_bytes(data)
    result = run(photos, "--out", tmp_path / "p.parquet", "--model", model)
    assert result.exit_code == 5, result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "p.parquet").exists()
    line = last_line(result)
    assert line.startswith(f"batchland: {model}: ")
    return line.removeprefix(f"batchland: {model}: ")


def test_a_model_that_cannot_be_used_is_exit_code_5_and_a_sentence(tmp_path, photos, toy_model):
    data = toy_model.read_bytes()
    assert refusal_of_model(tmp_path, photos, data[: len(data) // 2]).startswith("onnxruntime cannot load it: ")
    assert refusal_of_model(tmp_path, photos, b"\x89PNG").startswith("onnxruntime cannot load it: ")
    model = onnx.load(toy_model)
    card = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    card.value = toy_card().to_json().replace('"schema_version":1', '"schema_version":2')
    assert refusal_of_model(tmp_path, photos, model.SerializeToString()) == (
        "its card has schema_version 2, this version of batchland reads 1; update batchland, or export the model again"
    )
    card.value = toy_card(size=16).to_json()
    assert "its card asks for images uint8 [batch, 16, 16, 3]" in refusal_of_model(
        tmp_path, photos, model.SerializeToString()
    )
    del model.metadata_props[:]
    assert refusal_of_model(tmp_path, photos, model.SerializeToString()).startswith("has no batchland card")


def test_max_failed_changes_only_the_exit_code(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    for limit, code in (("10%", 0), ("9.99%", 3), ("0", 3)):
        result = run(photos, "--out", out, "--model", toy_model, "--overwrite", "--max-failed", limit)
        assert result.exit_code == code, result.stderr
        assert pq.read_table(out).num_rows == 60
    assert last_line(result) == (
        "batchland: 6 of 60 images failed (truncated 6), more than max-failed 0 allows; the predictions are written, "
        "see the rows with status = 'failed'"
    )

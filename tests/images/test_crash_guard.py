"""An image that kills the process is found by the next run, decoded in a subprocess and becomes a failed row."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import COLOURS, picture

from batchland.errors import EngineError
from batchland.images.batch import Outcome, measured
from batchland.images.crash_guard import CrashGuard
from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.images.subprocess_decode import SubprocessDecoder

SPEC = PreprocessSpec(height=8, width=8)


def evil(what: str) -> bytes:
    return picture() + what.encode()


def run(images, out, model, *more):
    command = [sys.executable, "-m", "batchland", "score", images, "--out", out, "--model", model, *more]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", ["crash", "killed"])
def test_image_that_killed_a_run_is_a_failed_row_of_the_next(tmp_path, toy_model, evil_decoder, what):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        data = evil(what) if number == 5 else picture(list(COLOURS.values())[number % 3])
        (photos / f"{number:02}.jpg").write_bytes(data)
    out = tmp_path / "p.parquet"
    options = ("--batch-size", "4", "--part-size", "4")
    first = run(photos, out, toy_model, *options)
    number = signal.SIGSEGV if what == "crash" else signal.SIGKILL
    assert first.returncode == -number
    assert not out.exists()
    second = run(photos, out, toy_model, *options)
    assert second.returncode == 0, second.stderr
    assert "WARNING the previous run was killed; the " in second.stderr
    assert " being decoded " in second.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["image"] for row in rows] == [f"{number:02}.jpg" for number in range(12)]
    assert [row["image"] for row in rows if row["status"] == "failed"] == ["05.jpg"]
    assert (rows[5]["error_code"], rows[5]["error_message"]) == (
        "crashed", f"its decoder was killed by {number.name}",
    )  # fmt: skip
    assert rows[5]["file_size"] == len(evil(what))
    assert sorted(os.listdir(tmp_path)) == ["evil", "p.manifest.json", "p.parquet", "photos", "toy.onnx"]


def ref_of(tmp_path, data: bytes) -> ImageRef:
    (tmp_path / "a.jpg").write_bytes(data)
    return ImageRef("a.jpg", os.fsencode(tmp_path / "a.jpg"))


def note_suspect(folder, *names: str) -> None:
    """As a killed run leaves its notes."""
    notes = ((len(name[:4094]).to_bytes(2) + name[:4094].encode()).ljust(4096, b"\0") for name in names)
    (folder / "in-hand").write_bytes(b"".join(notes))


def without_times(outcome: Outcome) -> Outcome:
    return outcome._replace(read_seconds=0.0, decode_seconds=0.0)


@pytest.mark.parametrize("data", [picture((200, 10, 99), (300, 200)), b"", b"text", picture()[:300]])
def test_subprocess_gives_the_same_pixels(tmp_path, data):
    ref = ref_of(tmp_path, data)
    with SubprocessDecoder(60, signals=True) as decoder:
        outcome, pixels = decoder.load(ref, SPEC)
    loaded, expected_pixels = load_image(ref, SPEC, partial(decode_image, signals=True))
    (expected,) = measured([loaded])
    assert (expected.signals is None) is (expected_pixels is None)
    assert without_times(outcome) == without_times(expected)
    np.testing.assert_array_equal(pixels, expected_pixels)


def test_subprocess_has_limits_on_memory_and_time(tmp_path, evil_decoder):
    with SubprocessDecoder(0.5) as decoder:
        outcome, _ = decoder.load(ref_of(tmp_path, evil("memory")), SPEC)
        assert outcome.error == ("out_of_memory", "not enough memory to decode it")
        for what in ("sleep", "spin"):  # a decoder that waits, and one that takes CPU time
            outcome, _ = decoder.load(ref_of(tmp_path, evil(what)), SPEC)
            assert outcome.error == ("timeout", "not decoded within 0.5 s")
        outcome, _ = decoder.load(ref_of(tmp_path, evil("crash")), SPEC)
        assert outcome.error == ("crashed", "its decoder was killed by SIGSEGV")
        assert decoder.load(ref_of(tmp_path, picture()), SPEC)[0].error is None


def test_a_killed_subprocess_is_replaced(tmp_path):
    with SubprocessDecoder(60) as decoder:
        assert decoder.load(ref_of(tmp_path, picture()), SPEC)[0].error is None
        (process,) = decoder._idle
        process._process.kill()
        process._process.wait()
        assert decoder.load(ref_of(tmp_path, picture()), SPEC)[0].error is None


def test_many_threads_share_the_subprocesses(tmp_path):
    refs = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture((number, number, number), kind="PNG"))
        refs.append(ImageRef(path.name, os.fsencode(path)))
    with SubprocessDecoder(60) as decoder, ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda ref: decoder.load(ref, SPEC), refs))
    assert [int(pixels.max()) for _, pixels in loaded] == list(range(40))


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_a_subprocess_that_does_not_start_is_a_clear_error_for_a_suspect(tmp_path, monkeypatch, executable):
    """Images that are only slow are then decoded in this process."""
    monkeypatch.setattr(sys, "executable", executable)
    ref = ref_of(tmp_path, picture())
    note_suspect(tmp_path, "a.jpg")
    with CrashGuard(tmp_path, 60) as guard:
        with pytest.raises(EngineError) as caught:
            guard.load(ref, SPEC)
        reason = "No such file or directory" if "nowhere" in executable else "it ended without a message"
        expected = f"the subprocess that decodes images cannot be started: {reason}; run the command again"
        assert (str(caught.value), caught.value.exit_code) == (expected, 69)
        (tmp_path / "b.jpg").write_bytes(picture())
        outcome, pixels = guard.load_isolated(ImageRef("b.jpg", os.fsencode(tmp_path / "b.jpg")), SPEC)
        assert (outcome.error, pixels.shape) == (None, SPEC.shape)


def test_a_subprocess_that_cannot_import_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with SubprocessDecoder(60) as decoder, pytest.raises(EngineError, match="ModuleNotFoundError"):
        decoder.load(ref_of(tmp_path, picture()), SPEC)


def test_only_images_being_loaded_are_noted(tmp_path, monkeypatch):
    ref = ref_of(tmp_path, picture())
    seen = []

    def load(ref, spec, decoding):
        seen.append((tmp_path / "in-hand").read_bytes())
        return Outcome(), None

    monkeypatch.setattr("batchland.images.crash_guard.load_image", load)
    with CrashGuard(tmp_path, 60) as suspects:
        suspects.load(ref, SPEC)
        assert seen == [b"\0\x05a.jpg"]
        assert (tmp_path / "in-hand").read_bytes() == b"\0\0a.jpg"
    assert not (tmp_path / "in-hand").exists()


def test_suspects_are_kept_until_they_load_well(tmp_path, monkeypatch):
    """A run that is killed repeatedly collects suspects; a suspect that loads well is removed."""
    isolated = []

    def load(decoder, ref, spec):
        isolated.append(ref.name)
        failed = ref.name == "bad.jpg"
        return (Outcome(error=("crashed", "it died")), None) if failed else (Outcome(), np.zeros(SPEC.shape, np.uint8))

    monkeypatch.setattr(SubprocessDecoder, "load", load)
    names = ("good.jpg", "bad.jpg", "x" * 5000)
    refs = [ImageRef(name, name.encode()) for name in names]
    note_suspect(tmp_path, *names)
    with CrashGuard(tmp_path, 60) as suspects:
        (tmp_path / "in-hand").rename(tmp_path / "kept")
        suspects.load(refs[0], SPEC)
        suspects.load(refs[1], SPEC)
    assert isolated == ["good.jpg", "bad.jpg"]
    with CrashGuard(tmp_path, 60) as suspects:
        for ref in refs:
            suspects.load(ref, SPEC)
    assert isolated == ["good.jpg", "bad.jpg", "bad.jpg", "x" * 5000]


def test_notes_that_cannot_be_written_are_ignored(tmp_path):
    with CrashGuard(tmp_path / "missing", 60) as suspects:
        outcome, pixels = suspects.load(ref_of(tmp_path, picture()), SPEC)
    assert outcome.error is None
    assert pixels.shape == SPEC.shape


def test_subprocess_imports_no_heavy_modules(tmp_path):
    code = "import batchland.images.subprocess_decode, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not {"onnxruntime", "pyarrow", "torch", "multiprocessing"} & set(loaded)

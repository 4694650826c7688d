"""The local engine: several batches in the model at once, their rows in order, each its own."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pyarrow.parquet as pq
import pytest
from damage import encoded
from PIL import Image
from toys import options, picture, write_toy_model

import batchland.scoring.engines.local as engine_module
from batchland.errors import ModelError
from batchland.images.sources.folder import list_images
from batchland.models.session import Session
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import score


@pytest.mark.parametrize(
    ("cores", "intra_op_threads", "threads", "calls"),
    [
        (1, None, 1, 1), (2, None, 1, 2), (4, None, 1, 4), (6, None, 2, 3), (64, None, 16, 4),
        (2, 2, 2, 1), (8, 4, 4, 2), (64, 1, 1, 4), (2, 8, 8, 1),
    ],
)  # fmt: skip
def test_the_cores_are_divided_among_calls(tmp_path, monkeypatch, cores, intra_op_threads, threads, calls):
    asked = {}

    def open_session(path, device, **given):
        asked.update(given)
        return real(path, device, **given)

    real = engine_module.open_session
    monkeypatch.setattr(engine_module, "open_session", open_session)
    model = write_toy_model(tmp_path / "toy.onnx")
    engine = LocalEngine(model, ScoreOptions(device="cpu", intra_op_threads=intra_op_threads), cores=cores)
    assert (asked["intra_op_threads"], engine._calls) == (threads, calls)


def scored(engine: LocalEngine, images: Path, folder: Path) -> list[str]:
    with engine:
        batches = engine.score(list_images(images), folder, lambda: None)
        return [name for batch in batches for name in batch.rows["image"].to_pylist()]


def test_a_slow_batch_keeps_its_place(tmp_path, photos, toy_model, monkeypatch):
    """Every other call takes longer than the one after it; rows come in order all the same, four calls at a time."""
    real, lock = Session.answer, threading.Lock()
    number = at_once = most = 0

    def answer(self, pixels, jpegs):
        nonlocal number, at_once, most
        with lock:
            number += 1
            slow = number % 2
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05 * slow)
        with lock:
            at_once -= 1
        return real(self, pixels, jpegs)

    monkeypatch.setattr(Session, "answer", answer)
    engine = LocalEngine(toy_model, options(toy_model), cores=4)
    assert scored(engine, photos, tmp_path) == [ref.name for ref in list_images(photos)]
    assert 1 < most <= 4


@pytest.mark.parametrize(("batch_size", "calls"), [(64, [15, 15, 15, 15]), (60, [60]), (50, [10, 50])])
def test_calls_share_the_only_batch(tmp_path, photos, toy_model, monkeypatch, batch_size, calls):
    """60 photos: if the first batch is not full, no other one follows."""
    real, sizes = Session.answer, []

    def answer(self, pixels, jpegs):
        sizes.append(len(pixels))
        return real(self, pixels, jpegs)

    monkeypatch.setattr(Session, "answer", answer)
    with LocalEngine(toy_model, ScoreOptions(device="cpu", batch_size=batch_size), cores=4) as engine:
        batches = [each.rows for each in engine.score(list_images(photos), tmp_path, lambda: None)]
    assert [rows.num_rows for rows in batches] == [min(batch_size, 60), 60 - batch_size][: len(batches)]
    assert [name for rows in batches for name in rows["image"].to_pylist()] == [ref.name for ref in list_images(photos)]
    assert sorted(sizes) == calls


@pytest.mark.parametrize(("batch_size", "calls"), [(64, [1, 1, 1]), (3, [3]), (2, [1, 2])])
def test_an_image_without_a_finite_answer_fails_alone(tmp_path, toy_model, monkeypatch, batch_size, calls):
    """The logarithm of black is not finite. That picture may have a call of its own, or share it with others."""
    model = onnx.load(toy_model)
    (node,) = (node for node in model.graph.node if node.op_type == "Mul")
    node.CopyFrom(onnx.helper.make_node("Log", ["means"], ["logits"]))
    onnx.save(model, tmp_path / "log.onnx")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in {"a": (255, 0, 0), "b": (0, 0, 0), "c": (0, 0, 255)}.items():
        (photos / f"{name}.png").write_bytes(picture(colour, kind="PNG"))
    real, sizes = Session.answer, []

    def answer(self, pixels, jpegs):
        sizes.append(len(pixels))
        return real(self, pixels, jpegs)

    monkeypatch.setattr(Session, "answer", answer)
    out = tmp_path / "p.parquet"
    given = ScoreOptions(model=tmp_path / "log.onnx", device="cpu", batch_size=batch_size)
    run = score(photos, out, given, engine=LocalEngine(tmp_path / "log.onnx", given, cores=4))
    rows = pq.read_table(out, columns=["image", "error_code", "label"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("a.png", None, "Red Tower"), ("b.png", "model_output", None), ("c.png", None, "Blue Lake"),
    ]  # fmt: skip
    assert (run.manifest.counts.failed_by_code, sorted(sizes)) == ({"model_output": 1}, calls)


def test_an_error_in_one_call_ends_the_run(tmp_path, photos, toy_model, monkeypatch):
    real = Session.answer

    def answer(self, pixels, jpegs):
        if threading.current_thread().name.endswith("_1"):
            raise ModelError("the second call is lost")
        time.sleep(0.01)
        return real(self, pixels, jpegs)

    monkeypatch.setattr(Session, "answer", answer)
    with pytest.raises(ModelError, match="the second call is lost"):
        scored(LocalEngine(toy_model, options(toy_model), cores=2), photos, tmp_path)
    time.sleep(0.1)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("infer")]


def test_slow_pictures_fail_and_photos_beside_them_do_not(tmp_path, photos, toy_model):
    """Runs in a subprocess, which must not crash at its end while abandoned decoders still run."""
    slow = encoded(Image.new("RGB", (8000, 8000)), "PNG")
    for number in range(0, 60, 15):
        (photos / f"camera-{number // 20}" / f"{number:03}.jpg").write_bytes(slow)
    out = tmp_path / "p.parquet"
    command = [sys.executable, "-m", "batchland", "score", photos, "--out", out, "--model", toy_model]
    ended = subprocess.run([*command, "--device", "cpu", "--timeout", "0.1"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rows = pq.read_table(out).to_pylist()
    failed = {int(row["image"][-7:-4]): (row["error_code"], row["error_message"]) for row in rows if row["error_code"]}
    expected = dict.fromkeys(range(0, 60, 15), ("timeout", "not decoded within 0.1 s"))
    assert len(rows) == 60
    assert {number: failed[number] for number in expected} == expected
    assert {code for number, (code, _) in failed.items() if number not in expected} == {"truncated"}

"""Optimised copies of models: the same answers; none is used that is damaged or that others could have written."""

import hashlib
import json
import mmap
import os
import platform
import posix
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from toys import write_dense_model

from batchland.errors import BatchlandError, ModelError
from batchland.models import optimised_copy, ort
from batchland.models.session import ModelContent, begin_opening, open_session
from batchland.system.folders import cache_folder

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 24, 24, 3), np.uint8)


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(optimised_copy, "_MIN_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_dense_model(tmp_path / "dense.onnx", 24)


def open_twice(model: Path) -> Path:
    """Open it, and return the folder of its copy."""
    open_session(model, "cpu", keep_copy=True)
    (folder,) = copies()
    return folder


def copies() -> list[Path]:
    return sorted((cache_folder() / "models").iterdir())


def copy_is_used(model: Path) -> bool:
    copy = optimised_copy.find_copy(model)
    return copy is not None and optimised_copy.open_copy(copy, None) is not None


def test_copy_gives_the_same_session(model):
    plain = open_session(model, "cpu", intra_op_threads=1)
    folder = open_twice(model)
    assert sorted(path.name for path in folder.iterdir()) == ["graph.onnx", "index.json", "weights.bin"]
    assert (folder / "weights.bin").stat().st_size > 20_000 > (folder / "graph.onnx").stat().st_size
    assert copy_is_used(model)
    kept = open_session(model, "cpu", intra_op_threads=1, keep_copy=True)
    assert (kept.card, kept.sha256, kept.device) == (plain.card, plain.sha256, plain.device)
    np.testing.assert_array_equal(kept.predict(PIXELS), plain.predict(PIXELS))


def test_content_from_elsewhere_is_read_only_where_no_copy_is_kept(model):
    """As on the nodes of a cluster, which do not have the file."""
    data = model.read_bytes()
    expected = open_session(model, "cpu", intra_op_threads=1).predict(PIXELS)
    model.unlink()
    reads = []
    content = ModelContent(hashlib.sha256(data).hexdigest(), lambda: reads.append(1) or data)
    for count in (1, 1):
        session = open_session(model, "cpu", intra_op_threads=1, keep_copy=True, content=content)
        np.testing.assert_array_equal(session.predict(PIXELS), expected)
        assert len(reads) == count
    flip(copies()[0] / "weights.bin")
    session = open_session(model, "cpu", intra_op_threads=1, keep_copy=True, content=content)
    np.testing.assert_array_equal(session.predict(PIXELS), expected)
    assert len(reads) == 2


def test_copies_are_kept_only_on_request_and_of_large_models(model, monkeypatch):
    open_session(model, "cpu")
    assert not cache_folder().exists()
    monkeypatch.setattr(optimised_copy, "_MIN_BYTES", 1 << 20)
    open_session(model, "cpu", keep_copy=True)
    assert not cache_folder().exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap_for_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGE = {
    "flipped bit": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": Path.unlink,
    "symbolic link": swap_for_a_link,
    "hard link": lambda path: path.with_name("second").hardlink_to(path),
    "writable for others": lambda path: path.chmod(0o666),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", ["graph.onnx", "weights.bin", "index.json"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_or_planted_copy_is_not_used(model, name, damage):
    expected = open_session(model, "cpu", intra_op_threads=1).predict(PIXELS)
    damage(open_twice(model) / name)
    assert not copy_is_used(model)
    again = open_session(model, "cpu", intra_op_threads=1, keep_copy=True)
    np.testing.assert_array_equal(again.predict(PIXELS), expected)
    assert copy_is_used(model)  # it is replaced


def test_damaged_card_is_never_used(model):
    """Wherever the index is damaged: class names come from it before the model is open."""
    expected = open_session(model, "cpu").card
    index = open_twice(model) / "index.json"
    whole = index.read_bytes()
    for position in range(0, len(whole), 7):
        index.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        copy = optimised_copy.find_copy(model)
        assert copy is None or copy.card == expected.to_json()
    other = expected.model_copy(update={"name": "other"}).to_json()
    facts = optimised_copy._index(other, (index.parent / "graph.onnx").read_bytes(), index.parent / "weights.bin")
    index.write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="its kept copy has another card"):
        open_session(model, "cpu", keep_copy=True).predict(PIXELS)


@pytest.mark.parametrize("which", ["copy", "all copies"])
def test_folder_that_others_can_write_is_not_used(model, which):
    folder = open_twice(model)
    (folder if which == "copy" else folder.parent).chmod(0o777)
    assert not copy_is_used(model)
    assert open_session(model, "cpu", keep_copy=True).predict(PIXELS).shape == (5, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", "graph.onnx", "weights.bin", "index.json"])
def test_files_of_another_user_are_not_used(model, name):
    os.chown(open_twice(model) / name, 65534, 65534)
    assert not copy_is_used(model)


def test_changed_model_has_its_own_copy(model):
    open_twice(model)
    write_dense_model(model, 32)
    assert not copy_is_used(model)
    assert open_session(model, "cpu", keep_copy=True).card.preprocess.height == 32
    assert len(copies()) == 2


def hashes_of(model: Path, monkeypatch) -> list[str]:
    """A list that grows by the sha256 of a file each time `find_copy` computes it. All files count as settled."""
    computed: list[str] = []
    whole = optimised_copy._hash
    monkeypatch.setattr(optimised_copy, "_hash", lambda file: computed.append(whole(file)) or computed[-1])
    monkeypatch.setattr(optimised_copy, "_SETTLED_SECONDS", -60.0)
    assert optimised_copy.find_copy(model).sha256 == hashlib.sha256(model.read_bytes()).hexdigest() == computed.pop()
    return computed


def write_in_place(model: Path) -> None:
    """Another card of the same length, with the old times."""
    times = model.stat().st_atime_ns, model.stat().st_mtime_ns
    model.write_bytes(model.read_bytes().replace(b"Green", b"Groan"))
    os.utime(model, ns=times)


@pytest.mark.parametrize("rename", [False, True])
def test_unchanged_model_is_hashed_once_and_a_changed_one_again(model, monkeypatch, rename):
    folder = open_twice(model)
    computed = hashes_of(model, monkeypatch)
    assert optimised_copy.find_copy(model).folder == folder
    assert computed == []
    if rename:
        model.rename(model.with_name("old"))
        model.with_name("old").rename(model)
        assert optimised_copy.find_copy(model).folder == folder
    else:
        write_in_place(model)
        assert optimised_copy.find_copy(model) is None
        assert "Groan" in open_session(model, "cpu", keep_copy=True).card.to_json()
    assert computed != []


def test_a_write_through_a_mapping_is_noticed(model, monkeypatch):
    """The first one sets the time of change, further ones only after the page was written to the disk."""
    folder = open_twice(model)
    monkeypatch.setattr(os, "fsync", posix.fsync)
    with open(model, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(b"Green")
        content[at : at + 5] = b"Green"
        hashes_of(model, monkeypatch)
        assert optimised_copy.find_copy(model).folder == folder
        before = model.stat().st_ctime_ns
        time.sleep(0.05)
        content[at : at + 5] = b"Groan"
        if model.stat().st_ctime_ns == before and filesystem(model) == "tmpfs":
            pytest.skip("tmpfs does not set the time")
        assert optimised_copy.find_copy(model) is None


def filesystem(path: Path) -> str:
    return subprocess.run(["stat", "-fc", "%T", path], capture_output=True, text=True, check=True).stdout.strip()


def test_model_that_has_just_changed_is_hashed_each_time(model):
    """Its next change may have the same time."""
    folder = open_twice(model)
    assert copy_is_used(model)
    assert [path for path in folder.iterdir() if path.name.startswith("file-")] == []


@pytest.mark.parametrize("damage", [*DAMAGE, "of another copy"])
def test_damaged_or_planted_note_about_the_file_is_not_used(model, monkeypatch, damage):
    folder = open_twice(model)
    computed = hashes_of(model, monkeypatch)
    (note,) = folder.glob("file-*")
    if damage == "of another copy":
        other = write_dense_model(model.with_name("other.onnx"), 16)
        open_session(other, "cpu", keep_copy=True)
        note.write_text(computed.pop())
    else:
        DAMAGE[damage](note)
    assert optimised_copy.find_copy(model).folder == folder
    assert computed == [hashlib.sha256(model.read_bytes()).hexdigest()]


def test_copy_is_opened_once_if_it_was_begun_early(model, monkeypatch):
    expected = open_session(model, "cpu", intra_op_threads=1).predict(PIXELS)
    open_twice(model)
    opened: list[object] = []
    open_copy = optimised_copy.open_copy
    monkeypatch.setattr(optimised_copy, "open_copy", lambda *given: opened.append(given) or open_copy(*given))
    begin_opening(model, "cpu", intra_op_threads=1, features=False)
    for count in (1, 2):
        session = open_session(model, "cpu", intra_op_threads=1, keep_copy=True)
        np.testing.assert_array_equal(session.predict(PIXELS), expected)
        assert len(opened) == count


@pytest.mark.parametrize("wrong", ["missing", "device", "features"])
def test_error_of_an_early_opening_is_raised_when_the_model_is_needed(model, wrong):
    open_twice(model)
    path = model.with_name("missing.onnx") if wrong == "missing" else model
    device, features = "gpu" if wrong == "device" else "cpu", wrong == "features"
    begin_opening(path, device, intra_op_threads=1, features=features)
    with pytest.raises(BatchlandError) as early:
        open_session(path, device, intra_op_threads=1, keep_copy=True, features=features)
    with pytest.raises(BatchlandError) as plain:
        open_session(path, device, intra_op_threads=1, keep_copy=True, features=features)
    assert str(early.value) == str(plain.value)


def test_copy_with_other_answers_is_not_kept(model, monkeypatch):
    answers = iter([[np.zeros(3)], [np.ones(3)]])
    monkeypatch.setattr(optimised_copy, "_answers", lambda session: next(answers))
    assert open_session(model, "cpu", keep_copy=True).predict(PIXELS).shape == (5, 3)
    assert copies() == []


def test_oldest_copies_are_removed(model, monkeypatch):
    monkeypatch.setattr(optimised_copy, "_MAX_COPIES", 2)
    first = open_twice(model)
    os.utime(first, (1, 1))
    for size in (16, 20):
        open_session(write_dense_model(model, size), "cpu", keep_copy=True)
    assert len(copies()) == 2
    assert first not in copies()


def test_cache_that_cannot_be_written_does_no_harm(model, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert open_session(model, "cpu", keep_copy=True).predict(PIXELS).shape == (5, 3)


def test_broken_model_is_reported_and_leaves_nothing(model):
    model.write_bytes(b"\x08\x08" + bytes(100))
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        open_session(model, "cpu", keep_copy=True)
    assert copies() == []
    shutil.rmtree(cache_folder())


def test_the_instruction_sets_are_found_without_starting_a_process(monkeypatch):
    monkeypatch.delattr("platform.processor")  # on Linux, it runs `uname`
    monkeypatch.setattr(ort, "cpuinfo", lambda: "processor : 0\nflags : fpu avx2\nflags : fpu\n")
    assert ort.instruction_sets.__wrapped__() == f"{platform.machine()} flags : fpu avx2"

"""Files appear whole or not at all, also with several writers, and planted links are never followed."""

import errno
import os
import secrets
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from batchland.errors import OutputError
from batchland.system.files import (
    is_leftover,
    new_file,
    open_existing,
    open_new,
    remove,
    remove_leftovers,
    replace_file,
    swap,
    write_file,
)


@pytest.fixture
def victim(tmp_path):
    """A file of the user that must not change."""
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


@pytest.fixture
def shared(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def test_text_bytes_and_writers_make_a_file_and_nothing_else(shared):
    path = shared / "file"
    for content, expected in (("é", b"\xc3\xa9"), (b"\0", b"\0"), (lambda file: file.write(b"made"), b"made")):
        replace_file(path, content)
        assert path.read_bytes() == expected
        assert os.listdir(shared) == ["file"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_longest_names_work(shared):
    for name in ("x" * 255, "é" * 127, "\udcff" * 255):
        replace_file(shared / name, "content")
        assert os.listdir(shared) == [name]
        (shared / name).unlink()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file(shared, error):
    path = shared / "file"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        replace_file(path, write)
    assert (os.listdir(shared), path.read_text()) == (["file"], "old")


def test_many_threads_replace_one_file_and_readers_find_it_whole(shared):
    path = shared / "file"
    texts = [str(number) * 5000 for number in range(8)]
    replace_file(path, texts[0])
    found, done = set(), threading.Event()

    def read():
        while not done.is_set():
            found.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda text: [replace_file(path, text) for _ in range(20)], texts))
    finally:
        done.set()
        reader.join()
    assert found <= set(texts)
    assert os.listdir(shared) == ["file"]


def test_a_link_at_the_place_of_the_temporary_file_is_not_followed(shared, victim, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0" * 2 * count)
    for target in (victim, shared / "absent"):
        planted = shared / f".file.{'0' * 16}.new"
        planted.symlink_to(target)
        with pytest.raises(OutputError, match=r"file: cannot be written \(File exists\); write elsewhere$"):
            write_file(shared / "file", "ours")
        assert os.listdir(shared) == [planted.name]  # not ours to remove
        planted.unlink()
    assert victim.read_text() == "precious"


def test_a_link_at_the_place_of_the_file_is_replaced_and_not_followed(shared, victim):
    (shared / "file").symlink_to(victim)
    replace_file(shared / "file", "ours")
    assert (victim.read_text(), (shared / "file").read_text()) == ("precious", "ours")
    assert not (shared / "file").is_symlink()


def test_a_new_file_needs_a_free_name(shared, victim):
    (shared / "dangling").symlink_to(shared / "absent")
    for taken in (victim, shared / "dangling"):
        with pytest.raises(FileExistsError):
            open_new(taken)


def plant(kind, path, victim):
    if kind == "symbolic link":
        path.symlink_to(victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO", "folder"])
def test_links_and_special_files_are_not_opened_for_writing(shared, victim, kind, flags):
    path = shared / "log"
    plant(kind, path, victim)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(OSError, match=r"log is a link or not a regular file; remove it|Is a directory") as caught:
        open_existing(path, flags)
    assert caught.value.errno in (errno.ELOOP, errno.EISDIR)
    assert victim.read_text() == "precious"
    assert before == (len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user")
@pytest.mark.parametrize("others_may_write", [True, False])
def test_a_folder_that_is_a_link_of_another_user_is_not_followed(tmp_path, others_may_write):
    """As Linux's fs.protected_symlinks does in folders with the sticky bit."""
    shared, precious = tmp_path / "shared", tmp_path / "precious"
    shared.mkdir()
    precious.mkdir()
    shared.chmod(0o777 if others_may_write else 0o755)
    (shared / "x").symlink_to(precious)
    os.lchown(shared / "x", 12345, 12345)

    def write_a():
        write_file(shared / "x/a", "text")

    def write_b():
        with new_file(shared / "x/b") as path:
            path.write_text("text")

    def write_c():
        os.close(open_existing(shared / "x/c", os.O_RDWR))

    for write in (write_a, write_b, write_c):
        if others_may_write:
            with pytest.raises(
                OSError if write is write_c else OutputError, match=r"shared/x is a link of another user"
            ):
                write()
        else:
            write()
    assert sorted(os.listdir(precious)) == ([] if others_may_write else ["a", "b", "c"])


def test_an_existing_file_is_opened_as_it_is(shared):
    path = shared / "log"
    for line in (b"one\n", b"two\n"):
        descriptor = open_existing(path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, line)
        os.close(descriptor)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_writer_that_needs_a_path_has_a_private_folder(shared):
    path = shared / "model.onnx"
    with new_file(path) as temporary:
        assert temporary.parent.stat().st_mode & 0o777 == 0o700
        assert temporary.name == "model.onnx"
        temporary.write_text("new")
    assert (os.listdir(shared), path.read_text()) == (["model.onnx"], "new")
    with pytest.raises(ZeroDivisionError), new_file(path) as temporary:
        temporary.write_text(f"half{1 / 0}")
    assert (os.listdir(shared), path.read_text()) == (["model.onnx"], "new")
    with pytest.raises(OutputError, match=r"cannot be written \(No such file or directory\); write elsewhere$"):  # noqa: SIM117
        with new_file(path):
            pass  # nothing was made


def test_temporary_files_of_a_locked_file_are_removed_at_once(shared):
    for name in ("run.json", f".run.json.{'a' * 16}.new", f".page.{'0' * 16}.new"):
        (shared / name).touch()
    remove_leftovers(shared, locked="run.json")
    assert sorted(os.listdir(shared)) == [f".page.{'0' * 16}.new", "run.json"]


def test_temporary_files_of_killed_processes_are_removed_when_they_are_old(shared):
    for name in ("summary.json", ".summary.json.new", f".summary.json.{'a' * 16}.new", f".page.{'0' * 16}.new"):
        (shared / name).touch()
    (shared / f".{'b' * 16}.{'b' * 16}.new").mkdir()
    os.utime(shared / f".summary.json.{'a' * 16}.new", (0, time.time() - 7200))
    remove_leftovers(shared)
    assert sorted(os.listdir(shared)) == [
        f".{'b' * 16}.{'b' * 16}.new",
        f".page.{'0' * 16}.new",
        ".summary.json.new",
        "summary.json",
    ]
    assert [name for name in sorted(os.listdir(shared)) if is_leftover(name)] == [
        f".{'b' * 16}.{'b' * 16}.new",
        f".page.{'0' * 16}.new",
    ]


def test_removing_a_link_leaves_what_it_points_to(shared, victim):
    (shared / "folder").mkdir()
    (shared / "folder" / "file").touch()
    (shared / "link").symlink_to(shared / "folder")
    (shared / "dangling").symlink_to("absent")
    for name in ("link", "dangling", "absent"):
        remove(shared / name)
    assert os.listdir(shared) == ["folder"]
    remove(shared / "folder")
    assert os.listdir(shared) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may answer that they cannot swap")
def test_a_reader_never_finds_a_gap_while_two_folders_are_swapped(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text(name)
    found, done = set(), threading.Event()

    def read():
        while not done.is_set():
            found.add((tmp_path / "old" / "part").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        swapped = [swap(tmp_path / "new", tmp_path / "old") for _ in range(1001)]
    finally:
        done.set()
        reader.join()
    assert all(swapped)
    assert found == {"old", "new"}
    assert ((tmp_path / "old" / "part").read_text(), (tmp_path / "new" / "part").read_text()) == ("new", "old")


def test_a_failed_swap_changes_nothing(tmp_path):
    (tmp_path / "old").write_text("old")
    assert swap(tmp_path / "none", tmp_path / "old") is False
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folders_that_cannot_be_synced_are_accepted(tmp_path, monkeypatch, code, fails):
    """As on some network file systems."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error") if fails else nullcontext():
        replace_file(tmp_path / "a.txt", "content")
    assert (tmp_path / "a.txt").read_text() == "content"

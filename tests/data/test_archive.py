"""Unpacking untrusted archives."""

import os
import random
import stat
import tarfile
from pathlib import Path

import pytest
from archives import PHOTOS, files_below, tar_of, zip_of

from batchland.data import archive as archive_module
from batchland.data.archive import Unpacked, lift_only_folder, unpack
from batchland.data.options import UnpackLimits
from batchland.errors import UsageError


def unpacked(content: bytes, tmp_path: Path, limits: UnpackLimits | None = None) -> Unpacked:
    (tmp_path / "archive").write_bytes(content)
    (tmp_path / "out").mkdir(exist_ok=True)
    return unpack(tmp_path / "archive", tmp_path / "out", limits)


@pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
def test_every_format_is_unpacked(tmp_path: Path, kind: str) -> None:
    content = zip_of(PHOTOS) if kind == "zip" else tar_of(PHOTOS, compression=kind)
    assert unpacked(content, tmp_path) == (12, sum(map(len, PHOTOS.values())))
    assert files_below(tmp_path / "out") == PHOTOS


def test_progress_per_entry_can_stop_unpacking(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_of(PHOTOS))
    (tmp_path / "out").mkdir()
    seen: list[int] = []

    def stop_at_four(entries: int) -> None:
        seen.append(entries)
        if entries == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "archive", tmp_path / "out", on_entry=stop_at_four)
    assert seen == [0, 1, 2, 3, 4]
    assert len(files_below(tmp_path / "out")) == 4


def test_file_modes_and_junk_files_are_not_unpacked(tmp_path: Path) -> None:
    files = {"a/1.jpg": b"1", "__MACOSX/a/._1.jpg": b"x", "a/.DS_Store": b"x", "a/Thumbs.db": b"x", "a/b/": b""}
    modes = {"a/1.jpg": stat.S_IFREG | 0o4777, "a/b/": stat.S_IFDIR | 0o700}
    assert unpacked(zip_of(files, modes), tmp_path) == (1, 1)
    assert files_below(tmp_path / "out") == {"a/1.jpg": b"1"}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out" / "a" / "1.jpg").stat().st_mode) == 0o666 & ~umask
    assert (tmp_path / "out" / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "a\0.jpg"]
)
def test_paths_outside_the_target_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        unpacked(zip_of({"good.jpg": b"1", name: b"evil"}), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/archive: its entry {name!r} points outside the target; refused, nothing is unpacked"
    )
    assert files_below(tmp_path) == {"archive": (tmp_path / "archive").read_bytes(), "out/good.jpg": b"1"}
    if "\0" not in name:  # tar ends a name there
        with pytest.raises(UsageError, match="points outside the target; refused"):
            unpacked(tar_of({name: b"evil"}), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("shadow.jpg")
    member.type, member.linkname = kind, "/etc/shadow"
    with pytest.raises(UsageError, match=r"its entry 'shadow.jpg' is a link or a device; refused"):
        unpacked(tar_of(PHOTOS, member), tmp_path)


def test_links_and_encrypted_files_in_a_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its entry 'link' is a link or a device; refused"):
        unpacked(zip_of({"link": b"/etc"}, {"link": stat.S_IFLNK | 0o777}), tmp_path)
    content = bytearray(zip_of({"secret.jpg": b"1"}))
    content[6] |= 1  # the flag in the entry's own header, and in the directory at the end
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(UsageError, match=r"its entry 'secret.jpg' is encrypted; refused"):
        unpacked(bytes(content), tmp_path)


@pytest.mark.parametrize("names", [["a.jpg", "./a.jpg"], ["a", "a/b.jpg"], ["a/b.jpg", "a"], ["a.jpg", "a.jpg/"]])
def test_duplicate_entries_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match="occurs twice; refused"):
        unpacked(zip_of(dict.fromkeys(names, b"1")), tmp_path)


def test_size_ratio_and_number_of_entries_are_limited(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(100_000)
    with pytest.raises(UsageError, match=r"its entry 'b' makes the total exceed 0.00015 GB; refused"):
        unpacked(zip_of({"a": noise, "b": noise}), tmp_path, UnpackLimits(max_bytes=150_000))
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "out" / "b").unlink()
    zeros = {str(number): bytes(8 << 20) for number in range(9)}
    for bomb in (zip_of(zeros), tar_of(zeros)):
        with pytest.raises(UsageError, match="makes the total exceed 100 times the archive's size; refused"):
            unpacked(bomb, tmp_path)
        written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        assert written <= 64 << 20 < len(bomb) * 1000
        for path in (tmp_path / "out").iterdir():
            path.unlink()
    with pytest.raises(UsageError, match="more than 11 entries; refused"):
        unpacked(zip_of(PHOTOS), tmp_path, UnpackLimits(max_files=11))


def test_sizes_in_headers_are_not_trusted(tmp_path: Path) -> None:
    content = bytearray(zip_of({"a": bytes(500_000)}))
    for start in (22, content.index(b"PK\1\2") + 24):
        content[start : start + 4] = (10).to_bytes(4, "little")
    with pytest.raises(UsageError):
        unpacked(bytes(content), tmp_path)
    assert sum(map(len, files_below(tmp_path / "out").values())) <= 10


@pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
def test_damaged_archives_raise_usage_errors(tmp_path: Path, kind: str) -> None:
    """Changed and cut bytes unpack or raise UsageError, never another exception."""
    files = {f"d/é{number}.jpg": random.Random(number).randbytes(300) for number in range(3)}
    whole = zip_of(files) if kind == "zip" else tar_of(files, compression=kind)
    rng = random.Random(kind)
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 2, 10])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        content = content[: rng.choice([len(content), rng.randrange(len(content))])]
        folder = tmp_path / str(refused)
        folder.mkdir(exist_ok=True)
        try:
            unpacked(bytes(content), folder)
        except UsageError as error:
            assert str(error).startswith(f"{folder}/archive: ")  # noqa: PT017 - most fail, some do not
            refused += 1
        else:
            for path in sorted((folder / "out").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert refused > 20


def test_other_files_are_refused_under_the_given_name(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>404</html>")
    with pytest.raises(UsageError) as caught:
        unpack(tmp_path / "page", tmp_path, name="http://host/set.zip")
    assert str(caught.value) == (
        "http://host/set.zip: neither a zip nor a tar archive; it may be cut off, or a web page with an error"
    )
    with tarfile.open(tmp_path / "whole", "w:bz2") as archive:
        archive.add(__file__, "a.jpg")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:300])
    with pytest.raises(UsageError, match=r"set\.tbz: neither a zip nor a tar archive; it may be cut off"):
        unpack(tmp_path / "cut", tmp_path, name="set.tbz")


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, member: object, source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_module._Unpacking, "_copy", full)
    with pytest.raises(OSError, match="No space left on device"):
        unpacked(zip_of(PHOTOS), tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"set/train/a/1": b"", "set/test/a/1": b""}, {"train/a/1", "test/a/1"}),
        ({"set/set/a/1": b"", "set/b/1": b""}, {"set/a/1", "b/1"}),
        ({"train/a/1": b""}, {"train/a/1"}),
        ({"set/a/1": b"", "README": b""}, {"set/a/1", "README"}),
        ({"1": b""}, {"1"}),
    ],
)
def test_single_top_folder_is_removed(tmp_path: Path, before: dict[str, bytes], after: set[str]) -> None:
    unpacked(zip_of(before), tmp_path)
    lift_only_folder(tmp_path / "out")
    assert set(files_below(tmp_path / "out")) == after


def test_names_in_utf8_without_the_flag_are_kept(tmp_path: Path) -> None:
    """As Info-ZIP writes them on Linux."""
    content = zip_of({"Zürich/1.jpg": b"1"}).replace(b"\x00\x08", b"\x00\x00")
    assert unpacked(content, tmp_path).files == 1
    assert files_below(tmp_path / "out") == {"Zürich/1.jpg": b"1"}

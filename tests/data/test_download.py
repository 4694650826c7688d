"""Downloading a data set."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from archives import PHOTOS, files_below, server, tar_of, zip_of
from commands import batchland

from batchland.data.download import REFERENCE_URL, default_folder, download
from batchland.data.options import DownloadOptions
from batchland.errors import DownloadError, Interrupted, LockedError, UsageError
from batchland.system.lock import locked

ARCHIVE = zip_of(PHOTOS)
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
NO_WAITS = (0.0,) * 5
LIFTED = {name.removeprefix("set/"): content for name, content in PHOTOS.items()}


def test_download_is_checked_and_unpacked(tmp_path: Path) -> None:
    out = tmp_path / "data" / "landmarks"
    stages: list[str] = []
    with server(ARCHIVE) as manners:
        manners.breaks_after = [500]
        done = download(
            manners.url,
            out,
            DownloadOptions(sha256=SHA256.upper()),
            on_progress=lambda stage, here, total: stages.append(stage),
            waits=NO_WAITS,
        )
    assert files_below(out) == LIFTED
    assert [path.name for path in out.parent.iterdir()] == ["landmarks"]
    assert done == (out, (12, sum(map(len, PHOTOS.values()))), len(ARCHIVE), SHA256)
    assert sorted(set(stages)) == ["download", "unpacking"]
    assert manners.requests == [None, "bytes=500-"]


@pytest.mark.parametrize("content", [ARCHIVE, tar_of(PHOTOS)])
def test_local_archive_is_unpacked_and_kept(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "set.anything"
    source.write_bytes(content)
    (tmp_path / "out").mkdir()  # an empty folder is no hindrance
    download(str(source), tmp_path / "out")
    assert files_below(tmp_path / "out") == LIFTED
    assert source.read_bytes() == content


def test_wrong_checksum_is_refused(tmp_path: Path) -> None:
    with server(ARCHIVE) as manners, pytest.raises(UsageError) as caught:
        download(manners.url, tmp_path / "out", DownloadOptions(sha256="0" * 64))
    assert str(caught.value) == f"{manners.url}: its sha256 is {SHA256}, not {'0' * 64}; not unpacked"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zip_of(PHOTOS | {"../evil.jpg": b""}), "its entry '../evil.jpg' points outside the target"),
        (zip_of(PHOTOS | {str(number): bytes(8 << 20) for number in range(9)}), "makes the total exceed 100 times"),
        (ARCHIVE[:-30], "neither a zip nor a tar archive; it may be cut off"),
        (zip_of({"empty/": b""}), "contains no files"),
    ],
    ids=["slip", "bomb", "cut", "empty"],
)
def test_refused_archive_leaves_nothing(tmp_path: Path, content: bytes, says: str) -> None:
    with server(content) as manners, pytest.raises(UsageError, match=says) as caught:
        download(manners.url, tmp_path / "data" / "out")
    assert str(caught.value).startswith(f"{manners.url}: ")
    assert files_below(tmp_path) == {}
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        download(str(tmp_path / "set.zip"), tmp_path / "data" / "out")
    assert files_below(tmp_path) == {"set.zip": content}


def test_broken_download_resumes_in_the_next_run(tmp_path: Path) -> None:
    with server(ARCHIVE) as manners:
        manners.breaks_after = [700, *[0] * 5]
        with pytest.raises(DownloadError, match="700 bytes are kept, run it again to resume"):
            download(manners.url, tmp_path / "out", waits=NO_WAITS)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".out.part", ".out.part.json"]
        download(manners.url, tmp_path / "out")
    assert manners.requests[-1] == "bytes=700-"
    assert files_below(tmp_path) == {f"out/{name}": content for name, content in LIFTED.items()}


@pytest.mark.parametrize("stage", ["download", "unpacking"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_and_the_next_run_resumes(tmp_path: Path, stage: str, signum: signal.Signals) -> None:
    def interrupt(current: str, done: int, total: int | None) -> None:
        if current == stage:
            os.kill(os.getpid(), signum)

    with server(ARCHIVE) as manners:
        with pytest.raises(Interrupted) as caught:
            download(manners.url, tmp_path / "out", on_progress=interrupt)
        assert str(caught.value) == f"{tmp_path}/out: stopped during the {stage}; run it again to resume"
        assert caught.value.exit_code == 128 + signum
        assert not (tmp_path / "out").exists()
        assert (tmp_path / ".out.part").read_bytes() == ARCHIVE
        download(manners.url, tmp_path / "out")
    assert files_below(tmp_path / "out") == LIFTED
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.new" / "train").mkdir(parents=True)
    (tmp_path / ".out.new" / "train" / "half.jpg").write_bytes(b"half")
    (tmp_path / "set.zip").write_bytes(ARCHIVE)
    download(str(tmp_path / "set.zip"), tmp_path / "out")
    assert files_below(tmp_path / "out") == LIFTED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set.zip"]


def test_existing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(ARCHIVE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "set.zip"):
        with pytest.raises(UsageError) as caught:
            download(str(tmp_path / "set.zip"), out)
        assert str(caught.value) == (f"{out}: exists and is not an empty folder; give a new one")
    with locked(tmp_path / ".new.lock", "new"), pytest.raises(LockedError, match="another run"):
        download(str(tmp_path / "set.zip"), tmp_path / "new")


def test_unreadable_sources_are_errors(tmp_path: Path) -> None:
    for source, reason in ((tmp_path / "none.zip", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError) as caught:
            download(str(source), tmp_path / "out")
        assert str(caught.value) == f"{source}: cannot be read ({reason}); give an http address or an archive file"


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        (REFERENCE_URL, "data/landmark_images"),
        ("https://host/a/imagenette2-160.tgz?download=1", "data/imagenette2-160"),
        ("/tmp/My Photos.tar.xz", "data/My Photos"),
        ("https://host/photos%20of%202026.ZIP", "data/photos of 2026"),
    ],
)
def test_default_folder_is_named_after_the_archive(source: str, folder: str) -> None:
    assert default_folder(source) == Path(folder)


@pytest.mark.parametrize("source", ["https://host/download?id=7", "https://host/", "/tmp/.zip", "photos", "..zip"])
def test_source_without_a_name_is_an_error(source: str) -> None:
    with pytest.raises(UsageError, match="has no file name to use for the folder"):
        default_folder(source)


def test_command_prints_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with server(ARCHIVE) as manners:
        result = batchland("data", "download", manners.url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (f"data/set: 12 files, 0.0 MB, from {manners.url} (0.0 MB, sha256 {SHA256})\n")
    assert files_below(tmp_path / "data" / "set") == LIFTED
    again = batchland("data", "download", manners.url)
    assert (again.exit_code, again.stdout) == (2, "")
    bad = batchland("data", "download", manners.url, "--sha256", "12")
    assert (bad.exit_code, bad.stderr.splitlines()[-1]) == (
        2,
        "Error: Invalid value for '--sha256': 12: should be 64 hexadecimal digits",
    )

"""Two paths change places in one step; whoever reads meanwhile finds one of them, always."""

import sys
import threading

import pytest

from batchland.system.exchange import exchange


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may answer that they cannot")
def test_a_reader_never_finds_a_gap(tmp_path):
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
        exchanged = [exchange(tmp_path / "new", tmp_path / "old") for _ in range(1001)]
    finally:
        done.set()
        reader.join()
    assert all(exchanged)
    assert found == {"old", "new"}
    assert ((tmp_path / "old" / "part").read_text(), (tmp_path / "new" / "part").read_text()) == ("new", "old")


def test_what_cannot_be_exchanged_is_left_alone(tmp_path):
    (tmp_path / "old").write_text("old")
    assert exchange(tmp_path / "none", tmp_path / "old") is False
    assert (tmp_path / "old").read_text() == "old"

"""The lock: one holder at a time, named in the error; freed when the holder ends, even if it is killed."""

import re
import signal
import subprocess
import sys

import pytest

from batchland.errors import LockedError
from batchland.system.lock import holder, locked

HOLD = """
import sys, time
from pathlib import Path
from batchland.system.lock import locked
with locked(Path(sys.argv[1]), "out"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_file_is_gone_afterwards(tmp_path):
    path = tmp_path / "lock"
    with locked(path, "out"):
        assert path.exists()
    assert not path.exists()
    with locked(path, "out"):
        pass


def test_a_second_process_gets_the_name_of_the_holder_and_a_killed_holder_frees_the_lock(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as caught, locked(path, "preds.parquet"):
            pass
        pattern = rf"preds\.parquet: another run \(process {child.pid} on \S+, since \S+\) is writing it; .*"
        assert re.fullmatch(pattern, str(caught.value))
        assert caught.value.exit_code == 75
        child.send_signal(signal.SIGKILL)
        child.wait()
        with locked(path, "out"):
            pass


def test_a_lock_file_with_unknown_content_can_be_locked(tmp_path):
    path = tmp_path / "lock"
    path.write_text("garbage")
    with locked(path, "out"):
        assert '"pid"' in path.read_text()


def test_the_holder_can_be_asked_for(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) is None
    with locked(path, "out"):
        assert holder(path).keys() == {"pid", "host", "since"}
        with pytest.raises(LockedError), locked(path, "out", wait=0.2):
            pass
    path.write_text("left by a killed run")
    assert holder(path) is None

"""How far scoring is: the total is counted beside it, and nothing of that outlives it."""

import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.scoring.progress import ScoreProgress


def test_the_count_ends_with_the_run() -> None:
    with ScoreProgress(count):  # would go on for ever
        assert "count" in [thread.name for thread in threading.enumerate()]
    assert "count" not in [thread.name for thread in threading.enumerate()]


def test_a_command_that_ends_at_once_is_no_crash(tmp_path: Path, toy_model: Path) -> None:
    """While Arrow reads a list for the count, the interpreter cannot end."""
    listing = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": [f"{number}.jpg" for number in range(1_000_000)]}), listing)
    command = [sys.executable, "-m", "batchland", "score", "--images", listing, "--model", toy_model]
    ended = subprocess.run([*command, "--out", listing], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (
        2,
        f"batchland: {listing}: would replace {listing}, which is to be read; give another --out",
    )

"""Progress of scoring: the total is counted in a thread that does not outlive the run."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchland.images.sources.refs import Ignored, ImageRef
from batchland.scoring.account import Progress
from batchland.scoring.listing import ImageListing, open_listing
from batchland.scoring.options import ScoreOptions, Shard
from batchland.scoring.progress import ScoreProgress


class Endless:
    """An infinite source of images."""

    name, countable = "endless", True

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        return (ImageRef(str(number), b"") for number in count())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_counting_thread_ends_with_the_run() -> None:
    with ScoreProgress(ImageListing(Endless(), ScoreOptions()), log_every=0.0):  # type: ignore[arg-type]
        assert "count" in threads()
    assert "count" not in threads()


def test_images_are_counted_only_when_the_first_log_line_is_due(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "batchland")
    listing = open_listing(photos, ScoreOptions(exclude=("camera-0/",)))
    with ScoreProgress(listing) as progress:
        progress.update(Progress(4, 1, 0))
        assert "count" not in threads()
    assert caplog.messages == []
    with ScoreProgress(listing, log_every=0.0) as progress:
        while "count" in threads():
            pass
        progress.update(Progress(8, 1, 0))
    assert [message.rpartition(",")[0] for message in caplog.messages] == ["8 of 40 images, 1 failed"]


def test_a_shard_counts_its_own_images(photos: Path) -> None:
    listing = open_listing(photos, ScoreOptions())
    names = [ref.name for ref in listing.second_walk()]
    for index in range(3):
        own = [ref.name for ref in listing.second_walk(Shard(index=index, count=3))]
        assert own == [name for name in names if Shard.owner(name, 3) == index]


def test_a_command_can_exit_while_the_counting_thread_reads_a_list(tmp_path: Path, toy_model: Path) -> None:
    listing = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": [f"{number}.jpg" for number in range(1_000_000)]}), listing)
    code = "import sys; sys.stderr.isatty = lambda: True; from batchland.cli.main import main; main()"
    command = [sys.executable, "-c", code, "score", "--images", listing, "--model", toy_model, "--out", listing]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (
        2,
        f"batchland: {listing}: would replace {listing}, which is an input; give another --out",
    )

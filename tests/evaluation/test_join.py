"""Joining outcomes on disk gives what joining them in memory does."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import delivery

from batchland.evaluation import join, sorting
from batchland.evaluation.join import Join

FOLDERS = ("00.Red_Tower", "01.Green_Hill")
RED = "00.Red_Tower"


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_are_joined_by_path_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.setattr(join, "sorted_batches", lambda *given: sorting.sorted_batches(*given, rows_in_memory=1))
    a = {f"{RED}/{number}.jpg": f"c{number}" for number in range(6)}
    b = {f"{RED}/{number}.jpg": f"c{number}" for number in (4, 1, 0)} | {f"{RED}/x.jpg": "c3", f"{RED}/y.jpg": "c3"}
    joined = Join([delivery(tmp_path / "a", FOLDERS, a, (0.9, 0.1)), delivery(tmp_path / "b", FOLDERS, b, (0.2, 0.8))])
    blocks = list(joined.blocks())
    assert [name for block in blocks for name in block.images.to_pylist()] == [f"{RED}/{n}.jpg" for n in (0, 1, 4, 3)]
    assert np.concatenate([block.row for block in blocks]).tolist() == [[0, 2], [1, 1], [4, 0], [3, 3]]
    assert np.concatenate([block.predicted for block in blocks]).tolist() == [[0, 1]] * 4
    assert (joined.rows, joined.joined, joined.by_content, joined.left_out) == ([6, 5], 4, 1, 3)

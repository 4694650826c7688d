"""Parts and checkpoints that are written slowly."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from toys import toy_card

from batchland.images.batch import Batch, Outcome
from batchland.images.sources.refs import ImageRef
from batchland.predictions.parts import PartSpec, PartSummary, PartWriter
from batchland.predictions.rows import to_rows
from batchland.predictions.storage import open_output


def test_a_part_that_is_completed_while_its_checkpoint_is_written_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [ImageRef(f"{number}.jpg", b"") for number in range(4)]
    outcomes = tuple(Outcome(width=30, height=20, file_size=99) for _ in refs)
    batch = Batch(refs, np.zeros((4, 8, 8, 3), np.uint8), outcomes)
    rows = to_rows(batch, np.full((4, 3), 1 / 3, np.float32), toy_card(), top_k=2)
    spec = PartSpec.of({}, batch_size=2, part_size=4)
    with open_output(tmp_path / "p.parquet") as output:
        output.begin(spec.fingerprint, overwrite=False, restart=False)
        write, written = output.write_part, []
        found: list[PartSummary] = []
        with PartWriter(output, spec, found.append, checkpoint_seconds=0) as writer:
            assert list(writer.pending([(0, refs)])) == [*refs, None]
            part = writer._pending[0]

            def write_slowly(index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
                until = time.monotonic() + 20
                while part.count < 4 and time.monotonic() < until:
                    time.sleep(0.001)
                write(index, table, metadata)
                written.append(table.num_rows)

            monkeypatch.setattr(output, "write_part", write_slowly)
            writer.write(rows[:2])
            writer.write(rows[2:])
            writer.wait()
        assert written == [2, 4]
        assert [(summary.number, summary.rows) for summary in found] == [(0, 4)]


def test_checkpoints_are_frequent_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [ImageRef(f"{number}.jpg", b"") for number in range(100)]
    batch = Batch(refs[:1], np.zeros((1, 8, 8, 3), np.uint8), [Outcome(width=30, height=20, file_size=99)])
    rows = to_rows(batch, np.full((1, 3), 1 / 3, np.float32), toy_card(), top_k=2)
    now, written = [0.0], []
    with open_output(tmp_path / "p.parquet") as output:
        monkeypatch.setattr(output, "write_part", lambda *_: written.append(now[0]))
        spec = PartSpec.of({}, batch_size=1, part_size=200)
        with PartWriter(output, spec, clock=lambda: now[0]) as writer:
            assert list(writer.pending([(0, refs)])) == [*refs, None]
            for step in range(99):
                now[0] = step / 2
                writer.write(rows)
                writer.wait()
    assert written == [0.5, 1.5, 3.0, 5.0, 8.0, 12.0, 18.0, 27.0, 40.0]

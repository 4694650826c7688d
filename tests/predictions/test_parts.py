"""Parts on a disk that another process of the same run still writes to."""

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


@pytest.mark.parametrize("replaced", [0, 1])
def test_a_part_that_a_lost_worker_has_replaced_by_its_first_rows_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: int
) -> None:
    refs = [ImageRef(f"{number}.jpg", b"") for number in range(4)]
    outcomes = tuple(Outcome(width=30, height=20, file_size=99) for _ in refs)
    rows = to_rows(
        Batch(refs, np.zeros((4, 8, 8, 3), np.uint8), outcomes), np.full((4, 3), 1 / 3, np.float32), toy_card(), top_k=2
    )
    spec = PartSpec.of({}, batch_size=2, part_size=4)
    with open_output(tmp_path / "p.parquet") as output:
        output.begin(spec.fingerprint, overwrite=False, restart=False)
        write, written = output.write_part, []

        def write_and_replace(index: int, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
            write(index, table, metadata)
            written.append(table.num_rows)
            if len(written) <= replaced:
                write(index, table[:2], metadata)

        monkeypatch.setattr(output, "write_part", write_and_replace)
        found: list[PartSummary] = []
        with PartWriter(output, spec, found.append) as writer:
            assert list(writer.pending([(0, refs)])) == [*refs, None]
            writer.write(rows[:2])
            writer.write(rows[2:])
            writer.wait()
        assert [(summary.number, summary.rows) for summary in found] == [(0, 4)]
        assert written == [4] * (1 + replaced)
        assert output.read_part(0).num_rows == 4

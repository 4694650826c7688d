"""The scored images with a wrong first choice, with the probability that the label is wrong."""

import weakref
from collections.abc import Collection, Iterator
from tempfile import TemporaryFile
from typing import Final

import numpy as np
import pyarrow as pa

from batchland.evaluation.label_errors import CHOICES, LabelledChoices, LabelNoise
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import MISTAKES, LabelErrors
from batchland.evaluation.sorting import sorted_batches
from batchland.evaluation.table_file import TableFile

MAX_IN_MEMORY: Final = 200_000
"""Rows of the table for the page. The file has all."""
_ORDER: Final = (("probability", "descending"), ("image", "ascending"))
_ADDED: Final = ("suspicion", "suspected_label_error", "label_error_probability")


class Mistakes:
    """Collects the mistakes block by block; `finish` judges and sorts them."""

    def __init__(self, own: pa.Schema, reviewed: Collection[int]) -> None:
        """reviewed: rows of the predictions with a label that a human checked, so it is not suspected."""
        self._reviewed = np.fromiter(reviewed, np.int64)
        self._schema = pa.schema([*MISTAKES, *own])
        self._names = [name for name in self._schema.names if name not in _ADDED]
        fields = [self._schema.field(name) for name in self._names]
        self._file = TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._collected = pa.schema([*fields, ("choices", pa.list_(pa.float32())), ("reviewed", pa.bool_())])
        self._stream = pa.ipc.new_stream(self._file, self._collected)

    def add(self, outcomes: Outcomes, table: pa.Table) -> None:
        """Add the mistakes of a block. table: its rows of outcomes.parquet."""
        wrong = np.flatnonzero(outcomes.ok & ~outcomes.right)
        if not len(wrong):
            return
        choices = outcomes.choices[wrong, :CHOICES]
        ends = np.arange(len(wrong) + 1, dtype=np.int32) * choices.shape[1]
        column = pa.ListArray.from_arrays(pa.array(ends), pa.array(choices.ravel()))
        reviewed = pa.array(np.isin(outcomes.rows[wrong], self._reviewed))
        rows = (
            table.select(self._names).take(wrong).append_column("choices", column).append_column("reviewed", reviewed)
        )
        self._stream.write_table(rows.cast(self._collected))

    def finish(self, noise: LabelNoise, kept: int) -> tuple[TableFile, pa.Table, LabelErrors]:
        """The rows of mistakes.parquet, the rows for the page, and the number of suspected labels.

        kept: choices that every scored image has.
        """
        file = TableFile(self._schema)
        shown: list[pa.Table] = []
        suspected, expected, rows = 0, 0.0, 0
        judged = self._judged(noise, kept)
        for batch in sorted_batches(self._schema, judged, _ORDER):
            table = pa.Table.from_batches([batch], self._schema)
            file.append(table)
            mask = batch["suspected_label_error"]
            suspected += mask.true_count
            expected += float(batch["label_error_probability"].filter(mask).to_numpy().sum(dtype=np.float64))
            if rows < MAX_IN_MEMORY:
                shown.append(table[: MAX_IN_MEMORY - rows])
            elif suspected < MAX_IN_MEMORY:
                shown.append(table.filter(mask))
            rows += len(batch)
        errors = LabelErrors(mistakes=rows, suspected=suspected, share=expected / suspected if suspected else None)
        return file.close(), pa.concat_tables([self._schema.empty_table(), *shown]).combine_chunks(), errors

    def _judged(self, noise: LabelNoise, kept: int) -> Iterator[pa.RecordBatch]:
        self._stream.close()
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            lists = batch["choices"]
            first = np.arange(min(kept, CHOICES))  # some blocks may have more
            choices = lists.values.to_numpy()[lists.offsets.to_numpy()[:-1, None] + first]
            rank = batch["true_rank"].fill_null(0).to_numpy().astype(np.int64)
            true = batch["true_probability"].fill_null(float("nan")).to_numpy()
            label, predicted = (batch[name].to_numpy().astype(np.int64) for name in ("true_index", "predicted_index"))
            probability = noise.error_probabilities(LabelledChoices(choices, rank, true, label, predicted))
            probability[batch["reviewed"].to_numpy(zero_copy_only=False)] = 0
            suspicion = batch["probability"].to_numpy() - np.nan_to_num(true)
            added = (
                pa.array(suspicion.astype(np.float32)),
                pa.array(probability >= noise.suspected_from),
                pa.array(probability.astype(np.float32)),
            )
            columns = dict(zip(_ADDED, added, strict=True)) | {name: batch[name] for name in self._names}
            yield pa.record_batch([columns[name] for name in self._schema.names], schema=self._schema)

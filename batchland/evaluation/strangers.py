"""The labelled images that are least similar to the model's known photos."""

from typing import Final

import numpy as np
import pyarrow as pa

from batchland.evaluation.outcomes import Outcomes
from batchland.models.decisions import STRANGER

MAX_SHOWN: Final = 200
"""Rows of the table."""
_COLUMNS: Final = ("image", "true_label", "predicted_label", "probability", "file_size")


class Strangers:
    """Collects strangers block by block: images with `known` below STRANGER."""

    def __init__(self) -> None:
        self.total: int | None = None
        """Their number; None if the model has no known photos."""
        self._shown: list[pa.Table] = []

    def add(self, outcomes: Outcomes, table: pa.Table) -> None:
        """Add a block. table: its rows of outcomes.parquet."""
        if outcomes.known is None:
            return
        rows = np.flatnonzero(outcomes.known < STRANGER)  # not a failed image, which is NaN
        self.total = (self.total or 0) + len(rows)
        known = pa.array(outcomes.known[rows], pa.float32())
        found = pa.concat_tables([*self._shown, table.select(_COLUMNS).take(rows).append_column("known", known)])
        self._shown = [found.sort_by([("known", "ascending"), ("image", "ascending")])[:MAX_SHOWN]]

    @property
    def table(self) -> pa.Table | None:
        """The strangers that are least like known photos, at most MAX_SHOWN; None if the model has no known photos."""
        return self._shown[0] if self._shown else None

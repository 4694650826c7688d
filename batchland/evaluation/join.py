"""Join the outcomes of two or more reports, image by image, for any number of images.

Images with the same path belong together; of all others, those with the same sha256. The rows of all reports are sorted
together by path, on disk where they are many (sorting.py), so that rows of one image are neighbours; those that are
left are sorted again by sha256.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.sorting import group_numbers, sorted_batches, whole_groups
from batchland.system.names import composed

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report

_READ: Final = (
    "image", "status", "true_label", "predicted_label", "probability", "true_rank", "true_probability", "file_size",
)  # fmt: skip
_ROWS: Final = pa.schema(
    [
        ("image", pa.string()),
        ("sha256", pa.string()),
        ("side", pa.int32()),
        ("row", pa.int64()),
        ("ok", pa.bool_()),
        ("truth", pa.int32()),
        ("predicted", pa.int32()),
        ("probability", pa.float32()),
        ("true_rank", pa.int32()),
        ("true_probability", pa.float32()),
        ("file_size", pa.int64()),
    ]
)


class Joined(NamedTuple):
    """Images that all reports have. Arrays are [images, reports]."""

    images: pa.Array
    """Paths in the first report, [images]."""
    file_size: pa.Array
    """Bytes, as in the first report, [images]."""
    row: npt.NDArray[np.int64]
    """Row number in each report's outcomes, from 0."""
    ok: npt.NDArray[np.bool_]
    truth: npt.NDArray[np.int32]
    """True class, as an index into Join.classes."""
    predicted: npt.NDArray[np.int32]
    """First choice, likewise; -1 of failed images."""
    probability: npt.NDArray[np.float32]
    true_rank: npt.NDArray[np.int32]
    """0 beyond the choices kept."""
    true_probability: npt.NDArray[np.float32]
    """NaN beyond the choices kept."""

    def take(self, which: npt.NDArray[Any]) -> "Joined":
        """Some of the images, by index or mask."""
        at = pa.array(np.flatnonzero(which) if which.dtype == bool else which)
        return Joined(self.images.take(at), self.file_size.take(at), *(each[which] for each in self[2:]))


class Join:
    """Joins reports. Read `blocks` to the end, then the counts are right."""

    def __init__(self, reports: "Sequence[Report | Evaluation]") -> None:
        self._files = [report.outcomes_file for report in reports]
        labels = [[name.label for name in report.summary.classes] for report in reports]
        self._composes = all(len({*map(composed, names)}) == len(names) for names in labels)
        every = list(dict.fromkeys(chain.from_iterable(labels)))
        of_form: dict[str, str] = {}
        for label in every:
            of_form.setdefault(self.form(label), label)
        self.classes = tuple(of_form.values())
        """Labels of the first report's classes, then those that only later ones have."""
        self.rows = [file.num_rows for file in self._files]
        """Images of each report."""
        self.joined = 0
        self.by_content = 0
        """Number of these that were joined by sha256."""
        self.left_out = 0
        """Number of images with a row that was not joined, counted by path."""
        self._labels = pa.array(every, pa.string())
        places = {form: place for place, form in enumerate(of_form)}
        self._places = pa.array([places[self.form(label)] for label in every], pa.int32())

    def form(self, label: str) -> str:
        """The form by which labels are compared: composed, unless two labels of one report differ only in that."""
        return composed(label) if self._composes else label

    def _class_index(self, labels: pa.Array) -> pa.Array:
        return self._places.take(pc.index_in(labels, value_set=self._labels))

    def blocks(self) -> Iterator[Joined]:
        """The joined images, in the order of their paths, then those that were joined by content."""
        has_content = all("sha256" in file.schema.names for file in self._files)
        order = sorted_batches(_ROWS, self._all_rows(has_content), [("image", "ascending"), ("side", "ascending")])
        alone = 0
        with TemporaryFile() as file:
            with pa.ipc.new_stream(file, _ROWS) as rest:
                for batch in whole_groups(order, "image"):
                    taken, left, groups = self._complete(batch, "image")
                    alone += groups
                    if len(left):
                        rest.write_batch(batch.take(pa.array(left)))
                    if len(taken):
                        yield self._joined(batch, taken)
            self.left_out = alone
            if has_content and alone:
                file.seek(0)
                yield from self._join_by_content(pa.ipc.open_stream(file))

    def _join_by_content(self, rows: Iterator[pa.RecordBatch]) -> Iterator[Joined]:
        """Join rows with the same sha256. If a report has several of them, its first one is used."""
        known = (batch.filter(batch["sha256"].is_valid()) for batch in rows)
        keys = ("sha256", "side", "row")
        found: list[pa.Array] = []
        for batch in whole_groups(sorted_batches(_ROWS, known, [(key, "ascending") for key in keys]), "sha256"):
            taken, _, _ = self._complete(batch, "sha256")
            if len(taken):
                self.by_content += len(taken)
                found.append(pc.unique(batch["image"].take(pa.array(taken.ravel()))))
                yield self._joined(batch, taken)
        if found:
            self.left_out -= pc.count_distinct(pa.chunked_array(found)).as_py()

    def _all_rows(self, has_content: bool) -> Iterator[pa.RecordBatch]:
        for side, file in enumerate(self._files):
            row = 0
            for batch in file.batches([*_READ, *(["sha256"] if has_content else [])]):
                size = len(batch)
                yield pa.record_batch(
                    [
                        batch["image"],
                        batch["sha256"] if has_content else pa.nulls(size, pa.string()),
                        pa.array(np.full(size, side, np.int32)),
                        pa.array(np.arange(row, row + size)),
                        pc.equal(batch["status"], "ok"),
                        self._class_index(batch["true_label"]),
                        self._class_index(batch["predicted_label"]),
                        *(batch[name] for name in ("probability", "true_rank", "true_probability", "file_size")),
                    ],
                    schema=_ROWS,
                )
                row += size

    def _complete(self, batch: pa.RecordBatch, key: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Separate the groups that have rows of all reports from the others.

        Gives indices of rows of the first kind, [groups, reports], those of all other rows, and the number of other
        groups.
        """
        sides = len(self._files)
        group = group_numbers(batch[key])
        _, first = np.unique(group * sides + batch["side"].to_numpy(), return_index=True)  # the first row of each side
        complete = np.bincount(group[first]) == sides
        taken = first[complete[group[first]]].reshape(-1, sides)
        return taken, np.flatnonzero(~complete[group]), int((~complete).sum())

    def _joined(self, batch: pa.RecordBatch, taken: npt.NDArray[np.int64]) -> Joined:
        def column(name: str, fill: float | bool) -> npt.NDArray[Any]:
            values: npt.NDArray[Any] = pc.fill_null(batch[name], fill).to_numpy(zero_copy_only=False)
            return values[taken]

        self.joined += len(taken)
        first = pa.array(taken[:, 0])
        return Joined(
            batch["image"].take(first),
            batch["file_size"].take(first),
            column("row", -1),
            column("ok", False),
            column("truth", -1),
            column("predicted", -1),
            column("probability", float("nan")),
            column("true_rank", 0),
            column("true_probability", float("nan")),
        )

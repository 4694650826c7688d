"""Which pictures the page shows: of the most confused pairs, of suspected label errors, of the worst mistakes."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchland.report.pictures import Thumbnail, Thumbnails
from batchland.schemas import ConfusedPair

if TYPE_CHECKING:
    from batchland.evaluation import Evaluation
    from batchland.report import ReportOptions

PAIRS: Final = 10
PICTURES_PER_PAIR: Final = 3


class Picture(NamedTuple):
    """One mistake with its thumbnail."""

    image: str
    true_label: str
    predicted_label: str
    probability: float
    true_probability: float | None
    true_rank: int | None
    thumbnail: Thumbnail


class PairPictures(NamedTuple):
    """A pair of classes and its surest mistakes."""

    pair: ConfusedPair
    pictures: tuple[Picture, ...]


class Galleries(NamedTuple):
    """What the page shows, and how many there are in all."""

    suspected: tuple[Picture, ...]
    suspected_total: int
    worst: tuple[Picture, ...]
    worst_total: int
    pairs: tuple[PairPictures, ...]


def galleries(evaluation: "Evaluation", options: "ReportOptions") -> Galleries:
    """Choose the pictures; suspected label errors and other mistakes exclude each other, so none is shown in both."""
    budget = options.picture_bytes
    # A fixed part for each gallery, so that big pictures in the first do not starve the last.
    shares = [Thumbnails(evaluation.image_root, options.thumbnail_side, budget * part // 10) for part in (4, 3, 3)]
    table = evaluation.mistakes
    suspected = table.filter(table["suspected_label_error"])
    suspected = suspected.sort_by([("suspicion", "descending"), ("image", "ascending")])
    others = table.filter(pc.invert(table["suspected_label_error"]))
    pairs = []
    for pair in evaluation.summary.most_confused[:PAIRS]:
        same = pc.and_(
            pc.equal(table["true_label"], pair.true_label), pc.equal(table["predicted_label"], pair.predicted_label)
        )
        shown = min(PICTURES_PER_PAIR, options.gallery)
        pairs.append(PairPictures(pair, _pictures(table.filter(same)[:shown], shares[2])))
    return Galleries(
        _pictures(suspected[: options.gallery], shares[0]),
        suspected.num_rows,
        _pictures(others[: options.gallery], shares[1]),
        others.num_rows,
        tuple(pairs),
    )


def _pictures(rows: pa.Table, thumbnails: Thumbnails) -> tuple[Picture, ...]:
    return tuple(_picture(row, thumbnails) for row in rows.to_pylist())


def _picture(row: dict[str, Any], thumbnails: Thumbnails) -> Picture:
    return Picture(
        row["image"],
        row["true_label"],
        row["predicted_label"],
        row["probability"],
        row["true_probability"],
        row["true_rank"],
        thumbnails.make(row["image"], row["file_size"]),
    )

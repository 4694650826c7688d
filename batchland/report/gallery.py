"""Choose the pictures of a page: suspected label errors, other mistakes, the most confused pairs."""

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.schema import ConfusedPair
from batchland.report.options import ReportOptions
from batchland.report.pictures import Thumbnail, Thumbnails

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

PAIRS: Final = 10
PICTURES_PER_PAIR: Final = 3
GALLERIES_TENTHS: Final = 6
"""Tenths of the bytes of all pictures; the rest is for browsing images, see page_images."""


class Picture(NamedTuple):
    """One mistake or stranger with its thumbnail."""

    thumbnail: Thumbnail
    image: str
    true_label: str
    predicted_label: str
    probability: float
    true_probability: float | None = None
    true_rank: int | None = None
    known: float = 1.0
    """Of a stranger."""


class PairPictures(NamedTuple):
    """A pair of classes and its most confident mistakes."""

    pair: ConfusedPair
    pictures: tuple[Picture, ...]


class Galleries(NamedTuple):
    """The pictures shown, and how many images there are in all."""

    suspected: tuple[Picture, ...]
    suspected_total: int
    suspected_share: float
    """Expected share of wrong labels among them."""
    worst: tuple[Picture, ...]
    worst_total: int
    pairs: tuple[PairPictures, ...]
    strangers: tuple[Picture, ...]
    missing: str | None
    """Why no picture can be shown; None if some can."""

    @property
    def images(self) -> list[str]:
        """All mistakes that are shown, each once."""
        pairs = (picture for pair in self.pairs for picture in pair.pictures)
        return list(dict.fromkeys(picture.image for picture in (*self.suspected, *self.worst, *pairs)))


def galleries(evaluation: "Evaluation", options: ReportOptions) -> Galleries:
    """Choose the pictures. No image is in both `suspected` and `worst`."""
    budget = options.picture_bytes * GALLERIES_TENTHS // 10
    # Each gallery has its own share of the bytes, so that the first one cannot use all bytes.
    parts = (4, 3, 3, 0) if evaluation.strangers is None else (3, 2, 3, 2)
    shares = [Thumbnails(evaluation.image_root, options.thumbnail_side, budget * part // 10) for part in parts]
    table = evaluation.mistakes
    suspected = table.filter(table["suspected_label_error"])
    suspected = suspected.sort_by([("label_error_probability", "descending"), ("image", "ascending")])
    others = table.filter(pc.invert(table["suspected_label_error"]))
    pairs = []
    for pair in evaluation.summary.most_confused[:PAIRS]:
        same = pc.and_(
            pc.equal(table["true_label"], pair.true_label), pc.equal(table["predicted_label"], pair.predicted_label)
        )
        shown = min(PICTURES_PER_PAIR, options.gallery)
        pairs.append(PairPictures(pair, _pictures(table.filter(same)[:shown], shares[2])))
    sure = _pictures(suspected[: options.gallery], shares[0])
    worst = _pictures(others[: options.gallery], shares[1])
    strange = evaluation.strangers
    strangers = _pictures(strange[: options.gallery], shares[3]) if strange is not None else ()
    chosen = [*sure, *worst, *strangers, *(picture for pair in pairs for picture in pair.pictures)]
    missing = None
    if chosen and not any(picture.thumbnail.uri for picture in chosen):
        reasons = Counter(picture.thumbnail.missing for picture in chosen)
        missing = f"{reasons.most_common(1)[0][0]} (the images below {evaluation.image_root})"
        if not budget:
            missing = "switched off"
    errors = evaluation.summary.label_errors
    assert errors is not None, "only reports of earlier versions have none"
    other_mistakes = errors.mistakes - errors.suspected
    share = errors.share or 0.0
    return Galleries(sure, errors.suspected, share, worst, other_mistakes, tuple(pairs), strangers, missing)


def _pictures(rows: pa.Table, thumbnails: Thumbnails) -> tuple[Picture, ...]:
    return tuple(
        Picture(
            thumbnails.make(row["image"], row["file_size"]),
            **{name: row[name] for name in Picture._fields if name in row},
        )
        for row in rows.to_pylist()
    )

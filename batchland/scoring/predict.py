"""Predict a few images in memory, decoded and preprocessed exactly as score() does it."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from batchland.errors import UsageError
from batchland.images.loader import BatchLoader
from batchland.images.sources.refs import ImageRef
from batchland.models.session import Session
from batchland.predictions.rows import to_rows
from batchland.system.documents import Document
from batchland.system.names import display_name
from batchland.system.text import aligned, one_line, percent, visible

_BATCH_SIZE = 32


class Choice(Document):
    """One class and its probability."""

    label: str
    class_index: int
    probability: float


class Prediction(Document):
    """The most probable classes of one image, best first, or why it failed."""

    image: str
    """Path as it was given."""
    choices: tuple[Choice, ...] = ()
    error_code: str | None = None
    error_message: str | None = None


def predict(images: Sequence[str | os.PathLike[str]], session: Session, top_k: int = 5) -> Iterator[Prediction]:
    """One prediction for each image, in order; that of a failed image has an error code and no choices.

    top_k is capped by the number of classes. Raises UsageError for a single path instead of a sequence; ModelError if
    onnxruntime fails.
    """
    if isinstance(images, str | bytes | os.PathLike):
        raise UsageError(f"images is one path, {os.fsdecode(images)!r}; give a list of paths")
    refs = [_ref(image) for image in images]
    for batch in BatchLoader(refs, session.card.preprocess, min(_BATCH_SIZE, len(refs))):
        scored = None if batch.failed == len(batch.refs) else session.predict(batch.pixels)
        rows = to_rows(batch, scored, session.card, top_k)
        for row in rows.select(["image", "error_code", "error_message", "top_k"]).to_pylist():
            yield Prediction(choices=tuple(row.pop("top_k") or ()), **row)


def prediction_table(predictions: Sequence[Prediction]) -> str:
    """Text for a terminal: each image, and below it its classes with their probabilities. Ends with a newline."""
    choices = iter(
        aligned(
            [
                (str(rank), one_line(choice.label, 60), percent(choice.probability))
                for each in predictions
                for rank, choice in enumerate(each.choices, 1)
            ],
            "><>",
        )
    )
    lines = []
    for each in predictions:
        lines.append(visible(each.image))
        if each.error_code:
            lines.append(f"  failed: {each.error_message} ({each.error_code})")
        lines += [f"  {line}" for line in islice(choices, len(each.choices))]
    return "\n".join(lines) + "\n"


def _ref(image: str | os.PathLike[str]) -> ImageRef:
    path = os.fsencode(image)
    if Path(image).is_dir():
        return ImageRef(display_name(path), path, ("io_error", "is a folder; score it with `batchland score`"))
    return ImageRef(display_name(path), path)

"""Pictures for a notification: of the first finding, of the most confident mistakes, or of the least confident
answers."""

import base64
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import BatchlandError
from batchland.evaluation.saved import MISTAKES_FILE
from batchland.images.sources.refs import read_image
from batchland.nightly.notifications.message import Picture
from batchland.nightly.recorder import Recorder
from batchland.nightly.run_record import ModelRun
from batchland.predictions.reader import StoredPredictions
from batchland.report.pictures import small_jpeg
from batchland.scoring.listing import open_listing
from batchland.system.text import one_line, percent

PICTURES: Final = 3
SUSPICIOUS_PICTURES: Final = 6
SIDE: Final = 160
"""Longest side in pixels."""
_CAPTION: Final = 120
_CANDIDATES: Final = 3 * PICTURES
"""Images to try, because some may be gone by now."""
_COLUMNS: Final = ("image", "label", "probability")

_log = logging.getLogger("batchland")


def choose_pictures(recorder: Recorder) -> tuple[Picture, ...]:
    """Up to six pictures of a suspicious night, else up to three, of the first model that has some.

    Never raises; returns none if they cannot be read.
    """
    try:
        for model in recorder.models.values():
            if pictures := _pictures(recorder, _suspicious(model), SUSPICIOUS_PICTURES):
                return pictures
        for name, model in recorder.models.items():
            if pictures := _pictures(recorder, _mistakes(model) or _least_sure(recorder, name)):
                return pictures
    except (BatchlandError, OSError, pa.ArrowException) as error:
        _log.info("notify: no pictures (%s)", error)
    return ()


def _suspicious(model: ModelRun) -> list[dict[str, Any]]:
    """The images that show a finding of the monitor."""
    if model.monitor is None or model.monitor.verdict != "suspicious":
        return []
    what = (model.monitor.pictures_show or "suspicious").replace("_", " ")
    return [{"image": name, "caption": what} for name in model.monitor.pictures]


def _mistakes(model: ModelRun) -> list[dict[str, Any]]:
    """The most confident mistakes, from the model's report."""
    if not model.evaluation or not (path := Path(model.evaluation.report, MISTAKES_FILE)).exists():
        return []
    table = pq.ParquetFile(path).read(["image", "true_label", "predicted_label", "probability"])
    rows = table[:_CANDIDATES].to_pylist()  # the most confident ones come first
    return [
        {
            "image": row["image"],
            "caption": f"{row['predicted_label']} {percent(row['probability'])}, labelled {row['true_label']}",
        }
        for row in rows
    ]


def _least_sure(recorder: Recorder, name: str) -> list[dict[str, Any]]:
    """The images with the lowest probability of their first choice."""
    stored = StoredPredictions(recorder.job.partition(name, recorder.night))
    if stored.kind is None:
        return []
    lowest: list[dict[str, Any]] = []
    for batch in stored.rows(_COLUMNS):
        rows = batch.drop_null().sort_by([("probability", "ascending")])[:_CANDIDATES].to_pylist()
        lowest = sorted([*lowest, *rows], key=lambda row: row["probability"])[:_CANDIDATES]
    return [{"image": row["image"], "caption": f"{row['label']} {percent(row['probability'])}"} for row in lowest]


def _pictures(recorder: Recorder, rows: Iterable[dict[str, Any]], most: int = PICTURES) -> tuple[Picture, ...]:
    listing = open_listing(recorder.job.images_of(recorder.night), recorder.job)
    pictures: list[Picture] = []
    for row in rows:
        ref = next(iter(listing.source.retry_refs(row["image"])))
        try:
            jpeg, (width, height) = small_jpeg(read_image(ref).data, SIDE)
        except BatchlandError:  # gone or changed since it was scored
            continue
        caption = one_line(f"{row['image']}: {row['caption']}", _CAPTION)
        encoded = base64.b64encode(jpeg).decode()
        pictures.append(Picture(caption=caption, jpeg_base64=encoded, width=width, height=height))
        if len(pictures) == most:
            break
    return tuple(pictures)

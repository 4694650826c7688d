"""Search for the images of predictions that are most similar to one image, by the model's features."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from batchland.embeddings.kept_index import INDEX_FROM, kept_index
from batchland.embeddings.neighbours import Floats, Rows
from batchland.embeddings.pictures import FEATURES, feature_rows, open_predictions, scored_batches
from batchland.errors import UsageError
from batchland.images.loader import load_image
from batchland.images.sources.refs import ImageRef
from batchland.models.session import open_session
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import Location
from batchland.system.documents import Count, Document
from batchland.system.names import display_path
from batchland.system.options import Options
from batchland.system.text import visible

_FACTS = ("image", "label", "probability", "file_size")


class SimilarOptions(Options):
    """Options of the search."""

    top: Annotated[int, Field(gt=0, le=100_000)] = 20
    """Number of images to find."""
    model: Path | None = None
    """The model that scored PREDS, if it has moved since. Only needed for an image file that is not in PREDS."""
    index: Path | None = None
    """Folder of an index, for many searches among 100,000 images or more: built by the first search, used by later
    ones. It may miss some of the most similar images. Not needed for fewer images."""


class SimilarImage(Document):
    """An image that was found."""

    predictions: str
    image: str
    label: str | None
    """Label of the class with the highest probability."""
    probability: float | None
    file_size: int | None
    """Size of the file in bytes when it was scored."""
    similarity: float
    """Inner product of the features, which have length 1; it is 1 for equal features."""


class Similar(Document):
    """Printed by `batchland similar --json`."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.similar"] = "batchland.similar"
    image: str
    """Path of the query image as it was given."""
    predictions: tuple[str, ...]
    images: Count
    """Number of images that were searched."""
    approximate: bool
    """Whether an index was used, which may miss some of the most similar images."""
    similar: tuple[SimilarImage, ...]
    """The most similar images, the most similar one first."""


class FoundSimilar(NamedTuple):
    """Result of `find_similar`."""

    result: Similar
    roots: dict[str, str]
    """The scored folder of each of the predictions."""
    query: Path
    """The file of the given image."""


def find_similar(image: str, predictions: Sequence[Location], options: SimilarOptions | None = None) -> FoundSimilar:
    """The images of predictions that are most similar to an image, without the image itself.

    image: its name in the predictions, or a file, which is then scored with the same model. Memory does not grow with
    the number of images.

    Raises UsageError if there is no such image, or if the predictions have no features or are of several models;
    ModelError if the model cannot be used.
    """
    options = options or SimilarOptions()
    stored = open_predictions(predictions)
    _require_features(stored)
    if options.index is not None and sum(each.info().counts.ok for each in stored) >= INDEX_FROM:
        return _find_indexed(image, stored, options, options.index)
    roots = {each.name: each.info().images for each in stored}
    asked = _find_query(image, stored)
    if asked is not None:
        query, file = asked
    else:
        query, file = _score_query(image, stored, options.model), Path(image)
    names, count, best = image if asked is not None else None, 0, pa.table({})
    for each in stored:
        for batch in _scored(each):
            count += batch.num_rows
            best = _keep_best(best, batch, each.name, query, options.top, names)
    found = tuple(SimilarImage(**row) for row in best.to_pylist())
    if not count:
        raise UsageError(f"{stored[0].name}: has no image that was scored; nothing can be compared")
    result = Similar(image=image, predictions=tuple(roots), images=count, approximate=False, similar=found)
    return FoundSimilar(result, roots, file)


def _find_indexed(
    image: str, stored: Sequence[StoredPredictions], options: SimilarOptions, folder: Path
) -> FoundSimilar:
    """`find_similar` with an index."""
    lists = kept_index(folder, stored)
    roots = {each.name: each.info().images for each in stored}
    itself = _rows_of(image, stored)
    if itself:
        row, root = itself[0]
        query, file = lists.vector(row), Path(root, image)
    else:
        query, file = _score_query(image, stored, options.model), Path(image)
    rows, similarity = lists.nearest(query, options.top + len(itself))
    others = ~np.isin(rows, [row for row, _ in itself])
    rows, similarity = rows[others][: options.top], similarity[others][: options.top]
    facts = _read_rows(rows, stored)
    found = tuple(
        SimilarImage(**facts[row], similarity=min(value, 1))
        for row, value in zip(rows.tolist(), similarity.tolist(), strict=True)
    )
    result = Similar(image=image, predictions=tuple(roots), images=len(lists), approximate=True, similar=found)
    return FoundSimilar(result, roots, file)


def _rows_of(image: str, stored: Sequence[StoredPredictions]) -> list[tuple[int, str]]:
    """Numbers of an image's rows among all scored rows, and the folder in which each was scored."""
    found, start = [], 0
    for each in stored:
        for batch in scored_batches(each, ["image"]):
            rows = pc.indices_nonzero(pc.equal(batch["image"], image)).to_pylist()
            found += [(start + row, each.info().images) for row in rows]
            start += len(batch)
    return found


def _read_rows(rows: Rows, stored: Sequence[StoredPredictions]) -> dict[int, dict[str, Any]]:
    """Columns of the given rows, which are numbered over all scored rows."""
    found: dict[int, dict[str, Any]] = {}
    wanted, start = np.sort(rows), 0
    for each in stored:
        for batch in scored_batches(each, _FACTS):
            here = wanted[(wanted >= start) & (wanted < start + len(batch))]
            if len(here):
                table = batch.take(pa.array(here - start)).to_pylist()
                of = {"predictions": each.name}
                found |= {row: facts | of for row, facts in zip(here.tolist(), table, strict=True)}
            start += len(batch)
    return found


def _require_features(stored: Sequence[StoredPredictions]) -> None:
    for each in stored:
        if FEATURES not in each.schema(each.parts()[0]).names:
            raise UsageError(f"{each.name}: has no features", advice="score_features")
        if each.info().model.features_sha256 != stored[0].info().model.features_sha256:
            raise UsageError(
                f"{each.name}: has features of another model than {stored[0].name}; compare predictions of one model"
            )


def _scored(stored: StoredPredictions) -> Iterator[pa.RecordBatch]:
    """Names, answers and features of the images that have features."""
    for part in stored.parts():
        for batch in stored.batches(part, [*_FACTS, FEATURES]):
            yield batch.filter(pc.is_valid(batch[FEATURES]))


def _find_query(image: str, stored: Sequence[StoredPredictions]) -> tuple[Floats, Path] | None:
    """Features and file of an image in the predictions."""
    for each in stored:
        for batch in _scored(each):
            found = batch.filter(pc.equal(batch["image"], image))
            if found.num_rows:
                return feature_rows(found[FEATURES])[0].astype(np.float32), Path(each.info().images, image)
    return None


def _require_not_failed(image: str, stored: Sequence[StoredPredictions]) -> None:
    """Raise UsageError if the image is in the predictions and failed."""
    for each in stored:
        for part in each.parts():
            for batch in each.batches(part, ["image", "error_code"]):
                for code in batch.filter(pc.equal(batch["image"], image))["error_code"].drop_null().to_pylist():
                    raise UsageError(f"{image}: failed with {code} in {each.name}, so it has no features")


def _score_query(image: str, stored: Sequence[StoredPredictions], model: Path | None) -> Floats:
    """Features of a file, computed by the model that made the predictions."""
    name, info = stored[0].name, stored[0].info().model
    if not Path(image).is_file():
        _require_not_failed(image, stored)
        raise UsageError(f"{image}: is neither a file nor an image of {name}; give a path, or a name as in `image`")
    path = model or Path(info.file)
    if model is None and not path.exists():
        raise UsageError(f"{path}: does not exist any more; it is the model that scored {name}", advice="moved_model")
    session = open_session(path, "cpu", features=True)
    if session.features_sha256 != info.features_sha256:
        raise UsageError(
            f"{path}: is not the model that scored {name}, {visible(info.name)} (sha256 {info.sha256[:12]})",
            advice="moved_model",
        )
    outcome, pixels = load_image(ImageRef(display_path(image), os.fsencode(image)), session.card.preprocess)
    if outcome.error is not None:
        raise UsageError(f"{image}: cannot be read ({outcome.error[1]})")
    features = session.answer(np.asarray(pixels)[None]).features
    assert features is not None
    query: Floats = features[0]
    return query


def _keep_best(
    best: pa.Table, batch: pa.RecordBatch, predictions: str, query: Floats, top: int, without: str | None
) -> pa.Table:
    """The most similar images of `best` and a batch; ties in the order of the predictions."""
    similarity = (feature_rows(batch[FEATURES]).astype(np.float32) @ query).clip(max=1)  # float16 may be longer than 1
    table = pa.Table.from_batches([batch.select(_FACTS)])
    table = table.append_column("predictions", pa.array([predictions] * len(table), pa.string()))
    table = table.append_column("similarity", pa.array(similarity))
    if without is not None:
        table = table.filter(pc.not_equal(table["image"], without))
    if best.num_columns:
        table = pa.concat_tables([best, table])
    return table.take(pa.array(np.argsort(-table["similarity"].to_numpy(), kind="stable")[:top]))

"""An index of the features of predictions that is kept in a folder: later searches read little of it. Approximate."""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import ValidationError

from batchland.embeddings.lists import Lists, require_lists
from batchland.embeddings.pictures import FEATURES, feature_rows
from batchland.errors import OutputError, UsageError
from batchland.predictions.reader import StoredPredictions
from batchland.system.documents import Count, Document
from batchland.system.files import new_file, write_file
from batchland.system.text import images

INDEX_FROM: Final = 100_000
"""Images; fewer are searched in a few seconds without an index (benchmarks/results/indexes.md)."""
INDEX_FILES: Final = ("index.json", "vectors.faiss")
_log = logging.getLogger("batchland")


class IndexInfo(Document):
    """`index.json` in the folder: what the index is of."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.index"] = "batchland.index"
    runs: tuple[str, ...]
    """run_id of each of the predictions, in order."""
    model_sha256: str
    images: Count
    """Scored images of all of them together."""


def kept_index(folder: Path, stored: Sequence[StoredPredictions]) -> Lists:
    """The index in a folder, or, if there is none yet, one that is built and kept there.

    Building reads all features once, and takes about twice their size in memory. Raises UsageError if the folder holds
    something else, an index of other predictions, or if faiss is not installed; OutputError if it cannot be written.
    """
    require_lists()
    infos = [each.info() for each in stored]
    wanted = IndexInfo(
        runs=tuple(info.run_id for info in infos),
        model_sha256=infos[0].model.sha256,
        images=sum(info.counts.ok for info in infos),
    )
    kept = _read_info(folder)
    if kept is None:
        _log.info("building the index of %s in %s", images(wanted.images), folder)
        _build(folder, stored, wanted)
    elif kept != wanted:
        raise UsageError(f"{folder}: is an index of other predictions; remove it, or give another folder")
    path = folder / INDEX_FILES[1]
    try:
        lists = Lists.read(path)
    except RuntimeError as error:  # faiss has no other errors
        raise UsageError(f"{path}: cannot be read; remove {folder} to build it again") from error
    if len(lists) != wanted.images:
        raise UsageError(f"{path}: has {images(len(lists))}, not {wanted.images:,}; remove {folder} to build it again")
    return lists


def _read_info(folder: Path) -> IndexInfo | None:
    """The description of the index in the folder; None if the folder is new or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        return IndexInfo.model_validate_json((folder / INDEX_FILES[0]).read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{folder}: is not an index that this version of batchland reads; give another folder") from (
            error
        )


def _build(folder: Path, stored: Sequence[StoredPredictions], info: IndexInfo) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            size = 0
            for each in stored:
                for part in each.parts():
                    for batch in each.batches(part, [FEATURES]):
                        rows = feature_rows(batch.filter(pc.is_valid(batch[FEATURES]))[FEATURES])
                        file.write(rows.tobytes())
                        size = rows.shape[1]
            file.flush()
            lists = Lists.of(np.memmap(file, np.float16, "r", shape=(info.images, size)))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    with new_file(folder / INDEX_FILES[1]) as temporary:
        lists.write(temporary)
    write_file(folder / INDEX_FILES[0], info.model_dump_json(indent=2) + "\n")

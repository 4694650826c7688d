"""Score each content once: reuse rows of earlier predictions, and copy rows for equal files in one run.

The files of a part are read and hashed before the engine gets them, so that it gets whole batches of new images. So new
files are read twice.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import count
from typing import Final, NamedTuple

from batchland.errors import ImageError
from batchland.images.batch import Batch, Loaded, Outcome
from batchland.images.loader import BatchLoader
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef, read_image
from batchland.predictions.copied_row import CopiedRow
from batchland.predictions.parts import Entry, KeptRow
from batchland.predictions.rows import rows_for
from batchland.scoring.known_rows import KnownRows

MAX_REMEMBERED: Final = 100_000
"""Number of the latest new images among which equal images of this run are found."""
_BATCH: Final = 128
"""Images hashed at a time; two more such batches are prepared in advance."""
_NO_PIXELS: Final = PreprocessSpec(height=1, width=1)


class _RowAddress(NamedTuple):
    """Where the row of an image of this run is."""

    name: str
    part: int
    row: int


class Reuse:
    """Replaces images by rows: known ones, and those of equal images of this run.

    Does nothing before `look_in` is called. timeout: seconds that reading an image may take. on_wait: called while
    images are waited for; may raise. copies: look for equal images of this run.
    """

    def __init__(self, timeout: float, on_wait: Callable[[], None], *, copies: bool = True) -> None:
        self._copies = copies
        self._known: KnownRows | None = None
        self._timeout = timeout
        self._on_wait = on_wait
        self._new: dict[str, _RowAddress] = {}
        self.reused = 0
        """Images with a known row."""
        self.copied = 0
        """Images with the row of an equal image of this run."""

    def look_in(self, known: KnownRows) -> None:
        """Give the known rows."""
        self._known = known

    def find(self, part: int, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries of a part, images replaced by rows where possible. Images that cannot be read stay images."""
        if self._known is None:
            yield from entries
            return
        passed: deque[Entry] = deque()
        rows = count()

        def images() -> Iterator[ImageRef]:
            for entry in entries:
                passed.append(entry)
                if isinstance(entry, ImageRef):
                    yield entry

        loader = BatchLoader(
            images(), _NO_PIXELS, _BATCH, timeout=self._timeout, on_wait=self._on_wait, load=_read_and_hash
        )
        with closing(iter(loader)) as batches:
            for batch in batches:
                for ref, outcome, known in zip(
                    batch.refs, batch.outcomes, _known_rows(batch, self._known), strict=True
                ):
                    while (entry := passed.popleft()) is not ref:  # a row that is kept
                        next(rows)
                        yield entry
                    address = _RowAddress(ref.name, part, next(rows))
                    self.reused += known is not None
                    yield known or self._new_or_copied(ref, outcome, address)
        yield from passed

    def _new_or_copied(self, ref: ImageRef, outcome: Outcome, address: _RowAddress) -> ImageRef | CopiedRow:
        if outcome.sha256 is None:
            return ref
        if self._copies and (first := self._new.get(outcome.sha256)):
            self.copied += 1
            return CopiedRow(ref, outcome.modified_us, outcome.sha256, *first)
        self._new[outcome.sha256] = address
        if len(self._new) > MAX_REMEMBERED:
            del self._new[next(iter(self._new))]
        return ref


def _known_rows(batch: Batch, rows_known: KnownRows) -> list[KeptRow | None]:
    """For each image its known row."""
    found = [rows_known.find(outcome.sha256) if outcome.sha256 else None for outcome in batch.outcomes]
    known: list[KeptRow | None] = [None] * len(found)
    here = [index for index, number in enumerate(found) if number is not None]
    if here:
        taken = rows_known.take([number for number in found if number is not None])
        modified = [batch.outcomes[index].modified_us for index in here]
        rows = rows_for(taken, [batch.refs[index] for index in here], modified)
        for number, index in enumerate(here):
            known[index] = KeptRow(batch.refs[index].name, rows, number, batch.refs[index].own)
    return known


def _read_and_hash(ref: ImageRef, spec: PreprocessSpec) -> Loaded:  # noqa: ARG001 - a Load of the loader
    begin = time.perf_counter()
    try:
        file = read_image(ref)
    except ImageError as error:
        return Outcome(error=(error.code, str(error))), None
    read = time.perf_counter()
    facts = file.facts()
    return Outcome(**facts, read_seconds=read - begin, decode_seconds=time.perf_counter() - read), None

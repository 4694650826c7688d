"""An output that is there already, as the beginning of a new one: its good rows are kept, its failed ones scored again.

Knows nothing of models or pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from batchland.errors import UsageError
from batchland.images.sources.refs import ImageRef
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import PREDICTIONS
from batchland.predictions.writer import Entry, KeptRow


class EarlierOutput:
    """The predictions at `out`. Raises UsageError if there are none that batchland wrote."""

    def __init__(self, location: Path | str) -> None:
        self._stored = StoredPredictions(location)
        self.out = out = self._stored.name
        if self._stored.kind is None or not (parts := self._stored.parts()):
            raise UsageError(f"{out}: there are no predictions yet; run without --retry-failed first")
        if not all(self._stored.schema(part).equals(PREDICTIONS) for part in parts):
            raise UsageError(f"{out}: has other columns than this batchland writes; score anew with --overwrite")
        self.info = self._stored.info()
        self._stamps = [(part, self._stored.stamp(part)) for part in parts]
        self.identity = [[part, *stamp] for part, stamp in self._stamps]
        """Tells this output from the one that replaces it."""

    @property
    def ignored(self) -> dict[str, int]:
        """What was not listed then, by its manifest."""
        with suppress(UsageError):
            if manifest := self._stored.manifest():
                return dict(manifest.ignored)
        return {}

    def check_same(self, **given: object) -> None:
        """Raise UsageError if a new run would not make the rows as this one was made.

        given: values of PredictionsInfo's fields; of the model, its name and sha256.
        """
        made_with = {**dict(self.info), "model": (self.info.model.name, self.info.model.sha256)}
        for name, value in given.items():
            if made_with[name] != value:
                raise UsageError(
                    f"{self.out}: was made with {name} = {_told(made_with[name])}, not {_told(value)}; --retry-failed "
                    f"keeps its good rows and needs the same, or score anew with --overwrite"
                )

    def entries(self, list_again: Callable[[str], Iterable[ImageRef]]) -> Iterator[Entry]:
        """What the new output is made of, in order: good rows, and what `list_again` gives for a failed row's name."""
        for part, stamp in self._stamps:
            if self._stored.stamp(part) != stamp:
                raise UsageError(f"{self.out}: another run has replaced {part} meanwhile; run the same command again")
            for rows in self._stored.batches(part):
                kept = rows.replace_schema_metadata(None)
                states = zip(rows["image"].to_pylist(), rows["status"].to_pylist(), strict=True)
                for row, (name, status) in enumerate(states):
                    if status == "ok":
                        yield KeptRow(name, kept, row)
                    else:
                        yield from list_again(name)


def _told(value: object) -> str:
    return f"{value[0]} (sha256 {value[1][:12]})" if isinstance(value, tuple) else str(value)

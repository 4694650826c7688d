"""An output that is there already, as the beginning of a new one: its good rows are kept, its failed ones scored again.

Knows nothing of models or pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.output import is_file_output, manifest_path
from batchland.schemas import METADATA_KEY, PREDICTIONS, Manifest, PredictionsInfo
from batchland.sink import Entry, KeptRow
from batchland.source import ImageRef


class EarlierOutput:
    """The predictions at `out`. Raises UsageError if there are none that batchland wrote."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._files = [out] if is_file_output(out) else sorted(out.glob("part-*.parquet"))
        if not self._files or not all(path.is_file() for path in self._files):
            raise UsageError(f"{out}: there are no predictions yet; run without --retry-failed first")
        try:
            schemas = [_schema(path) for path in self._files]
            if not all(schema.equals(PREDICTIONS) for schema in schemas):
                raise UsageError(f"{out}: has other columns than this batchland writes; score anew with --overwrite")
            self.info = PredictionsInfo.model_validate_json(schemas[0].metadata[METADATA_KEY])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValidationError) as error:
            raise UsageError(f"{out}: is not a predictions file of batchland; score anew with --overwrite") from error
        self.identity = [[path.name, *_stamp(path)] for path in self._files]
        """Tells this output from the one that replaces it."""

    @property
    def ignored(self) -> dict[str, int]:
        """What was not listed then, by its manifest."""
        with suppress(OSError, ValidationError):
            return dict(Manifest.model_validate_json(manifest_path(self.out).read_text("utf-8")).ignored)
        return {}

    def check_same(self, **given: object) -> None:
        """Raise UsageError if a new run would not make the rows as this one was made.

        given: values of PredictionsInfo's fields, and `model_sha256`.
        """
        made_with = {**dict(self.info), "model_sha256": self.info.model.sha256}
        for name, value in given.items():
            if made_with[name] != value:
                raise UsageError(
                    f"{self.out}: was made with {name} = {made_with[name]}, not {value}; --retry-failed keeps its good "
                    f"rows and needs the same, or score anew with --overwrite"
                )

    def entries(self, list_again: Callable[[str], Iterable[ImageRef]]) -> Iterator[Entry]:
        """What the new output is made of, in order: good rows, and what `list_again` gives for a failed row's name."""
        for path, identity in zip(self._files, self.identity, strict=True):
            if [path.name, *_stamp(path)] != identity:
                raise UsageError(f"{path}: another run has replaced it meanwhile; run the same command again")
            with path.open("rb") as file, pq.ParquetFile(file) as parquet:
                for rows in parquet.iter_batches():
                    kept = rows.replace_schema_metadata(None)
                    states = zip(rows["image"].to_pylist(), rows["status"].to_pylist(), strict=True)
                    for place, (name, status) in enumerate(states):
                        if status == "ok":
                            yield KeptRow(name, kept, place)
                        else:
                            yield from list_again(name)


def _schema(path: Path) -> pa.Schema:
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        return parquet.schema_arrow


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns

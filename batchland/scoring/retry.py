"""Score the failed rows of an output again, or add missing images; all other rows are kept."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchland.errors import ImageError, UsageError
from batchland.images.sources.folder import Folder
from batchland.images.sources.refs import content_hash, read_image
from batchland.images.sources.source import ContainerSource
from batchland.models.session import OpenModel
from batchland.predictions.parts import Entry, KeptRow
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import FIRST_COLUMNS, PredictionsInfo, complete_columns, full_schema, own_schema
from batchland.scoring.listing import ImageListing
from batchland.scoring.options import ScoreOptions
from batchland.scoring.run import Run
from batchland.system.arrow import plain_columns, plain_values
from batchland.system.names import file_name

_log = logging.getLogger("batchland")


class RetryRun(Run):
    """Replace the predictions at `out` by ones with the same good rows and new rows for failed images.

    Raises UsageError if there are no predictions of batchland at `out`, NoSuchImagesError if the folder of images is
    gone.
    """

    def __init__(self, listing: ImageListing, out: Path | str, options: ScoreOptions) -> None:
        if options.overwrite:
            raise UsageError("retry_failed keeps the good rows of an output, overwrite none; give one of the two")
        self._earlier = earlier = StoredPredictions(out)
        super().__init__(listing, out, options)
        if earlier.kind is None or not (parts := earlier.parts()):
            raise UsageError(f"{earlier.name}: there are no predictions yet to retry")
        if any("/" in part for part in parts):
            _log.warning("%s: its shards become one output; their folders and manifests are removed", earlier.name)
        listing.check_root()  # else all images would be `vanished`
        self._info = _read_info(earlier, parts)
        self._ignored = _read_ignored(earlier)
        self._stamps = [(part, earlier.stamp(part)) for part in parts]

    @cached_property
    def own(self) -> pa.Schema:
        """Further columns of the output that is retried; the image list is not read again."""
        parts = self._earlier.parts() if self._earlier.kind else []
        return own_schema(self._earlier.schema(parts[0])) if parts else pa.schema([])

    def entries(self) -> Iterator[Entry]:
        """Good rows unchanged, and the images of failed rows. Raises UsageError if another run replaces a part."""
        check = self._checked_containers()
        for row, code in self.earlier_rows():
            if code is None:
                if check is not None:
                    check(row)
                yield row
            else:
                yield from (ref._replace(own=row.own) for ref in self.listing.retry_refs(row.name))

    def earlier_rows(self) -> Iterator[tuple[KeptRow, str | None]]:
        """The output's rows in order, with their error codes. Raises UsageError if another run replaces a part."""
        for part, stamp in self._stamps:
            if self._earlier.stamp(part) != stamp:
                raise UsageError(f"{self._earlier.name}: another run has replaced {part}; run the command again")
            for rows in self._earlier.batches(part):
                kept = complete_columns(rows.replace_schema_metadata(None), full_schema(rows.schema))
                names, codes = rows["image"].to_pylist(), rows["error_code"].to_pylist()
                own = [plain_values(rows[name]) for name in self.own.names]
                for row, (name, code) in enumerate(zip(names, codes, strict=True)):
                    yield KeptRow(name, kept, row, tuple(values[row] for values in own)), code

    def _checked_containers(self) -> Callable[[KeptRow], None] | None:
        """A function that checks a row to keep, see `_KeptRows`; None if the images are not in containers."""
        if not isinstance(self.listing.source, ContainerSource):
            return None
        check = _KeptRows(self.listing.source, self._earlier.name)
        for part in self._earlier.parts():
            for rows in self._earlier.batches(part, ["image", "error_code"]):
                codes = zip(rows["image"].to_pylist(), rows["error_code"].to_pylist(), strict=True)
                check.retried |= {self.listing.source.container_of(name) for name, code in codes if code is not None}
        return check

    def fingerprint(self, model: OpenModel) -> dict[str, Any]:
        """The fingerprint of a run, plus the output to retry. Raises UsageError if model or options differ."""
        self._check_same(
            images=self.listing.source.name,
            model=(model.card.name, model.sha256),
            provider=model.provider,
            decoder=model.decoder,
            batch_size=self.options.batch_size,
            top_k=min(self.options.top_k, len(model.card.classes)),
            features=self.options.features,
        )
        return super().fingerprint(model) | {"retries": [[part, *stamp] for part, stamp in self._stamps]}

    def ignored(self) -> Mapping[str, int]:
        """The counts in the manifest of the output to retry."""
        return self._ignored

    def _check_same(self, **given: object) -> None:
        """Raise UsageError if `given` values of PredictionsInfo's fields (of the model, name and sha256) differ."""
        earlier = {
            **dict(self._info),
            "model": (self._info.model.name, self._info.model.sha256),
            "features": "features" in self._earlier.schema(self._stamps[0][0]).names,
        }
        for name, value in given.items():
            if earlier[name] == value:
                continue
            made = f"with {name} = {_display(earlier[name])}, not {_display(value)}"
            if name == "features":
                made = "without features, and this run has them" if value else "with features, and this run has none"
            raise UsageError(
                f"{self._earlier.name}: was made {made}, so its good rows cannot be kept",
                advice="same_features" if name == "features" else "overwrite",
            )


class _KeptRows:
    """Checks that rows to keep are of the present content of tar, zip or Parquet files with rows that are retried.

    predictions: their name, for messages.
    """

    def __init__(self, source: ContainerSource, predictions: str) -> None:
        self.retried: set[str | None] = set()
        """The files with failed rows."""
        self._source = source
        self._predictions = predictions

    def __call__(self, row: KeptRow) -> None:
        """Read the image, if its file has failed rows. Raises UsageError if it is not the image of the row."""
        container, sha256 = self._source.container_of(row.name), row.rows.column("sha256")[row.number].as_py()
        if container is None or container not in self.retried or sha256 is None:
            return
        problem = "there is another image now"
        try:
            if content_hash(read_image(next(self._source.retry_refs(row.name))).data) == sha256:
                return
        except ImageError as error:
            problem = str(error)
        raise UsageError(
            f"{self._predictions}: {container} was replaced, so the rows of its images cannot be kept; {row.name}: "
            f"{problem}",
            advice="overwrite",
        )


class LateRun(RetryRun):
    """Replace the predictions of a folder at `out` by ones with the same rows, and rows for images that have none.

    Raises UsageError if there are no predictions of batchland at `out`, or the images are not those of a local folder.
    """

    def __init__(self, listing: ImageListing, out: Path | str, options: ScoreOptions) -> None:
        if not isinstance(listing.source, Folder):  # others are listed in another order
            raise UsageError(f"{listing.source.name}: add_missing needs a local folder of images")
        super().__init__(listing, out, options)

    def entries(self) -> Iterator[Entry]:
        """Rows unchanged, and images without a row, in listing order: by the bytes of their paths.

        The row of an unreadable folder is dropped once the folder can be listed.
        """
        listed = self.listing.images()
        ref = next(listed, None)
        for row, code in self.earlier_rows():
            path = file_name(row.name)
            while ref is not None and file_name(ref.name) < path:
                yield ref
                ref = next(listed, None)
            again = ref is not None and ref.name == row.name
            if again:
                ref = next(listed, None)
            if again or code != "unreadable":
                yield row
        while ref is not None:
            yield ref
            ref = next(listed, None)

    def ignored(self) -> Mapping[str, int]:
        """The counts of the present listing."""
        return self.listing.ignored.counts


def _read_info(earlier: StoredPredictions, parts: list[str]) -> PredictionsInfo:
    if not all(_is_completable(earlier.schema(part)) for part in parts):
        raise UsageError(f"{earlier.name}: has other columns than this version of batchland writes", advice="overwrite")
    return earlier.info()


def _is_completable(schema: pa.Schema) -> bool:
    """Whether no required column is missing, and all others are columns of this version or plain further ones."""
    known, own = full_schema(schema), own_schema(schema)
    ours = [field for field in schema if field.name not in own.names]
    alike = all(field.name in known.names and field.equals(known.field(field.name)) for field in ours)
    return alike and set(FIRST_COLUMNS) <= set(schema.names) and plain_columns(own) == own


def _read_ignored(earlier: StoredPredictions) -> Mapping[str, int]:
    with suppress(UsageError):
        if manifest := earlier.manifest():
            return manifest.ignored
    return {}


def _display(value: object) -> str:
    return f"{value[0]} (sha256 {value[1][:12]})" if isinstance(value, tuple) else str(value)

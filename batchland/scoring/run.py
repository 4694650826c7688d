"""A run: the images to score and the output. `Run` scores all images; shards and retries are subclasses.

score() asks a run for `entries`, `fingerprint`, `schema` and `finish`, and does the same for every kind.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, ClassVar

import pyarrow as pa

from batchland.errors import OutputError, UsageError
from batchland.models.session import OpenModel
from batchland.predictions.layout import MANIFEST, is_file_output
from batchland.predictions.parts import Entry, PartSpec
from batchland.predictions.reader import read_manifest
from batchland.predictions.schema import Manifest, ShardInfo, predictions_schema
from batchland.predictions.storage import display_location, join_location, open_output, output_location
from batchland.predictions.stored_folder import StoredFolder
from batchland.predictions.writer import PredictionSink, Survey, cut
from batchland.scoring.listing import ImageListing
from batchland.scoring.manifest import fingerprint
from batchland.scoring.options import SHARD_FOLDER, ScoreOptions, Shard
from batchland.system.names import display_path
from batchland.system.paths import resolved


class Run:
    """Score all images of a listing into `out`, an absolute path or a URL; a shard into its folder below `out`.

    Raises UsageError if `out` is inside the images to score or would replace an input.
    """

    positions: ClassVar[bool] = False
    """Whether rows have positions."""
    row_group_size: ClassVar[int | None] = None
    """Rows per row group in a folder of parts; None takes the whole part."""

    def __init__(self, listing: ImageListing, out: Path | str, options: ScoreOptions) -> None:
        self.listing = listing
        self.out = out if options.shard is None else _shard_location(out, options.shard)
        self.options = options
        self._common = StoredFolder(out)
        self._check_output()

    @property
    def own(self) -> pa.Schema:
        """Further columns of the output: those of the image list."""
        return self.listing.own

    def entries(self) -> Iterator[Entry]:
        """An entry for each row of the output, in order: an image to score, or a row to keep."""
        return self.listing.images()

    def fingerprint(self, model: OpenModel) -> dict[str, Any]:
        """Everything that the rows depend on. Finished parts are resumed only if it is the same."""
        return fingerprint(self.listing.source, self.own, self.options, model)

    def finished_before(self, model: OpenModel) -> Manifest | None:  # noqa: ARG002
        """The manifest of an earlier run, if that has done everything already."""
        return None

    def _finished_shard(self, is_same: Callable[[ShardInfo], bool]) -> Manifest | None:
        """The manifest of a shard if it is complete, `is_same`, and is not to be overwritten."""
        if not self.options.overwrite:
            with suppress(UsageError):
                manifest = read_manifest(self.out)
                if manifest and manifest.shard and is_same(manifest.shard):
                    return manifest
        return None

    def ignored(self) -> Mapping[str, int]:
        """Number of files that were not listed, by kind. Complete after the last entry."""
        return self.listing.ignored.counts

    def parts(self, entries: Iterable[Entry], size: int) -> Iterator[Iterable[Entry]]:
        """The entries in parts, for other processes to score: pickled, and iterated more than once."""
        return map(list, cut(entries, size))

    def finish(self, model: OpenModel, survey: Survey) -> dict[str, Any]:  # noqa: ARG002
        """Further fields of the manifest, after the last entry."""
        return {}

    def open_sink(self, model: OpenModel, checkpoint_seconds: float) -> PredictionSink:
        """The output, to be entered as a context."""
        if self.options.shard:
            self._check_common_folder(self.options.shard)
        spec = PartSpec.of(
            self.fingerprint(model),
            batch_size=self.options.batch_size,
            part_size=self.options.part_size,
            schema=predictions_schema(model.card, features=self.options.features, positions=self.positions),
            row_group_size=self.row_group_size,
            own=self.own,
        )
        return PredictionSink(
            open_output(self.out),
            spec,
            overwrite=self.options.overwrite or self.options.retry_failed or self.options.add_missing,
            restart=self.options.restart,
            checkpoint_seconds=checkpoint_seconds,
        )

    def _check_common_folder(self, shard: Shard) -> None:
        """Raise UsageError if it has shards of another number, as of another plan: they could not be merged."""
        try:
            found = map(SHARD_FOLDER.fullmatch, self._common.names())
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror or str(error)
            problem = OutputError(f"{self._common.name}: cannot be listed ({reason}); correct that, then run it again")
            raise self._common.first_error(error) or problem from error
        if others := {int(match[3]) for match in found if match} - {shard.count}:
            raise UsageError(
                f"{self._common.name}: holds shards I/{min(others)}, and this is shard {shard}", advice="other_out"
            )

    def remove_merged_manifest(self) -> None:
        """Remove a manifest of `merge_in_place` over the shards, because it is not valid for new rows."""
        try:
            self._common.remove(MANIFEST)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{self._common.name}/{MANIFEST}: cannot be removed ({reason}); remove it") from error

    def _check_output(self) -> None:
        name, out = display_location(self.out), _resolved(self.out)
        if self.options.image_list is None and out.startswith(self.listing.source.name.rstrip("/") + "/"):
            raise UsageError(f"{name}: lies inside the images to score", advice="other_out")
        for read in self.listing.source.inputs():
            if f"{_resolved(output_location(read))}/".startswith(f"{out}/"):
                raise UsageError(f"{name}: would replace {display_path(read)}, which is an input", advice="other_out")
        try:
            os.fsencode(self.out).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}: its name is not valid UTF-8", advice="other_out") from error


def _shard_location(out: Path | str, shard: Shard) -> Path | str:
    """The folder of a shard below `out`, the common folder of all. Raises UsageError if `out` is the name of a file."""
    if is_file_output(PurePath(display_location(out))):
        raise UsageError(f"{display_location(out)}: is the name of a file; the output of shards is a folder")
    return join_location(out, shard.folder_name)


def _resolved(location: Path | str) -> str:
    """A path or URL as text, links of a path resolved."""
    return display_path(resolved(location)) if isinstance(location, Path) else display_location(location)

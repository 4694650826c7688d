"""Score the images of a plan: all of them, or one shard.

A shard of a plan is a range of it: whole parts if there are enough, else whole batches, else images. So the rows of all
shards, one after the other, are in the order of the plan, and a merge has nothing to sort.
"""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchland.errors import NoSuchImagesError, UsageError
from batchland.images.sources.refs import Ignored, ImageRef, is_there
from batchland.models.session import OpenModel
from batchland.predictions.parts import Entry, PartSpec
from batchland.predictions.schema import Manifest, ShardInfo
from batchland.predictions.storage import output_location
from batchland.predictions.writer import PredictionSink, Survey
from batchland.scoring.listing import TRIED, ImageListing
from batchland.scoring.options import ScoreOptions, Shard
from batchland.scoring.plan.read import PlannedImages, PlannedRange, StoredPlan, open_planned
from batchland.scoring.plan.schema import PlanOptions
from batchland.scoring.run import Run
from batchland.system.names import display_path
from batchland.system.text import counted
from batchland.system.urls import is_url


class PlannedListing(ImageListing):
    """The images of a plan. images: the planned source, needed if its URL has options or credentials.

    Raises UsageError if the plan is of another source, or options would list other images.
    """

    def __init__(self, images: str | None, options: ScoreOptions) -> None:
        assert options.plan is not None
        self.stored = StoredPlan(output_location(options.plan))
        self.plan = plan = self.stored.plan
        given = PlanOptions(**options.model_dump(include=set(PlanOptions.model_fields)))
        if given not in (plan.options, PlanOptions()):
            raise UsageError(f"{self.stored.name}: was made with other patterns or options of listing; leave them out")
        if options.image_list is not None:
            raise UsageError(f"{self.stored.name}: is a list already; give a plan or a list")
        if images is not None and not is_url(images):  # workers have other working folders
            images = os.path.abspath(images)  # noqa: PTH100 - keeps links as they are
        self._planned = PlannedImages(
            self.stored.location, self.stored.sha256, images or plan.images, options.private_hosts
        )
        self.stored, source = open_planned(self._planned)
        super().__init__(source, options)
        self.ignored = Ignored()
        self.ignored.counts.update(plan.ignored)

    @cached_property
    def own(self) -> pa.Schema:
        """Further columns of the list that was planned. The list itself is not read."""
        return self.stored.own

    def first(self) -> ImageRef | None:
        """The first image."""
        return next(self.stored.refs(self.source, 0, 1), None)

    def images(self, *, far: bool = True) -> Iterator[ImageRef]:  # noqa: ARG002
        """All images. They are checked by `check_images`."""
        return iter(self.range(0, self.plan.listed))

    def range(self, first: int, stop: int) -> PlannedRange:
        """The images from number `first` to before `stop`."""
        return PlannedRange(self._planned, first, stop)

    def check_images(self, first: int) -> None:
        """Raise NoSuchImagesError if the source is gone, or none of TRIED images from number `first` on exists."""
        self.check_root()
        start = max(min(first, self.plan.listed - TRIED), 0)  # as many as possible: a few may have been deleted
        planned = [ref for ref in self.stored.refs(self.source, start, start + TRIED) if ref.error is None]
        if planned and not any(map(is_there, planned)):
            raise NoSuchImagesError(
                f"{self.source.name}: has none of {counted(len(planned), 'planned image')} any more, the first is "
                f"{display_path(planned[0].name)}; restore them, or plan again"
            )

    def second_walk(self, shard: Shard | None = None) -> Iterator[Any]:
        """One item per image, without reading the plan."""
        return repeat(None, self.plan.listed // (shard.count if shard else 1))


class PlannedRun(Run):
    """Score the images of a plan, or of a shard of it. Raises UsageError if options do not fit the plan."""

    listing: PlannedListing

    def __init__(self, listing: PlannedListing, out: Path | str, options: ScoreOptions) -> None:
        if options.retry_failed or options.add_missing:
            raise UsageError(f"{listing.stored.name}: failed rows are scored again without a plan; give the images")
        self._shard = options.shard
        if options.shard:
            _check_shard(listing, options.shard)
        options = options.model_copy(update=listing.plan.options.model_dump())
        super().__init__(listing, out, options)
        self._size = PartSpec.of({}, batch_size=options.batch_size, part_size=options.part_size).part_size
        listed = listing.plan.listed
        if options.shard:
            first, stop = shard_range(options.shard, listed, self._size, options.batch_size)
        else:
            first, stop = 0, listed
        self._range = range(first, stop)

    def entries(self) -> Iterator[Entry]:
        """The images."""
        return iter(self.listing.range(self._range.start, self._range.stop))

    def parts(self, entries: Iterable[Entry], size: int) -> Iterator[PlannedRange]:  # noqa: ARG002
        """Ranges of the plan: workers read them themselves."""
        for first in self._range[::size]:
            yield self.listing.range(first, min(first + size, self._range.stop))

    def open_sink(self, model: OpenModel, checkpoint_seconds: float) -> PredictionSink:
        """The output, to be entered as a context. Raises NoSuchImagesError if the planned images are gone."""
        self.listing.check_images(self._range.start)
        return super().open_sink(model, checkpoint_seconds)

    def fingerprint(self, model: OpenModel) -> dict[str, Any]:
        """The fingerprint of a run that lists by itself, plus the plan and the shard."""
        shard = {"shard": str(self._shard)} if self._shard else {}
        return super().fingerprint(model) | {"plan": self.listing.stored.sha256} | shard

    def finished_before(self, model: OpenModel) -> Manifest | None:
        """The manifest of this shard if it is complete, was scored in the same way and is not to be overwritten."""
        if self._shard is None:
            return None
        plan = self.listing.plan
        wanted = (super().fingerprint(model), plan.listed, plan.names_sha256)
        return self._finished_shard(lambda shard: (shard.fingerprint, shard.listed, shard.names_sha256) == wanted)

    def finish(self, model: OpenModel, survey: Survey) -> dict[str, Any]:
        """Manifest entry that must be the same in all shards of the plan, and the digests of this shard's parts."""
        if self._shard is None:
            return {}
        self.remove_merged_manifest()
        plan = self.listing.plan
        info = ShardInfo(
            index=self._shard.index,
            count=self._shard.count,
            dealt_by="range",
            listed=plan.listed,
            names_sha256=plan.names_sha256,
            fingerprint=super().fingerprint(model),
            first=min(self._range.start, plan.listed),
            facts_sha256=survey.facts_sha256,
        )
        return {"shard": info}


def shard_range(shard: Shard, listed: int, part_size: int, batch_size: int) -> tuple[int, int]:
    """The first image of a shard, and the first one after it."""
    units = (part_size, batch_size, 1)
    unit = next((unit for unit in units if -(-listed // unit) >= shard.count), 1)
    count = -(-listed // unit)
    first, stop = (min(listed, count * index // shard.count * unit) for index in (shard.index, shard.index + 1))
    return first, stop


def _check_shard(listing: PlannedListing, shard: Shard) -> None:
    if listing.plan.parts not in (0, shard.count):
        raise UsageError(
            f"{display_path(listing.stored.name)}: is for {listing.plan.parts} shards, not {shard.count}; score "
            f"0/{listing.plan.parts} to {listing.plan.parts - 1}/{listing.plan.parts}"
        )

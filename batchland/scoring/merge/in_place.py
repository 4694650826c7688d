"""Merge the shards of a plan without rewriting a row: a manifest over their parts, in their common folder.

The shards are ranges of the plan, so their parts, one shard after the other, are the output.
"""

import os
import time
from collections import Counter

from batchland.errors import UsageError
from batchland.predictions.layout import MANIFEST
from batchland.predictions.schema import Counts
from batchland.predictions.storage import display_location
from batchland.predictions.stored_folder import StoredFolder
from batchland.predictions.writer import Survey, input_fingerprint
from batchland.scoring.merge.check import FinishedShard, finished_shards
from batchland.scoring.merge.describe import merged_info, merged_manifest
from batchland.scoring.merge.merge import open_shards
from batchland.scoring.score import RunSummary


def merge_in_place(folder: str | os.PathLike[str], *, overwrite: bool = False) -> RunSummary:
    """Make the shards below `folder`, a path or a URL, one output: write its manifest, and nothing else.

    Everything is checked as `merge` does. Raises UsageError if the shards are not those of a plan, or if there is a
    manifest already and not `overwrite`; and what `merge` raises.
    """
    begin = time.monotonic()
    common = open_shards(folder)
    shards = finished_shards(common)
    if shards[0].info.dealt_by != "range":
        raise UsageError(
            f"{common.name}: its shards are not ranges of a plan, so their rows have to be sorted; merge them into "
            f"another output, or score by a plan"
        )
    if MANIFEST in common.names() and not overwrite:
        raise UsageError(f"{common.name}: is merged already", advice="overwrite")
    survey = _survey(common, shards)
    manifest = merged_manifest(
        shards,
        merged_info(shards, survey),
        survey,
        config={"out": display_location(common.location), "overwrite": overwrite},
        write_seconds=0.0,
        total_seconds=time.monotonic() - begin,
        files=[
            file.model_copy(update={"path": f"{shard.folder}/{file.path}"})
            for shard in shards
            for file in shard.manifest.files
        ],
    )
    common.write(MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return RunSummary.of(common.location, manifest)


def _survey(common: StoredFolder, shards: list[FinishedShard]) -> Survey:
    """The sums over all shards. Raises UsageError unless each begins where the one before it ends."""
    first, failed, decisions, facts = 0, Counter[str](), Counter[str](), list[str]()
    for shard in shards:
        if shard.info.first != first:
            raise UsageError(f"{shard.name}: begins with image {shard.info.first} of the plan, not {first}")
        first += shard.manifest.counts.listed
        failed.update(shard.manifest.counts.failed_by_code)
        decisions.update(shard.manifest.counts.decisions)
        facts += shard.info.facts_sha256
    if first != shards[0].info.listed:
        raise UsageError(f"{common.name}: the shards have {first} rows for {shards[0].info.listed} images")
    fingerprint = input_fingerprint(bytes.fromhex(digest) for digest in facts)
    return Survey(Counts.of(first, failed, decisions), fingerprint, shards[0].info.names_sha256, tuple(facts))

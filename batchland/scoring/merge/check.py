"""What shards have left in their common folder: which are there, whether they are whole, and whether they fit together.

Reads manifests and files; knows nothing of how rows are made or merged.
"""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import MissingInputError, UsageError
from batchland.predictions.layout import differences, manifest_path
from batchland.predictions.schema import Manifest, ShardInfo, WrittenFile
from batchland.scoring.options import Shard
from batchland.system.cores import usable_cores

_FOLDER: Final = re.compile(r"(\.?)shard-([0-9]{5,9})-of-([0-9]{5,9})(\.parts)?")


class FinishedShard(NamedTuple):
    """A shard with its manifest."""

    folder: Path
    manifest: Manifest
    info: ShardInfo
    manifest_sha256: str

    def is_unchanged(self) -> bool:
        """Whether its manifest is still the one that was read."""
        with suppress(OSError):
            return _sha256(manifest_path(self.folder)) == self.manifest_sha256
        return False


def finished_shards(folder: Path) -> list[FinishedShard]:
    """All shards of a folder, in order of their numbers, whole and of one kind.

    Raises MissingInputError if some are missing or unfinished, UsageError if they are damaged or do not fit together.
    """
    count, finished, unfinished = _look_around(folder)
    missing = set(range(count)) - finished - unfinished
    if missing or unfinished:
        told = [f"{_numbered(missing)} of {count} {_are(missing)} missing"] if missing else []
        told += [f"{_numbered(unfinished)} of {count} {_are(unfinished)} unfinished"] if unfinished else []
        raise MissingInputError(
            f"{folder}: {', '.join(told)}; score those with the same command and their --shard I/{count}, then merge"
        )
    shards = [_read(Shard(index=index, count=count).folder(folder)) for index in range(count)]
    _check_same(folder, shards)
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(_check_files, shards))
    return shards


def _look_around(folder: Path) -> tuple[int, set[int], set[int]]:
    """How many shards there should be, and which are finished, and which are under way or were broken off."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be opened ({error.strerror}); give the --out of `batchland score --shard`"
        ) from error
    matches = [match for match in map(_FOLDER.fullmatch, names) if match]
    counts = sorted({int(match[3]) for match in matches})
    if not counts:
        raise UsageError(f"{folder}: there are no shards in it; give the --out of `batchland score --shard`")
    if len(counts) > 1:
        sets = " and ".join(f"of {count}" for count in counts)
        raise UsageError(f"{folder}: holds shards {sets}; delete those that are not wanted, then merge")
    visible = {int(match[2]) for match in matches if not match[1] and not match[4]}
    finished = {
        index for index in visible if manifest_path(Shard(index=index, count=counts[0]).folder(folder)).exists()
    }
    begun = {int(match[2]) for match in matches if match[1] and match[4]}
    return counts[0], finished, (visible | begun) - finished


def _read(folder: Path) -> FinishedShard:
    path = manifest_path(folder)
    try:
        content = path.read_bytes()
        manifest = Manifest.model_validate_json(content)
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path}: cannot be read as a manifest; score that shard again with --overwrite") from error
    info = manifest.shard
    if info is None or Shard(index=info.index, count=info.count).folder(folder.parent) != folder:
        raise UsageError(f"{path}: is not this shard's manifest; score that shard again with --overwrite")
    return FinishedShard(folder, manifest, info, hashlib.sha256(content).hexdigest())


def _check_same(folder: Path, shards: list[FinishedShard]) -> None:
    """Hold every shard against what most of them say."""
    ways = [shard.info.fingerprint for shard in shards]
    usual = max(ways, key=ways.count)
    if odd := [shard for shard in shards if shard.info.fingerprint != usual]:
        names = sorted({name for shard in odd for name in differences(usual, shard.info.fingerprint)})
        raise UsageError(
            f"{folder}: {_numbered(shard.info.index for shard in odd)} of {len(shards)} {_are(odd)} made otherwise "
            f"than the others ({', '.join(names)}); score them again in the same way, with --overwrite"
        )
    listings = [(shard.info.dealt_by, shard.info.listed, shard.info.names_sha256) for shard in shards]
    listing = max(listings, key=listings.count)
    if others := [shard for shard, seen in zip(shards, listings, strict=True) if seen != listing]:
        counts = ", ".join(str(count) for count in sorted({shard.info.listed for shard in others}))
        raise UsageError(
            f"{folder}: {_numbered(shard.info.index for shard in others)} of {len(shards)} saw another listing than "
            f"the others: {counts} {listing[0]}s, not {listing[1]}, or other names; something came or went meanwhile, "
            f"score again with --overwrite what saw the old one"
        )


def _check_files(shard: FinishedShard) -> None:
    """Raise UsageError unless the files are those of the manifest, byte for byte."""
    found = {path.name for path in shard.folder.iterdir() if path.suffix == ".parquet"}
    claimed = {file.path for file in shard.manifest.files}
    problem = f"{', '.join(sorted(found ^ claimed))} not as in its manifest" if found != claimed else None
    for file in () if problem else shard.manifest.files:
        if problem := _problem(shard.folder / file.path, file):
            break
    if not problem and sum(file.rows for file in shard.manifest.files) != shard.manifest.counts.listed:
        problem = "its files do not hold its rows"
    if problem:
        raise UsageError(f"{shard.folder}: is damaged ({problem}); score that shard again with --overwrite")


def _problem(path: Path, file: WrittenFile) -> str | None:
    try:
        if _sha256(path) != file.sha256:
            return f"{path.name} has another sha256 than in its manifest"
        if pq.read_metadata(path).num_rows != file.rows:
            return f"{path.name} has other rows than in its manifest"
    except (OSError, pa.ArrowException) as error:
        return f"{path.name} cannot be read: {str(error).partition(chr(10))[0]}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _numbered(indices: Iterable[int]) -> str:
    """`shard 3`, `shards 3, 7 to 9`."""
    numbers = sorted(indices)
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    told = ", ".join(f"{span[0]} to {span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans)
    return f"shard{'s' if len(numbers) > 1 else ''} {told}"


def _are(shards: Iterable[object]) -> str:
    return "are" if len(list(shards)) > 1 else "is"

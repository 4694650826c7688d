"""Check the shards in a folder: all exist, are complete and undamaged, and scored the same listing in the same way."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import MissingInputError, UsageError
from batchland.predictions.layout import MANIFEST, differences
from batchland.predictions.reader import parse_manifest
from batchland.predictions.schema import Manifest, ShardInfo, WrittenFile
from batchland.predictions.stored_folder import StoredFolder
from batchland.scoring.options import SHARD_FOLDER, Shard
from batchland.system.cores import usable_cores
from batchland.system.files import read_error
from batchland.system.text import first_line


class FinishedShard(NamedTuple):
    """A complete shard with its manifest."""

    common: StoredFolder
    """The folder of all shards."""
    folder: str
    """The shard's own folder in it."""
    manifest: Manifest
    info: ShardInfo
    manifest_sha256: str

    def is_unchanged(self) -> bool:
        """Whether the manifest is still the one that was read."""
        with suppress(OSError):
            return self.common.sha256(f"{self.folder}/{MANIFEST}") == self.manifest_sha256
        return False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.common.name}/{self.folder}"


def finished_shards(common: StoredFolder) -> list[FinishedShard]:
    """All shards of a folder, by index, complete and of one kind.

    Raises MissingInputError if some are missing or unfinished, UsageError if they are damaged or do not fit together.
    """
    count, finished, unfinished = _find_shards(common)
    missing = set(range(count)) - finished - unfinished
    if missing or unfinished:
        problems = ", ".join(
            f"{_numbered(shards)} of {count} {'are' if len(shards) > 1 else 'is'} {state}"
            for shards, state in ((missing, "missing"), (unfinished, "unfinished"))
            if shards
        )
        raise MissingInputError(f"{common.name}: {problems}", advice="score_shard", count=count)
    with ThreadPoolExecutor(usable_cores() * common.parallel) as pool:
        shards = list(pool.map(lambda index: _read(common, Shard(index=index, count=count)), range(count)))
        _check_same(common.name, shards)
        list(pool.map(_check_files, shards))
    return shards


def _find_shards(common: StoredFolder) -> tuple[int, set[int], set[int]]:
    """How many shards there should be, which are finished, and which are running or were interrupted."""
    try:
        names = common.names()
    except OSError as error:
        problem = UsageError(f"{common.name}: cannot be opened ({error.strerror})", advice="shard_folder")
        raise common.first_error(error) or problem from error
    matches = [match for match in map(SHARD_FOLDER.fullmatch, names) if match]
    counts = sorted({int(match[3]) for match in matches})
    if not counts:
        raise UsageError(f"{common.name}: holds no shards", advice="shard_folder")
    if len(counts) > 1:
        sets = " and ".join(f"of {count}" for count in counts)
        raise UsageError(f"{common.name}: holds shards {sets}; move those of one number to another folder, then merge")
    visible = {int(match[2]) for match in matches if not match[1] and not match[4]}
    shards = [Shard(index=index, count=counts[0]) for index in visible]
    with ThreadPoolExecutor(common.parallel * usable_cores()) as pool:
        found = pool.map(lambda shard: _is_finished(common, shard), shards)
        finished = {shard.index for shard, is_finished in zip(shards, found, strict=True) if is_finished}
    begun = {int(match[2]) for match in matches if match[1] and match[4]}
    return counts[0], finished, (visible | begun) - finished


def _is_finished(common: StoredFolder, shard: Shard) -> bool:
    try:
        return MANIFEST in common.names(shard.folder_name)
    except OSError:
        return False


def _read(common: StoredFolder, shard: Shard) -> FinishedShard:
    path = f"{common.name}/{shard.folder_name}/{MANIFEST}"
    try:
        content = common.read(f"{shard.folder_name}/{MANIFEST}")
    except OSError as error:
        raise read_error(error, path) from error
    manifest = parse_manifest(content, path)
    info = manifest.shard
    if info is None or (info.index, info.count) != (shard.index, shard.count):
        raise UsageError(f"{path}: is the manifest of something else", advice="overwrite_shard")
    return FinishedShard(common, shard.folder_name, manifest, info, hashlib.sha256(content).hexdigest())


def _check_same(folder: str, shards: list[FinishedShard]) -> None:
    """Raise UsageError if some shards were scored in another way, or had another listing, than most."""
    ways = [shard.info.fingerprint for shard in shards]
    usual = max(ways, key=ways.count)
    if odd := [shard for shard in shards if shard.info.fingerprint != usual]:
        names = sorted({name for shard in odd for name in differences(usual, shard.info.fingerprint)})
        verb = "differ" if len(odd) > 1 else "differs"
        raise UsageError(
            f"{folder}: {_numbered(shard.info.index for shard in odd)} of {len(shards)} {verb} from the others in "
            f"{', '.join(names)}",
            advice="overwrite_shard",
        )
    listings = [(shard.info.dealt_by, shard.info.listed, shard.info.names_sha256) for shard in shards]
    listing = max(listings, key=listings.count)
    if others := [shard for shard, seen in zip(shards, listings, strict=True) if seen != listing]:
        counts = ", ".join(str(count) for count in sorted({shard.info.listed for shard in others}))
        mixed = len({shard.info.dealt_by for shard in shards}) > 1
        why = "only some belong to a plan" if mixed else "the images changed between shards"
        raise UsageError(
            f"{folder}: {_numbered(shard.info.index for shard in others)} of {len(shards)} had another listing than "
            f"the others: {counts} {listing[0]}s, not {listing[1]}, or other names; {why}",
            advice="overwrite_shard",
        )


def _check_files(shard: FinishedShard) -> None:
    """Raise UsageError unless the files are those of the manifest, byte for byte."""
    found = {name for name in shard.common.names(shard.folder) if name.endswith(".parquet")}
    claimed = {file.path for file in shard.manifest.files}
    problem = f"{', '.join(sorted(found ^ claimed))} missing or not in its manifest" if found != claimed else None
    for file in () if problem else shard.manifest.files:
        if problem := _problem(shard, file):
            break
    if not problem and sum(file.rows for file in shard.manifest.files) != shard.manifest.counts.listed:
        problem = "its files have other rows than its manifest counts"
    if problem:
        raise UsageError(f"{shard.name}: is damaged ({problem})", advice="overwrite_shard")


def _problem(shard: FinishedShard, file: WrittenFile) -> str | None:
    path = f"{shard.folder}/{file.path}"
    try:
        if shard.common.sha256(path) != file.sha256:
            return f"{file.path} does not have the sha256 of its manifest"
        with shard.common.opened(path) as opened:
            if pq.read_metadata(opened).num_rows != file.rows:
                return f"{file.path} does not have the rows of its manifest"
    except (OSError, pa.ArrowException) as error:
        return f"{file.path} cannot be read: {first_line(error)}"
    return None


def _numbered(indices: Iterable[int]) -> str:
    """`shard 3`, `shards 3, 7 to 9`."""
    numbers = sorted(indices)
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = (f"{span[0]} to {span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans)
    return f"shard{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"

"""How to score: the options of the command, of job files and of Python."""

import hashlib
import os
import re
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from batchland.errors import TooManyFailedError, UsageError
from batchland.system.options import BatchSize, Options, Seconds, Workers
from batchland.system.text import images

if TYPE_CHECKING:
    from batchland.predictions.schema import Counts

MAX_SHARDS: Final = 1_000_000
SHARD_FOLDER: Final = re.compile(r"(\.?)shard-([0-9]{5,6})-of-([0-9]{5,6}|1000000)(\.parts)?")
"""The folder of a shard, or of the parts of an unfinished one."""
MAX_CPU_CALLS: Final = 4
"""Calls of the model at once on a CPU; each takes memory for the activations of its batch."""
TopK = Annotated[int, Field(gt=0, le=1_000_000)]
Threads = Annotated[int, Field(gt=0, le=1024)]
DEFAULT_MODELS: Final = (Path("models/transfer.onnx"), Path("models/scratch.onnx"))


class Shard(Options):
    """Shard `index` (from 0) of `count` shards. Each process computes by itself which images belong to its shard.

    The rule is a contract between machines and between versions of batchland. The image NAME belongs to shard

        int.from_bytes(blake2b(NAME.encode("utf-8"), digest_size=8).digest(), "big") % count

    Sources made of containers (tar files, tables) are divided by the containers' names, so that a machine opens only
    the containers of its shard.
    """

    index: int = Field(ge=0)
    count: int = Field(gt=0, le=MAX_SHARDS)

    @model_validator(mode="after")
    def _index_below_count(self) -> "Shard":
        if self.index >= self.count:
            raise ValueError(f"shards are counted from 0: there is no shard {self.index} of {self.count}")
        return self

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `3/16`. Raises UsageError."""
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        index, count = map(int, numbers.groups()) if numbers else (0, 0)
        if count > MAX_SHARDS:
            raise UsageError(f"shard {text!r}: at most {MAX_SHARDS} shards are possible")
        if index >= count:
            raise UsageError(f"shard {text!r}: is not I/N with I from 0 to N-1, such as 0/16 to 15/16")
        return cls(index=index, count=count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder_name(self) -> str:
        """Name of the folder with this shard's parts and manifest, below the common folder of all shards."""
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def owns(self, name: str) -> bool:
        """Whether the image or container of that name belongs to this shard."""
        return self.owner(name, self.count) == self.index

    @staticmethod
    def owner(name: str, count: int) -> int:
        """Index of the shard, of `count`, that an image or container of that name belongs to."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count


def _parse_shard(value: Any) -> Any:
    return Shard.parse(value) if isinstance(value, str) else value


class ScoreSettings(Options):
    """How to score: what a job file may set as well. The model card sets preprocessing and classes."""

    top_k: TopK = 5
    """Classes per image, the likeliest first; at most those of the model."""
    probabilities: Literal["auto", "all", "top"] = "auto"
    """Probabilities to write: `all` for all classes besides the top k, or `top` for the top k only. `auto` writes all
    if the model has at most 1024 classes. They take at most 2 bytes a class and image; log loss and Brier score need
    them."""
    signals: bool = True
    """Measure each picture: brightness, sharpness, a difference hash and others, which monitoring needs. JPEGs that a
    GPU decodes are not measured."""
    features: bool = False
    """Also write the model's features: a vector per image, for comparing images. Takes 2 bytes a number."""
    batch_size: BatchSize = 32
    """Images per call of the model."""
    num_workers: Threads | None = None
    """Decoding threads. Default: one per usable core, more where reading images is slow."""
    decode_processes: Workers | None = None
    """Processes that share the decoding threads (Linux only); with 0, the main process has them all. Default: one per
    four cores if there are at least eight cores, from the 500th image on; else 0."""
    prefetch_factor: Annotated[int, Field(gt=0, le=1024)] = 2
    """Batches prepared ahead, by all workers together."""
    intra_op_threads: Threads | None = None
    """onnxruntime's threads per call on the CPU. Default: the usable cores, divided among up to four calls at once."""
    device: str = "auto"
    """Where the model runs. `auto` uses CUDA if it works, else the CPU, and prints which; the others never fall back:
    `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` instead of `cuda`."""
    decode: Literal["cpu", "cuda"] = "cpu"
    """What decodes JPEGs: the CPU's cores, or the GPUs that the model runs on (docs/gpu.md). The CPU decodes all other
    formats."""
    include: tuple[str, ...] = ()
    """Score only images that match one of these patterns, as in .gitignore. Default: all images."""
    exclude: tuple[str, ...] = ()
    """Leave out images that match one of these patterns, as in .gitignore."""
    all_files: bool = False
    """Score files of every extension."""
    follow_links: bool = False
    """Follow links to folders."""
    private_hosts: bool = False
    """Fetch images by http or https from hosts with private addresses, too."""
    part_size: Annotated[int, Field(gt=0, le=10_000_000)] = 8192
    """Images per part of an output folder, rounded up to whole batches."""
    timeout: Seconds = 60.0
    """Seconds that reading one image may take, and CPU seconds that decoding it may take; after that it fails."""
    engine: Literal["local", "ray"] = "local"
    """What decodes and infers: this process, or Ray, on one machine or many (docs/ray.md). The rows are the same."""
    ray_address: str | None = None
    """Ray cluster to use. Default: $RAY_ADDRESS, else Ray on this machine, for this run."""

    def threads_per_call(self, cores: int) -> int:
        """onnxruntime's threads per call on a CPU with this number of cores."""
        return self.intra_op_threads or ceil(cores / MAX_CPU_CALLS)


class ScoreOptions(ScoreSettings):
    """How to score, with the options that a job file cannot set."""

    model: Path | None = None
    """ONNX file with a batchland card. Default: $BATCHLAND_MODEL, else models/transfer.onnx, else
    models/scratch.onnx."""
    image_list: str | None = None
    """Text, CSV or Parquet file that lists the images to score; `-` for standard input."""
    plan: str | None = None
    """Folder or URL of a plan that `batchland plan` made: its images are scored, and nothing is listed again."""
    overwrite: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Discard what an interrupted run has left, instead of resuming it."""
    retry_failed: bool = False
    """Score the failed rows of an existing output again, and only those."""
    add_missing: bool = False
    """Keep the rows of an existing output of a folder, and score the images that have none."""
    reuse: tuple[str, ...] = ()
    """Copy the rows of images with the same content from these predictions, also if the names differ; only from
    predictions of the same model and options. Equal images of this run are computed once, too."""
    shard: Annotated[Shard | None, BeforeValidator(_parse_shard)] = None
    """Score only shard I of N, counted from 0, into its own folder in the output; then `batchland merge`."""
    time_limit: Seconds | None = None
    """Seconds after which the run stops at the end of a batch; a rerun continues."""
    job: str | None = None
    """Name of the job that runs this; recorded in the manifest, where retention looks for it."""


_SEE_ROWS: Final = "the predictions are written, see the rows with status = 'failed'"


class FailureLimit(NamedTuple):
    """How many images may fail before a finished run counts as failed: a number or a percentage."""

    text: str
    number: int | None
    percent: Fraction | None

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Read `20` or `1.5%`. Raises UsageError."""
        if re.fullmatch(r"[0-9]{1,15}", text.strip()):
            return cls(text, int(text), None)
        percentage = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,15})?)%", text.strip())
        if percentage and Fraction(percentage[1]) <= 100:
            return cls(text, None, Fraction(percentage[1]))
        raise UsageError(f"max-failed {text!r} is neither a number of images nor a percentage; give 20 or 1.5%")

    def check(self, counts: "Counts") -> None:
        """Raise TooManyFailedError if more images failed than allowed, or a folder could not be listed."""
        if missing := unlisted_folders(counts):
            raise TooManyFailedError(missing)
        allowed = self.number if self.number is not None else counts.listed * (self.percent or 0) / 100
        if counts.failed > allowed:
            raise TooManyFailedError(
                f"{counts.failed} of {counts.listed} images failed ({_codes(counts)}), more than max-failed "
                f"{self.text} allows; {_SEE_ROWS}"
            )


def check_failures(counts: "Counts", limit: FailureLimit | None) -> None:
    """Raise TooManyFailedError for more failures than the limit allows, or if every image failed.

    If every image failed, there is nothing to use or to judge, whatever the limit.
    """
    if limit:
        limit.check(counts)
    if counts.listed and counts.failed == counts.listed:
        raise TooManyFailedError(f"none of {images(counts.listed)} could be scored ({_codes(counts)}); {_SEE_ROWS}")


def _codes(counts: "Counts") -> str:
    return ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())


def unlisted_folders(counts: "Counts") -> str | None:
    """A sentence about rows of folders or containers that could not be listed; None if there are none."""
    folders = counts.failed_by_code.get("unreadable")
    if not folders:
        return None
    return (
        f"{folders} of {counts.listed} rows are folders or archives that could not be read, so an unknown number of "
        f"images is missing; the predictions are written, repair them and retry the failed rows"
    )


def find_model(model: Path | None = None) -> Path:
    """The model to use: as given, else $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx.

    Raises UsageError if there is none.
    """
    if model is not None:
        return model
    if chosen := os.environ.get("BATCHLAND_MODEL"):
        return Path(chosen)
    for path in DEFAULT_MODELS:
        if path.exists():
            return path
    looked = " or ".join(str(path) for path in DEFAULT_MODELS)
    raise UsageError(f"no model is given, BATCHLAND_MODEL is not set, and there is no {looked} here", advice="model")

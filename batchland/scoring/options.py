"""How to score: the options of the command, of job files and of Python."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from batchland.errors import TooManyFailedError, UsageError
from batchland.predictions.schema import Counts
from batchland.scoring.shard import Shard
from batchland.system.options import Options

DEFAULT_MODELS: Final = (Path("models/transfer.onnx"), Path("models/scratch.onnx"))

PositiveInt = Annotated[int, Field(gt=0)]


class ScoreSettings(Options):
    """How to score: the options that job files have, too. The model card decides preprocessing and classes."""

    top_k: PositiveInt = 5
    """Choices kept per image, capped by the number of classes."""
    batch_size: PositiveInt = 32
    """Images per call of the model."""
    num_workers: PositiveInt | None = None
    """Decoding threads; None takes one per usable core, and more if reading images takes longer than decoding them."""
    prefetch_factor: PositiveInt = 2
    """Batches prepared ahead."""
    intra_op_threads: PositiveInt | None = None
    """onnxruntime's threads per call on the CPU; None divides the usable cores among up to four calls at once."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` in place of `cuda`."""
    decode: Literal["cpu", "cuda"] = "cpu"
    """What decodes JPEGs: `cuda` is the GPUs that the model runs on (docs/gpu.md). The CPU decodes everything else."""
    include: tuple[str, ...] = ()
    """Score only images that match one of these patterns (as in .gitignore); none means all."""
    exclude: tuple[str, ...] = ()
    """Leave out images that match one of these patterns (as in .gitignore)."""
    all_files: bool = False
    """List every file, whatever its extension."""
    follow_links: bool = False
    """Follow links to folders."""
    part_size: PositiveInt = 8192
    """Images per part, rounded up to whole batches."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one image may take to read and decode."""
    engine: Literal["local", "ray"] = "local"
    """What decodes and infers: this process, or Ray (docs/ray.md). The rows are the same."""
    ray_address: str | None = None
    """Ray cluster to use; None takes $RAY_ADDRESS, else starts Ray on this machine for the run."""


class ScoreOptions(ScoreSettings):
    """How one run scores, with the options that only a run has."""

    model: Path | None = None
    """ONNX file; None takes $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx."""
    image_list: str | None = None
    """Text, CSV or Parquet file that lists the images, `-` for standard input; None scores all images."""
    overwrite: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Discard the finished parts of an interrupted run instead of resuming it."""
    retry_failed: bool = False
    """Score the failed rows of an existing output again, and keep its good ones."""
    shard: Shard | None = None
    """Score only the images of this shard; `out` is then the common folder of all shards."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the run stops after a whole batch; a rerun resumes there."""
    job: str | None = None
    """Name of the job that scores; the manifest records it, so that retention deletes only the job's own outputs."""


class FailureLimit(NamedTuple):
    """How many images may fail before a finished run counts as failed: a number or a percentage."""

    text: str
    number: int | None
    percent: Fraction | None

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Read `20` or `1.5%`. Raises UsageError."""
        number, percent, rest = text.strip().partition("%")
        with suppress(ValueError):
            if not percent and int(number) >= 0:
                return cls(text, int(number), None)
            if percent and not rest and 0 <= Fraction(number) <= 100:
                return cls(text, None, Fraction(number))
        raise UsageError(f"max-failed {text!r} is neither a number of images nor a percentage; give 20 or 1.5%")

    def check(self, counts: Counts) -> None:
        """Raise TooManyFailedError if more images failed than allowed, or a folder could not be listed."""
        if missing := unlisted_folders(counts):
            raise TooManyFailedError(missing)
        allowed = self.number if self.number is not None else counts.listed * (self.percent or 0) / 100
        if counts.failed > allowed:
            codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
            raise TooManyFailedError(
                f"{counts.failed} of {counts.listed} images failed ({codes}), more than max-failed {self.text} allows; "
                f"the predictions are written, see the rows with status = 'failed'"
            )


def unlisted_folders(counts: Counts) -> str | None:
    """A sentence about failed rows that stand for folders or containers of unknown size; None if there are none."""
    folders = counts.failed_by_code.get("unreadable")
    if not folders:
        return None
    return (
        f"{folders} of {counts.listed} rows are folders or shards that could not be read, so an unknown number of "
        f"images is missing; the predictions are written, repair the folders and retry the failed rows"
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

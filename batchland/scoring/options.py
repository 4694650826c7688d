"""How to score, as options, for the command, for jobs and for Python. What the model card fixes is none of them."""

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
    """How to score, as a job file may say it, too. What the model card fixes (preprocessing, classes) is not here."""

    top_k: PositiveInt = 5
    """Choices kept per image, capped by the number of classes."""
    batch_size: PositiveInt = 32
    """Images per call of the model."""
    num_workers: PositiveInt | None = None
    """Decoding threads; None takes one per usable core, and more where images are long waited for."""
    prefetch_factor: PositiveInt = 2
    """Batches prepared ahead."""
    intra_op_threads: PositiveInt | None = None
    """onnxruntime's threads per call on the CPU; None divides the usable cores among up to four calls at once."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` in place of `cuda`."""
    decode: Literal["cpu", "cuda"] = "cpu"
    """Who decodes JPEGs: `cuda` is the GPUs that the model runs on (docs/gpu.md). The CPU decodes everything else."""
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
    """Who decodes and infers: this process, or Ray (docs/ray.md). The rows are the same."""
    ray_address: str | None = None
    """Ray cluster to use; None takes $RAY_ADDRESS, else starts Ray on this machine for the time of the run."""


class ScoreOptions(ScoreSettings):
    """How one run scores."""

    model: Path | None = None
    """ONNX file; None takes $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx."""
    image_list: str | None = None
    """Text, CSV or Parquet file that lists the images, `-` for standard input; None scores all there are."""
    overwrite: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Discard what an interrupted run has left instead of resuming it."""
    retry_failed: bool = False
    """Score only the failed rows of an output that exists, and keep its others."""
    shard: Shard | None = None
    """Score only the images of this shard; `out` is the folder of all shards then."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the run stops in good order, for a rerun to go on."""
    job: str | None = None
    """Name of the job that asks for it; the manifest keeps it, so that retention knows what is the job's."""


class FailureLimit(NamedTuple):
    """How many images may fail before a finished run counts as a bad one: a number or a share."""

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
        """Raise TooManyFailedError if more images failed than allowed, or a folder hides an unknown number of them."""
        if told := hidden_images(counts):
            raise TooManyFailedError(told)
        allowed = self.number if self.number is not None else counts.listed * (self.percent or 0) / 100
        if counts.failed > allowed:
            codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
            raise TooManyFailedError(
                f"{counts.failed} of {counts.listed} images failed ({codes}), more than max-failed {self.text} allows; "
                f"the predictions are written, look at the rows with status = 'failed'"
            )


def hidden_images(counts: Counts) -> str | None:
    """What to say of failed rows that hide an unknown number of images, if there are any."""
    folders = counts.failed_by_code.get("unreadable")
    if not folders:
        return None
    return (
        f"{folders} of {counts.listed} rows stand for folders or shards that could not be read, with nobody knows how "
        f"many images; the predictions are written, mend them and run again with --retry-failed"
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
    raise UsageError(f"no model: give --model or set BATCHLAND_MODEL (there is no {looked} here)")

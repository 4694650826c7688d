"""How to adopt a model from elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from batchland.system.options import Options

OutputKind = Literal["auto", "logits", "probabilities"]


class AdoptOptions(Options):
    """How to adopt a model."""

    classes: Path | None = None
    """Text file, one label per line, in the order of the model's outputs, or a JSON file. Default: the labels in
    config.json beside the model (Hugging Face, timm) or in the model itself (Ultralytics)."""
    preprocess: Annotated[str, Field(min_length=1)] | None = None
    """Input that the model was trained on: `imagenet` (its crop and statistics); `half`, `unit` or `byte` (the whole
    picture as -1..1, 0..1 or 0..255); or a JSON file: timm's config.json, Hugging Face's preprocessor_config.json, or
    one with height, width, fit, crop_share, filter, mean, std, channels. Default: as found with the model."""
    output: OutputKind = "auto"
    """Output of the model; `auto` runs it on generated pictures to find out."""
    output_name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the output to use, if there are several. Default: the one with as many numbers as there are labels."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """`fp16` halves the file and is fastest on a GPU, and slower on a CPU; `int8` is for CPUs and needs photos to
    calibrate with."""
    check: Path | None = None
    """Folder of labelled photos, one folder per class: prints the accuracy with each plausible preprocessing, and
    refuses the chosen one if another is clearly better."""
    calibrate: Path | None = None
    """Folder of labelled photos, on which the temperature of the probabilities is fitted and int8 is measured."""
    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Percentage points of top-1 accuracy on these photos that int8 may lose."""
    allow_slower: bool = False
    """Write int8 even if it is no faster than fp32 on this machine."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the model. Default: the name of the file."""

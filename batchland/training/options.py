"""How to train and how to export. Imports no torch, so that the options can be shown where it is missing."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from batchland.system.options import BatchSize, Epochs, Options, PositiveFloat, PositiveInt, Workers

Architecture = Literal["scratch", "transfer"]
ARCHITECTURES: Final[tuple[Architecture, ...]] = ("scratch", "transfer")
DEFAULT_BACKBONE: Final = "resnet50"
DEFAULT_CACHE_LIMIT: Final = 20 * 10**9
"""Bytes. 5,000 photos at 224 x 224 take 0.75 GB."""
HeadKind = Literal["linear", "mlp"]
RecipeName = Literal["default", "walkthrough"]
Precision = Literal["fp32", "fp16", "int8"]

_FINE_TUNING = {"unfreeze_epochs", "unfreeze_learning_rate"}


class TrainOptions(Options):
    """How to train."""

    model: Literal["scratch", "transfer", "both"] = "both"
    """A CNN from scratch, a pretrained backbone with a new head, or both, one after the other."""
    recipe: RecipeName = "default"
    """`walkthrough` trains as the published walk-through does, with its faults corrected; `default` trains better."""
    epochs: Epochs | None = None
    """Passes over the training images; for logistic regression, the largest number of L2 strengths to try. Default: the
    recipe's (40 and 9; walkthrough 60 and 50)."""
    batch_size: BatchSize = 32
    """Images per optimiser step."""
    balanced: bool = True
    """Draw every class equally often. Turn it off where the images to score are as unevenly distributed as those to
    train on."""
    num_workers: Workers | None = None
    """Processes that decode and augment; 0 uses the training process itself. Default: by cores and device."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; logistic regression has none. Default: the recipe's."""
    backbone: str = DEFAULT_BACKBONE
    """Network of the transfer model by its name in torchvision, e.g. convnext_tiny, or in timm if it is installed."""
    weights: Annotated[str, Field(min_length=1)] = "imagenet"
    """Weights of the backbone: `imagenet` (downloaded once), `none` (random), a file with its state_dict (.pt, .pth,
    .safetensors), or an installed package that contains one."""
    views: Annotated[int, Field(ge=0, le=1000)] = 2
    """Augmented views of each photo, besides the unchanged one, that the frozen backbone computes features for."""
    unfreeze: Annotated[str, Field(min_length=1)] | None = None
    """Parts of the backbone to train after the head: `all`, the number of the last ones, or names separated by commas,
    e.g. layer3,layer4."""
    unfreeze_epochs: Epochs = 5
    """Epochs of training these parts."""
    unfreeze_learning_rate: PositiveFloat = 3e-4
    """Peak learning rate of training these parts, and the head with them."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Rows and columns of the models' input, pixels. Default: 224, or the backbone's."""
    fast_jpeg: bool = True
    """Shrink large JPEGs while decoding them, in training and scoring alike: several times faster for photos."""
    colour: Literal["as_stored", "srgb"] = "as_stored"
    """`srgb` converts photos with an ICC profile (phones: Display P3) to sRGB, in training and scoring alike."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1337
    """Seed of split, weights, sampling and augmentation; it gives the same weights on the same machine."""
    patience: Epochs | None = None
    """Stop after this many epochs without a lower validation loss. Default: train all epochs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` is CUDA where torch can use it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of products in training; `auto` is bf16 where the hardware multiplies it, but fp32 where a CPU
    fine-tunes depthwise convolutions. Validation on a CPU is always fp32."""
    strict: bool = False
    """Stop at an unreadable image, instead of logging, counting and skipping it."""
    cache_dir: Path | None = None
    """Folder of decoded pixels, kept between runs. Default: batchland/pixels in ~/.cache."""
    cache_limit: PositiveInt = DEFAULT_CACHE_LIMIT
    """Limit of that cache for all data sets together, in bytes; the least recently used are removed."""
    resume: bool = False
    """Continue what an interrupted run with the same options has left in the output folder."""
    checkpoint_every: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """Seconds after which the end of an epoch saves the state to resume from."""

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """The models that `model` names."""
        return ARCHITECTURES if self.model == "both" else (self.model,)

    def identity(self, architecture: Architecture) -> dict[str, Any]:
        """The options that this model's weights depend on. A run is resumed only with the same ones."""
        irrelevant = {"model", "num_workers", "strict", "cache_dir", "cache_limit", "resume", "checkpoint_every"}
        if architecture == "scratch":
            irrelevant |= {"backbone", "weights", "views", "unfreeze", *_FINE_TUNING}
        elif not self.unfreeze:
            irrelevant |= _FINE_TUNING
        return self.model_dump(exclude=irrelevant)


class ExportOptions(Options):
    """How to export a checkpoint."""

    data: Path | None = None
    """Where the training data is now, if it has moved since training."""
    precision: Precision = "fp32"
    """`fp16` halves the file and is fastest on a GPU, and slower on a CPU; `int8` quarters it and is for CPUs."""
    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Percentage points of top-1 accuracy on the validation images that fp16 and int8 may lose against fp32."""
    allow_slower: bool = False
    """Write int8 even if it is no faster than fp32 on this machine."""

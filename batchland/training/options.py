"""The options of training, validated."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from batchland.images.preprocess import PreprocessSpec
from batchland.system.options import Options
from batchland.training.backbones import DEFAULT_BACKBONE, find_backbone
from batchland.training.models import ARCHITECTURES, Architecture
from batchland.training.pixel_cache import DEFAULT_LIMIT
from batchland.training.recipes import RecipeName

_SCRATCH_SIZE = 224
_FINE_TUNING = {"unfreeze_epochs", "unfreeze_learning_rate"}

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainOptions(Options):
    """How to train."""

    model: Literal["scratch", "transfer", "both"] = "both"
    """A CNN from scratch, a pretrained backbone with a new head, or both, one after the other."""
    recipe: RecipeName = "default"
    """`walkthrough` trains as the published walk-through does, with its faults fixed; `default` trains better."""
    epochs: PositiveInt | None = None
    """Passes over the training images. Default: the recipe's (walkthrough 60 and 50, default 40)."""
    batch_size: PositiveInt = 32
    """Images per optimiser step."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that augment; 0 augments in the training process. Default: by cores and device."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. Default: the recipe's."""
    backbone: str = DEFAULT_BACKBONE
    """transfer: torchvision's name of the network, e.g. convnext_tiny or efficientnet_b0."""
    weights: Annotated[str, Field(min_length=1)] = "imagenet"
    """The backbone's weights: `imagenet` (downloaded once), `none` (random) or a file with its state_dict."""
    views: Annotated[int, Field(ge=0)] = 2
    """transfer: augmented views per photo to compute features of, besides the unchanged photo."""
    unfreeze: Annotated[str, Field(min_length=1)] | None = None
    """transfer: parts of the backbone, separated by commas (`layer4`), to fine-tune after the head is trained."""
    unfreeze_epochs: PositiveInt = 5
    """Epochs of fine-tuning."""
    unfreeze_learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of fine-tuning, of head and unfrozen parts."""
    size: PositiveInt | None = None
    """Rows and columns of the model's input, pixels. Default: 224, or that of the backbone's weights."""
    fast_jpeg: bool = True
    """Shrink large JPEGs while decoding them, in training and later in scoring: several times faster for photos."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1337
    """Seed of split, weights, sampling and augmentation. The same seed on the same machine gives the same weights."""
    patience: PositiveInt | None = None
    """Stop a stage after so many epochs without a lower validation loss. Default: train all epochs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` is CUDA where torch can use it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of products in training; `auto` is bf16 where the hardware supports it. Validation on a CPU is always fp32."""
    strict: bool = False
    """Raise an error for an unreadable image, instead of logging, counting and skipping it."""
    cache_dir: Path | None = None
    """Folder of decoded pixels. Default: `batchland/pixels` in the user's cache folder."""
    cache_limit: PositiveInt = DEFAULT_LIMIT
    """Bytes that all decoded data sets together may take there; the least recently used are removed first."""
    resume: bool = False
    """Continue an interrupted run of the same options in `out`."""
    checkpoint_every: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """Seconds between saves of the state to resume from, at the end of an epoch."""

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """The models to train, in order."""
        return ARCHITECTURES if self.model == "both" else (self.model,)

    def spec(self, architecture: Architecture) -> PreprocessSpec:
        """The preprocessing of that model, in training and scoring."""
        size, resampling = self.size or _SCRATCH_SIZE, "bilinear"
        if architecture == "transfer":
            backbone = find_backbone(self.backbone)
            size, resampling = self.size or backbone.size, backbone.filter
        return PreprocessSpec.model_validate(
            {"height": size, "width": size, "filter": resampling, "jpeg_scale": "auto" if self.fast_jpeg else "none"}
        )

    def identity(self, architecture: Architecture) -> dict[str, Any]:
        """The options that the model's weights depend on: a run can only be resumed with the same."""
        irrelevant = {"model", "num_workers", "strict", "cache_dir", "cache_limit", "resume", "checkpoint_every"}
        if architecture == "scratch":
            irrelevant |= {"backbone", "weights", "views", "unfreeze", *_FINE_TUNING}
        elif not self.unfreeze:
            irrelevant |= _FINE_TUNING
        return self.model_dump(exclude=irrelevant)

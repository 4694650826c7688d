"""Backbones: classifiers of torchvision and timm by name, without their last layer, and their preprocessing."""

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import torchvision
from torch import nn

from batchland.errors import UsageError
from batchland.training.options import DEFAULT_BACKBONE

_LAST_LAYERS: Final = {
    "convnext": "classifier.2", "densenet": "classifier", "efficientnet": "classifier.1", "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1", "mobilenet_v3": "classifier.3", "regnet": "fc", "resnet": "fc", "resnext": "fc",
    "shufflenet": "fc", "swin": "head", "vgg": "classifier.6", "wide_resnet": "fc",
}  # fmt: skip
"""torchvision's families that take images of any size and end in a linear layer, with the name of that layer."""
_CONTAINERS: Final = ("features", "layers", "trunk_output", "blocks", "stages")
_WEIGHTS: Final = "IMAGENET1K_V1"
"""torchvision's first set of every network: frozen, those of ResNet50 give better features than the second set."""
_TIMM_PREFIX: Final = "timm/"
"""Prefix that selects timm for a network that both libraries have."""

Channels = tuple[float, float, float]
Filter = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Backbone:
    """A network that computes features, and the preprocessing that its pretrained weights were made for."""

    library: Literal["torchvision", "timm"]
    name: str
    """Name in that library."""
    mean: Channels
    """Mean of each channel, 0 to 1."""
    std: Channels
    """Standard deviation of each channel, 0 to 1."""
    size: int
    """Rows and columns of its images, pixels."""
    shorter_side: int | None
    """Pixels that the shorter side is resized to before the centre is cut out; None resizes the whole image."""
    filter: Filter
    any_size: bool
    """Whether it takes images of other sizes."""
    last_layer: str
    """Name of the classifier that the head replaces."""

    def build(self, pretrained: bool = False) -> tuple[nn.Module, int]:
        """The network without its last layer, and the length of its features.

        pretrained: timm's, with weights of ImageNet, which timm downloads once and of which it raises many errors.
        """
        if self.library == "timm":
            network = _timm().create_model(self.name, pretrained=pretrained, num_classes=0)
            return network, int(getattr(network, "head_hidden_size", network.num_features))
        network = torchvision.models.get_model(self.name, weights=None)
        last = network.get_submodule(self.last_layer)
        assert isinstance(last, nn.Linear)
        parent, _, child = self.last_layer.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        return network, last.in_features


def weights_url(name: str) -> str:
    """Where torchvision's ImageNet weights of that network are. The file's name ends in the start of its sha256."""
    return str(torchvision.models.get_model_weights(name)[_WEIGHTS].url)


def find_backbone(name: str) -> Backbone:
    """The backbone of that name: torchvision's, or else timm's where timm is installed. `timm/NAME` is always timm's.

    Raises UsageError with similar names if there is none.
    """
    plain = name.removeprefix(_TIMM_PREFIX)
    known = torchvision_names()
    if name in known:
        return _torchvision_backbone(name)
    if _has_timm() and _timm().is_model(plain):
        return _timm_backbone(plain)
    if _has_timm():
        known = sorted({*known, *_timm().list_models()})
    near = difflib.get_close_matches(plain, known, 3) or [DEFAULT_BACKBONE, "convnext_tiny", "efficientnet_b0"]
    raise UsageError(
        f"backbone {name}: unknown; similar ones are {', '.join(near)}"
        + ("" if _has_timm() else " (pip install 'batchland[timm]' adds the networks of timm)")
    )


def torchvision_names() -> list[str]:
    """Every network of torchvision that can be a backbone."""
    models = torchvision.models
    names = [name for name in models.list_models(module=models) if name.startswith(tuple(_LAST_LAYERS))]
    return [name for name in names if _WEIGHTS in models.get_model_weights(name).__members__]


def _torchvision_backbone(name: str) -> Backbone:
    transforms = torchvision.models.get_model_weights(name)[_WEIGHTS].transforms()
    (size,), (shorter_side,) = transforms.crop_size, transforms.resize_size
    return Backbone(
        library="torchvision",
        name=name,
        mean=_channels(transforms.mean),
        std=_channels(transforms.std),
        size=size,
        shorter_side=shorter_side,
        filter=_filter(transforms.interpolation.value),
        any_size=True,
        last_layer=next(layer for family, layer in _LAST_LAYERS.items() if name.startswith(family)),
    )


def _timm_backbone(name: str) -> Backbone:
    config = _timm().get_pretrained_cfg(name)
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise UsageError(
            f"backbone {name}: takes images of {height} x {width} and {channels} channels; only square RGB"
        )
    return Backbone(
        library="timm",
        name=name,
        mean=_channels(config.mean),
        std=_channels(config.std),
        size=height,
        shorter_side=None if config.crop_mode == "squash" else int(height / config.crop_pct),
        filter=_filter(config.interpolation),
        any_size=not config.fixed_input_size,
        last_layer=config.classifier if isinstance(config.classifier, str) else config.classifier[0],
    )


def _channels(values: Any) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _filter(name: str) -> Filter:
    return cast("Filter", name) if name == "bilinear" else "bicubic"


def _has_timm() -> bool:
    return importlib.util.find_spec("timm") is not None


def _timm() -> Any:
    """The module, imported only where it is needed: it takes a second."""
    return importlib.import_module("timm")


def blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The parts that can be unfrozen, by name, from the input to the features."""
    parts: dict[str, nn.Module] = {}
    for name, child in backbone.named_children():
        inner = {f"{name}.{block}": module for block, module in child.named_children()} if name in _CONTAINERS else {}
        parts |= inner or {name: child}
    return {name: part for name, part in parts.items() if next(part.parameters(), None) is not None}


def find_blocks(backbone: nn.Module, names: str) -> list[nn.Module]:
    """Blocks by their names, separated by commas, or the last ones by their number, or `all`.

    Raises UsageError with all names if one is unknown or there are not so many.
    """
    known = blocks(backbone)
    if names == "all":
        return list(known.values())
    if names.strip().isdecimal():
        number = int(names)
        if not 1 <= number <= len(known):
            raise UsageError(f"unfreeze {names}: the backbone has 1 to {len(known)} parts to train: {', '.join(known)}")
        return list(known.values())[-number:]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UsageError(f"unfreeze {name}: the backbone has no such part; its parts are {', '.join(known)}")
    return [known[name] for name in wanted]

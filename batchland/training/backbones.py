"""Backbones: torchvision's classifiers by name, without their last layer, with their statistics, weights and blocks."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from batchland.errors import UsageError
from batchland.training.options import DEFAULT_BACKBONE

_log = logging.getLogger("batchland")

_LAST_LAYERS: Final = {
    "convnext": "classifier.2", "densenet": "classifier", "efficientnet": "classifier.1", "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1", "mobilenet_v3": "classifier.3", "regnet": "fc", "resnet": "fc", "resnext": "fc",
    "shufflenet": "fc", "swin": "head", "vgg": "classifier.6", "wide_resnet": "fc",
}  # fmt: skip
"""Families that take images of any size and end in a linear layer, with the name of that layer."""
_CONTAINERS: Final = ("features", "layers", "trunk_output")
_WEIGHTS: Final = "IMAGENET1K_V1"
"""The first set of every network: frozen, those of ResNet50 give better features than the second set."""
_RANDOM_RESIDUAL_GAIN: Final = 0.2
"""Random weights only: gain of a residual branch relative to its shortcut. See `_shrink_residuals`."""


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision that can compute features for a head."""

    name: str
    weights: Any
    """Member of torchvision's enumeration, with URL and transforms."""

    @property
    def mean(self) -> Sequence[float]:
        """Mean of each channel that its weights were trained with, 0 to 1."""
        mean: Sequence[float] = self.weights.transforms().mean
        return mean

    @property
    def std(self) -> Sequence[float]:
        """Standard deviation of each channel, 0 to 1."""
        std: Sequence[float] = self.weights.transforms().std
        return std

    @property
    def size(self) -> int:
        """Rows and columns of the images that its weights were trained on, pixels."""
        (size,) = self.weights.transforms().crop_size
        return int(size)

    @property
    def filter(self) -> str:
        """Filter that its images were resized with: bilinear or bicubic."""
        return str(self.weights.transforms().interpolation.value)

    @property
    def last_layer(self) -> str:
        """Name of the linear layer that the head replaces."""
        return next(layer for family, layer in _LAST_LAYERS.items() if self.name.startswith(family))

    def build(self) -> tuple[nn.Module, int]:
        """The network with random weights and without its last layer, and the length of its features."""
        network: nn.Module = torchvision.models.get_model(self.name, weights=None)
        last = network.get_submodule(self.last_layer)
        assert isinstance(last, nn.Linear)
        parent, _, child = self.last_layer.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        return network, last.in_features


def backbone_names() -> list[str]:
    """Every name that `find_backbone` knows."""
    models = torchvision.models
    names = [name for name in models.list_models(module=models) if name.startswith(tuple(_LAST_LAYERS))]
    return [name for name in names if _WEIGHTS in models.get_model_weights(name).__members__]


def find_backbone(name: str) -> Backbone:
    """The backbone of that name. Raises UsageError with similar names if there is none."""
    names = backbone_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, 3) or [DEFAULT_BACKBONE, "convnext_tiny", "efficientnet_b0"]
        raise UsageError(f"{name}: not the name of a usable backbone; similar ones are {', '.join(near)}")
    return Backbone(name, torchvision.models.get_model_weights(name)[_WEIGHTS])


def blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The parts that can be unfrozen, by name, from the input to the features."""
    parts: dict[str, nn.Module] = {}
    for name, child in backbone.named_children():
        inner = {f"{name}.{block}": module for block, module in child.named_children()} if name in _CONTAINERS else {}
        parts |= inner or {name: child}
    return {name: part for name, part in parts.items() if next(part.parameters(), None) is not None}


def find_blocks(backbone: nn.Module, names: str) -> list[nn.Module]:
    """Blocks by their names, separated by commas. Raises UsageError with all names if one is unknown."""
    known = blocks(backbone)
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UsageError(f"unfreeze {name}: the backbone has no such part; its parts are {', '.join(known)}")
    return [known[name] for name in wanted]


def load_weights(backbone: nn.Module, kind: Backbone, weights: str) -> None:
    """Give a backbone its weights.

    weights: `imagenet` (torchvision's IMAGENET1K_V1, downloaded once), `none` (random) or a file with a state_dict of
    the same architecture. Raises UsageError if they cannot be read or belong to another architecture.
    """
    if weights == "none":
        _log.warning(
            "transfer: the backbone has random weights, so it distinguishes only colours and textures; "
            "use pretrained weights for real work"
        )
        _shrink_residuals(backbone)
        return
    state = _download(kind) if weights == "imagenet" else _read_weights(Path(weights))
    _check_weights(weights, state, backbone, kind)
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()})


def _shrink_residuals(backbone: nn.Module) -> None:
    """Reduce the gain of each residual branch, so that the shortcuts carry the image through fifty random layers.

    Measured with ResNet50 on 5 classes of real landmarks (169 to train, 99 to test, a linear classifier on standardised
    features, two seeds each, with calibrated batch norm): gain 0 or 0.2: 66 to 70 %, 0.5: 54 to 60 %, 1 (the usual):
    38 to 43 %. Without calibration, gain 1 and a fifth of the features dead: 57 to 68 %.
    """
    for module in backbone.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, _RANDOM_RESIDUAL_GAIN)
        elif isinstance(module, BasicBlock):
            nn.init.constant_(module.bn2.weight, _RANDOM_RESIDUAL_GAIN)


def _download(kind: Backbone) -> Mapping[str, Tensor]:
    weights = kind.weights
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, no disk space, wrong hash
        raise UsageError(
            f"the ImageNet weights cannot be downloaded from {weights.url} ({error})", advice="download_weights"
        ) from error
    return state


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"weights {path}: cannot be read ({error.strerror}); give imagenet, none or a file") from error
    except Exception as error:  # torch's unpickler raises IndexError and others on garbage
        raise UsageError(f"weights {path}: not tensors that torch.save wrote; give a state_dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {path}: holds no state_dict (names to tensors); save model.state_dict()")
    return state


def _check_weights(source: str, state: Mapping[str, Tensor], backbone: nn.Module, kind: Backbone) -> None:
    """Raise UsageError unless the names and shapes are those of the backbone, with or without its last layer."""
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in state]
    foreign = [key for key in state if key not in wanted and not key.startswith(f"{kind.last_layer}.")]
    other = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for what, keys in (("lacks", missing), ("also has", foreign), ("has in another shape", other)):
        if keys:
            raise UsageError(
                f"weights {source}: not those of {kind.name}; it {what} {len(keys)} tensors, the first is {keys[0]}",
                advice="weights_backbone",
                name=kind.name,
            )

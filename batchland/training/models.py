"""The two architectures by name, and the wrapper that is trained, exported and served alike.

`ServedModel` takes the pixels of `batchland.preprocess` and gives probabilities: normalisation and softmax are part of
the model, so no caller can forget them or do them differently.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, Self

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from batchland.errors import UsageError
from batchland.preprocess import PreprocessSpec

_log = logging.getLogger("batchland")

Architecture = Literal["scratch", "transfer"]
ARCHITECTURES: Final[tuple[Architecture, ...]] = ("scratch", "transfer")

FEATURES: Final = 2048
"""Length of the vector that the ResNet50 backbone makes of one picture."""
_HALF: Final = (0.5, 0.5, 0.5)
_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_RANDOM_RESIDUAL_GAIN: Final = 0.2
"""Random weights only: how loud a residual branch is beside its shortcut. See `_shrink_residuals`."""


class ServedModel(nn.Module):
    """A network with its normalisation before it and softmax behind it.

    In: uint8 [batch, H, W, 3]. Out: float32 probabilities [batch, classes]. Training uses `logits` of the same object.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).reshape(3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [batch, H, W, 3] to float32 [batch, 3, H, W] as the network wants it."""
        return (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def logits(self, images: Tensor) -> Tensor:
        """Scores before softmax, float32 [batch, classes], of uint8 images [batch, H, W, 3]."""
        scores: Tensor = self.network(self.normalise(images))
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities, float32 [batch, classes], of uint8 images [batch, H, W, 3]."""
        return self.logits(images).softmax(dim=1)


class TransferNetwork(nn.Module):
    """ResNet50 without its last layer, frozen, and a head that learns.

    The backbone stays in eval mode whatever is asked for, so its batch-norm statistics never drift.
    """

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(FEATURES, 512), nn.ReLU(), nn.Dropout(0.15), nn.Linear(512, classes))
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the head's mode; the backbone's is always eval."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised float images [batch, 3, H, W]."""
        scores: Tensor = self.head(self.backbone(images))
        return scores


def scratch_network(classes: int, spec: PreprocessSpec) -> nn.Sequential:
    """Three convolution blocks and three linear layers, for pictures of the spec's size."""
    if min(spec.height, spec.width) < 8:
        raise UsageError(f"size {spec.height} x {spec.width}: too small for the scratch model; use at least 8 pixels")
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        # Pooling before ReLU gives the same numbers as after it, and a third less work: a quarter of the pixels.
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers.append(nn.Flatten())
    for before, after in ((64 * (spec.height // 8) * (spec.width // 8), 1024), (1024, 512)):
        layers += [nn.Dropout(0.25), nn.Linear(before, after), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.25), nn.Linear(512, classes))


def build(architecture: Architecture, classes: int, spec: PreprocessSpec) -> ServedModel:
    """The architecture with random weights, for `classes` classes and pictures of the spec's size."""
    if architecture == "scratch":
        return ServedModel(scratch_network(classes, spec), _HALF, _HALF)
    backbone = resnet50()
    backbone.fc = nn.Identity()
    return ServedModel(TransferNetwork(backbone, classes), _IMAGENET_MEAN, _IMAGENET_STD)


def load_backbone(model: ServedModel, weights: str) -> None:
    """Give the transfer model's backbone its weights.

    weights: `imagenet` (torchvision's IMAGENET1K_V1, downloaded once), `none` (random; see `calibrate_batch_norm`) or a
    file with a ResNet50 state_dict. Raises UsageError if they cannot be had or are of another architecture.
    """
    backbone = _transfer(model).backbone
    if weights == "none":
        _log.warning(
            "transfer: the backbone keeps random weights (--weights none); it sees colours and textures only, "
            "use --weights imagenet or a file for real work"
        )
        _shrink_residuals(backbone)
        return
    state = _download() if weights == "imagenet" else _read_weights(Path(weights))
    _check_weights(weights, state, backbone)
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()})


def features(model: ServedModel, images: Tensor) -> Tensor:
    """The frozen backbone's features, float32 [batch, FEATURES], of uint8 images [batch, H, W, 3]."""
    vectors: Tensor = _transfer(model).backbone(model.normalise(images))
    return vectors


def head(model: ServedModel) -> nn.Sequential:
    """The transfer model's learning part: features to logits."""
    return _transfer(model).head


@torch.no_grad()
def calibrate_batch_norm(model: ServedModel, batches: Iterable[Tensor]) -> None:
    """Set a random backbone's batch-norm statistics to those of the training images, once, before it is frozen.

    With the untouched statistics (mean 0, variance 1) the activations of random weights run away from layer to layer
    and the features say next to nothing. Pretrained statistics are never touched.
    """
    backbone = _transfer(model).backbone
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    backbone.train()
    try:
        for images in batches:
            backbone(model.normalise(images))
    finally:
        backbone.eval()
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def fold_standardisation(model: ServedModel, mean: Tensor, std: Tensor) -> None:
    """Make a head that was trained on `(features - mean) / std` take the features as they are, at the same answers."""
    first = head(model)[0]
    assert isinstance(first, nn.Linear)
    weight = first.weight.double() / std.double()
    first.bias.copy_(first.bias.double() - weight @ mean.double())
    first.weight.copy_(weight)


def _transfer(model: ServedModel) -> TransferNetwork:
    assert isinstance(model.network, TransferNetwork)
    return model.network


def _shrink_residuals(backbone: nn.Module) -> None:
    """Turn each residual branch down, so that the shortcuts carry the picture through fifty random layers.

    Measured on 5 classes of real landmarks (169 to train, 99 to test, a linear classifier on standardised features, two
    seeds each, with calibrated batch norm): gain 0 or 0.2: 66 to 70 %, 0.5: 54 to 60 %, 1 (the usual): 38 to 43 %.
    Without calibration, gain 1 and a fifth of the features dead: 57 to 68 %.
    """
    for name, module in backbone.named_modules():
        if name.endswith(".bn3") and isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, _RANDOM_RESIDUAL_GAIN)


def _download() -> Mapping[str, Tensor]:
    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, no space; a download that is not what was asked for
        raise UsageError(
            f"the ImageNet weights cannot be downloaded from {weights.url} ({error}); download that file elsewhere and "
            f"give it with --weights FILE, or use --weights none for a trial"
        ) from error
    return state


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"--weights {path}: cannot be read ({error.strerror}); give imagenet, none or a file"
        ) from error
    except Exception as error:  # torch's unpickler lets IndexError and others through on garbage
        raise UsageError(f"--weights {path}: not tensors that torch.save wrote; give a state_dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"--weights {path}: holds no state_dict (names to tensors); save model.state_dict()")
    return state


def _check_weights(source: str, state: Mapping[str, Tensor], backbone: nn.Module) -> None:
    """Hold a state_dict against ResNet50 without its last layer, which may be there or not."""
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in state]
    foreign = [key for key in state if key not in wanted and not key.startswith("fc.")]
    other = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for what, keys in (("lacks", missing), ("has besides", foreign), ("has in another shape", other)):
        if keys:
            raise UsageError(
                f"--weights {source}: not the weights of a ResNet50; it {what} {len(keys)} of its tensors, first "
                f"{keys[0]}; give a ResNet50 state_dict"
            )

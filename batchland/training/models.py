"""The two architectures by name, and the wrapper in which both are trained, exported and served.

`ServedModel` takes the pixels of `batchland.images.preprocess` and returns probabilities: normalisation and softmax are
part of the model, so no caller can forget them or do them differently.
"""

from collections.abc import Iterable
from typing import Final, Literal, Self

import torch
from torch import Tensor, nn

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.images.resize import has_simd
from batchland.training.backbones import find_backbone
from batchland.training.options import DEFAULT_BACKBONE, Architecture, HeadKind, TrainOptions

_SCRATCH_SIZE: Final = 224
"""Rows and columns, pixels."""

_HALF: Final = (0.5, 0.5, 0.5)


class ServedModel(nn.Module):
    """A network with normalisation before it and softmax after it.

    Input: uint8 [batch, H, W, 3]. Output: float32 probabilities [batch, classes]. Training uses `logits`.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor
    """Divides the logits before softmax; 1 until the export fits it. Not part of a checkpoint."""

    def __init__(self, network: nn.Module, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).reshape(3, 1, 1))
        self.register_buffer("temperature", torch.ones(()), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [batch, H, W, 3] to the network's input, float32 [batch, 3, H, W]."""
        return (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def logits(self, images: Tensor) -> Tensor:
        """Logits, float32 [batch, classes], of uint8 images [batch, H, W, 3]."""
        return self.network(self.normalise(images))

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities, float32 [batch, classes], of uint8 images [batch, H, W, 3]."""
        return (self.logits(images) / self.temperature).softmax(dim=1)


class TransferNetwork(nn.Module):
    """A frozen pretrained network without its last layer, and a head that is trained.

    The backbone always stays in eval mode, so its batch-norm statistics never change.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, head: HeadKind) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.head = mlp_head(features, classes) if head == "mlp" else linear_head(features, classes)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the head's mode; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised float images [batch, 3, H, W]."""
        return self.head(self.backbone(images))


def mlp_head(features: int, classes: int) -> nn.Sequential:
    """The head of the walk-through: a hidden layer of 512 units."""
    return nn.Sequential(nn.Linear(features, 512), nn.ReLU(), nn.Dropout(0.15), nn.Linear(512, classes))


def linear_head(features: int, classes: int) -> nn.Sequential:
    """Logistic regression; starts with equal probabilities."""
    layer = nn.Linear(features, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def scratch_network(classes: int, spec: PreprocessSpec, *, batch_norm: bool) -> nn.Sequential:
    """Three convolution blocks and three linear layers, for images of the spec's size."""
    if min(spec.height, spec.width) < 8:
        raise UsageError(f"size {spec.height} x {spec.width}: too small for the scratch model; use at least 8 pixels")
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(after))
        # Pooling before ReLU gives the same numbers as after it, with a third less work: a quarter of the pixels.
        layers += [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers.append(nn.Flatten())
    for before, after in ((64 * (spec.height // 8) * (spec.width // 8), 1024), (1024, 512)):
        layers += [nn.Dropout(0.25), nn.Linear(before, after), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.25), nn.Linear(512, classes))


def preprocess_spec(options: TrainOptions, architecture: Architecture) -> PreprocessSpec:
    """The preprocessing of that model, in training and scoring; for a backbone, that of its pretrained weights.

    Raises UsageError if the backbone does not take images of the chosen size.
    """
    jpeg_scale: Literal["auto", "none"] = "auto" if options.fast_jpeg else "none"
    resize: Literal["simd", "pillow"] = "simd" if has_simd() else "pillow"
    if architecture == "scratch":
        size = options.size or _SCRATCH_SIZE
        return PreprocessSpec(height=size, width=size, resize=resize, jpeg_scale=jpeg_scale, colour=options.colour)
    backbone = find_backbone(options.backbone)
    size = options.size or backbone.size
    if size != backbone.size and not backbone.any_size:
        raise UsageError(f"size {size}: {backbone.name} takes images of {backbone.size} x {backbone.size} only")
    shorter_side = backbone.shorter_side and max(size, round(backbone.shorter_side * size / backbone.size))
    return PreprocessSpec(
        height=size,
        width=size,
        fit="crop" if shorter_side else "squash",
        shorter_side=shorter_side,
        filter=backbone.filter,
        resize=resize,
        jpeg_scale=jpeg_scale,
        colour=options.colour,
    )


def build(
    architecture: Architecture,
    classes: int,
    spec: PreprocessSpec,
    backbone: str = DEFAULT_BACKBONE,
    head: HeadKind = "mlp",
    *,
    batch_norm: bool = False,
) -> ServedModel:
    """The architecture with random weights, for `classes` classes and images of the spec's size.

    backbone, head: of the transfer model; batch_norm: of the scratch model. Raises UsageError if there is no backbone
    of that name.
    """
    if architecture == "scratch":
        return ServedModel(scratch_network(classes, spec, batch_norm=batch_norm), _HALF, _HALF)
    kind = find_backbone(backbone)
    network, features = kind.build()
    return ServedModel(TransferNetwork(network, features, classes, head), kind.mean, kind.std)


def features(model: ServedModel, images: Tensor) -> Tensor:
    """The frozen backbone's features, float32 [batch, features], of uint8 images [batch, H, W, 3]."""
    vectors: Tensor = transfer_network(model).backbone(model.normalise(images))
    return vectors.float()


def head(model: ServedModel) -> nn.Sequential:
    """The part of the transfer model that is trained: features to logits."""
    return transfer_network(model).head


@torch.no_grad()
def fold_standardisation(model: ServedModel, mean: Tensor, std: Tensor) -> None:
    """Turn a head trained on `(features - mean) / std` into one that gives the same logits for the features."""
    first = head(model)[0]
    assert isinstance(first, nn.Linear)
    weight = first.weight.double() / std.double()
    first.bias.copy_(first.bias.double() - weight @ mean.double())
    first.weight.copy_(weight)


def transfer_network(model: ServedModel) -> TransferNetwork:
    """The network of a transfer model."""
    assert isinstance(model.network, TransferNetwork)
    return model.network

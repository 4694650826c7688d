"""The two architectures and the wrapper around them."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.training.models import (
    build,
    fold_standardisation,
    head,
)

SPEC = PreprocessSpec(height=32, width=32)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(count: int, spec: PreprocessSpec = SPEC) -> torch.Tensor:
    return torch.randint(0, 256, (count, *spec.shape), dtype=torch.uint8)


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for name, parameter in module.named_parameters() if name.endswith("weight")]


def test_scratch_network_layers() -> None:
    network = build("scratch", 50, PreprocessSpec()).network
    assert shapes(network) == [
        (16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (1024, 64 * 28 * 28), (512, 1024), (50, 512),
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in network.children()] == (
        ["Conv2d", "MaxPool2d", "ReLU"] * 3
        + ["Flatten"]
        + ["Dropout", "Linear", "LeakyReLU"] * 2
        + ["Dropout", "Linear"]
    )
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.25}


def test_scratch_network_with_batch_norm() -> None:
    network = build("scratch", 50, PreprocessSpec(), batch_norm=True).network
    assert [type(layer).__name__ for layer in network.children()][:5] == [
        "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Conv2d",
    ]  # fmt: skip
    assert [layer.bias is None for layer in network.modules() if isinstance(layer, nn.Conv2d)] == [True] * 3


def test_transfer_network_layers() -> None:
    model = build("transfer", 50, PreprocessSpec())
    assert shapes(head(model)) == [(512, 2048), (50, 512)]
    assert [type(layer).__name__ for layer in head(model)] == ["Linear", "ReLU", "Dropout", "Linear"]
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning == [f"network.head.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (30, 45)])
def test_scratch_takes_the_specs_size(height: int, width: int) -> None:
    spec = PreprocessSpec(height=height, width=width)
    assert build("scratch", 4, spec).eval()(images(2, spec)).shape == (2, 4)


def test_scratch_refuses_too_small_images() -> None:
    with pytest.raises(UsageError, match="size 7 x 32: too small for the scratch model; use at least 8 pixels"):
        build("scratch", 4, PreprocessSpec(height=7, width=32))


@pytest.mark.parametrize("architecture", ["scratch", "transfer"])
def test_output_is_the_softmax_of_the_logits(architecture: Any) -> None:
    model = build(architecture, 3, SPEC).eval()
    with torch.inference_mode():
        pictures = images(5)
        probabilities, logits = model(pictures), model.logits(pictures)
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(1), torch.ones(5))
    assert torch.allclose(probabilities, logits.exp() / logits.exp().sum(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "mean", "std"),
    [
        ("scratch", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("transfer", ResNet50_Weights.IMAGENET1K_V1.transforms().mean, ResNet50_Weights.IMAGENET1K_V1.transforms().std),
    ],
)
def test_each_model_normalises_with_its_own_statistics(architecture: Any, mean: Any, std: Any) -> None:
    pictures = images(2)
    normalised = build(architecture, 3, SPEC).normalise(pictures)
    for channel in range(3):
        expected = (pictures[..., channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(normalised[:, channel].double(), expected, atol=1e-5)


def test_backbone_always_stays_in_eval_mode() -> None:
    model = build("transfer", 3, SPEC).train()
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    model.logits(images(4))
    assert head(model).training
    assert not any(module.training for name, module in model.network.named_modules() if name.startswith("backbone"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())


def test_linear_head_starts_with_equal_probabilities() -> None:
    model = build("transfer", 4, SPEC, "resnet18", "linear").eval()
    assert shapes(head(model)) == [(4, 512)]
    with torch.inference_mode():
        assert torch.equal(model(images(2)), torch.full((2, 4), 0.25))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_folding_the_standardisation_keeps_the_logits(kind: Any) -> None:
    model = build("transfer", 3, SPEC, "resnet50", kind).eval()
    nn.init.normal_(head(model)[0].weight, std=0.02)  # type: ignore[arg-type]
    vectors = torch.rand(6, 2048) * 5 + 2
    mean, std = vectors.mean(0), vectors.std(0)
    expected = head(model)((vectors - mean) / std)
    fold_standardisation(model, mean, std)
    assert torch.allclose(head(model)(vectors), expected, atol=1e-4)

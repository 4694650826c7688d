"""Backbones by name, their weights and parts."""

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import EfficientNet_B0_Weights, resnet18, resnet50

from batchland.errors import UsageError
from batchland.training.backbones import backbone_names, blocks, find_backbone, find_blocks, load_weights

RESNET50 = find_backbone("resnet50")


@pytest.mark.parametrize(
    ("name", "length"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("regnet_y_400mf", 440), ("shufflenet_v2_x0_5", 1024)],
)
def test_features_have_the_stated_length_at_any_image_size(name: str, length: int) -> None:
    network, features = find_backbone(name).build()
    assert features == length
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 3, 40, 72)).shape == (2, length)


def test_last_layer_of_every_family() -> None:
    """One network of each, on the meta device, which regnet cannot be built on."""
    seen = set()
    for name in backbone_names():
        backbone = find_backbone(name)
        family = name.split("_")[0].rstrip("0123456789")
        if (family, backbone.last_layer) in seen or family == "regnet":
            continue
        seen.add((family, backbone.last_layer))
        with torch.device("meta"):
            assert backbone.build()[1] > 0
    assert len(seen) == 12


def test_statistics_size_and_filter_are_those_of_the_weights() -> None:
    ours, theirs = find_backbone("efficientnet_b0"), EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert (ours.size, ours.filter) == (224, "bicubic")
    assert (find_backbone("efficientnet_b3").size, RESNET50.filter) == (300, "bilinear")


def test_unknown_name_is_refused_with_similar_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_backbone("resnet51")
    assert str(caught.value) == (
        "resnet51: not the name of a usable backbone; similar ones are resnet50, resnet18, resnet152"
    )
    with pytest.raises(UsageError, match="similar ones are resnet50, convnext_tiny, efficientnet_b0"):
        find_backbone("zzz")


def test_parts_by_name() -> None:
    assert list(blocks(RESNET50.build()[0])) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
    network, _ = find_backbone("mobilenet_v3_small").build()
    assert list(blocks(network)) == [f"features.{number}" for number in range(13)] + ["classifier"]
    assert find_blocks(network, "features.12, classifier") == [network.features[12], network.classifier]  # type: ignore[index, operator]
    with pytest.raises(UsageError) as caught:
        find_blocks(RESNET50.build()[0], "layer4,layer5")
    assert str(caught.value) == (
        "unfreeze layer5: the backbone has no such part; its parts are conv1, bn1, layer1, layer2, layer3, layer4"
    )


@pytest.mark.parametrize("with_fc", [True, False])
def test_weights_from_a_file(tmp_path: Path, with_fc: bool) -> None:
    state = resnet50().state_dict()
    if not with_fc:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "weights.pth")
    backbone, _ = RESNET50.build()
    load_weights(backbone, RESNET50, str(tmp_path / "weights.pth"))
    ours = backbone.state_dict()
    assert len(ours) == 318
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.items())


def _refusal(weights: Path | str) -> str:
    with pytest.raises(UsageError) as caught:
        load_weights(RESNET50.build()[0], RESNET50, str(weights))
    return str(caught.value)


def test_unsuitable_weights_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    assert (
        _refusal(file) == f"weights {file}: cannot be read (No such file or directory); give imagenet, none or a file"
    )
    for content in ("", "text", "not a file of tensors"):
        file.write_text(content)
        assert _refusal(file) == f"weights {file}: not tensors that torch.save wrote; give a state_dict"
    torch.save([1, 2], file)
    assert _refusal(file) == f"weights {file}: holds no state_dict (names to tensors); save model.state_dict()"
    torch.save(resnet18().state_dict(), file)
    assert _refusal(file) == (
        f"weights {file}: not those of resnet50; it lacks 198 tensors, the first is layer1.0.conv3.weight"
    )
    state = resnet50().state_dict()
    torch.save(state | {"layer5.weight": torch.zeros(1)}, file)
    assert "it also has 1 tensors, the first is layer5.weight" in _refusal(file)
    torch.save(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, file)
    assert "it has in another shape 1 tensors, the first is conv1.weight" in _refusal(file)


def test_weights_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"conv1.weight": Harm()}, tmp_path / "weights.pth")
    assert "not tensors that torch.save wrote" in _refusal(tmp_path / "weights.pth")
    assert not (tmp_path / "harmed").exists()


def test_failed_download_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    assert _refusal("imagenet") == (
        "the ImageNet weights cannot be downloaded from https://download.pytorch.org/models/resnet50-0676ba61.pth "
        "(<urlopen error no route to host>)"
    )

"""Backbones of torchvision and timm by name, their preprocessing and parts."""

import pytest
import torch
from torchvision.models import EfficientNet_B0_Weights

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.training import backbones
from batchland.training.backbones import Backbone, blocks, find_backbone, find_blocks, torchvision_names
from batchland.training.models import preprocess_spec
from batchland.training.options import TrainOptions

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("resnet18", 512),
        ("mobilenet_v3_small", 1024),
        ("regnet_y_400mf", 440),
        ("shufflenet_v2_x0_5", 1024),
        ("tf_efficientnet_lite0", 1280),
        ("mobilenetv3_small_050", 1024),
        ("timm/resnet18", 512),
    ],
)
def test_features_have_the_stated_length_at_any_image_size(name: str, length: int) -> None:
    network, features = find_backbone(name).build()
    assert features == length
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 3, 40, 72)).shape == (2, length)


def test_last_layer_of_every_torchvision_family() -> None:
    """One network of each, on the meta device, which regnet cannot be built on."""
    seen = set()
    for name in torchvision_names():
        backbone = find_backbone(name)
        family = name.split("_")[0].rstrip("0123456789")
        if (family, backbone.last_layer) in seen or family == "regnet":
            continue
        seen.add((family, backbone.last_layer))
        with torch.device("meta"):
            assert backbone.build()[1] > 0
    assert len(seen) == 12


def test_preprocessing_is_that_of_the_weights() -> None:
    ours, theirs = find_backbone("efficientnet_b0"), EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()
    assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
    assert (ours.size, ours.shorter_side, ours.filter) == (224, 256, "bicubic")
    assert find_backbone("resnet50") == Backbone(
        library="torchvision", name="resnet50", **IMAGENET, size=224, shorter_side=256, filter="bilinear",
        any_size=True, last_layer="fc",
    )  # fmt: skip
    half = (0.5, 0.5, 0.5)
    assert find_backbone("tf_efficientnet_lite0") == Backbone(
        library="timm", name="tf_efficientnet_lite0", mean=half, std=half, size=224, shorter_side=256,
        filter="bicubic", any_size=True, last_layer="classifier",
    )  # fmt: skip
    assert find_backbone("timm/resnet50").shorter_side == 235


def test_training_uses_the_preprocessing_of_the_backbone() -> None:
    def spec(**options: object) -> PreprocessSpec:
        return preprocess_spec(TrainOptions(**options), "transfer")

    crop = {"fit": "crop", "filter": "bicubic", "jpeg_scale": "auto", "resize": "simd"}
    assert spec() == PreprocessSpec(
        height=224, width=224, fit="crop", shorter_side=256, jpeg_scale="auto", resize="simd"
    )
    assert spec(backbone="efficientnet_b3") == PreprocessSpec(height=300, width=300, shorter_side=320, **crop)
    assert spec(backbone="tf_efficientnet_lite0", size=96) == PreprocessSpec(
        height=96, width=96, shorter_side=110, **crop
    )
    assert preprocess_spec(TrainOptions(), "scratch") == PreprocessSpec(jpeg_scale="auto", resize="simd")
    with pytest.raises(UsageError, match=r"^size 96: vit_tiny_patch16_224 takes images of 224 x 224 only$"):
        spec(backbone="vit_tiny_patch16_224", size=96)


def test_unknown_name_is_refused_with_similar_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^backbone resnet51: unknown; similar ones are resnet51q, resnet50, "):
        find_backbone("resnet51")
    with pytest.raises(UsageError, match=r"similar ones are resnet50, convnext_tiny, efficientnet_b0$"):
        find_backbone("zzz")
    monkeypatch.setattr(backbones, "_has_timm", lambda: False)
    with pytest.raises(UsageError) as caught:
        find_backbone("tf_efficientnet_lite0")
    assert str(caught.value) == (
        "backbone tf_efficientnet_lite0: unknown; similar ones are efficientnet_b0, efficientnet_v2_l, efficientnet_b7 "
        "(pip install 'batchland[timm]' adds the networks of timm)"
    )


def test_parts_by_name() -> None:
    assert list(blocks(find_backbone("resnet50").build()[0])) == [
        "conv1", "bn1", "layer1", "layer2", "layer3", "layer4",
    ]  # fmt: skip
    network, _ = find_backbone("mobilenet_v3_small").build()
    assert list(blocks(network)) == [f"features.{number}" for number in range(13)] + ["classifier"]
    assert find_blocks(network, "features.12, classifier") == [network.features[12], network.classifier]  # type: ignore[index, operator]
    lite, _ = find_backbone("tf_efficientnet_lite0").build()
    stages = [f"blocks.{number}" for number in range(7)]
    assert list(blocks(lite)) == ["conv_stem", "bn1", *stages, "conv_head", "bn2"]


def test_the_last_parts_by_number() -> None:
    network, _ = find_backbone("mobilenet_v3_small").build()
    assert find_blocks(network, "2") == [network.features[12], network.classifier]  # type: ignore[index, operator]
    assert find_blocks(network, "14") == find_blocks(network, "all") == list(blocks(network).values())
    for wrong in ("0", "15"):
        with pytest.raises(
            UsageError, match=rf"unfreeze {wrong}: the backbone has 1 to 14 parts to train: features\.0, "
        ):
            find_blocks(network, wrong)


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        find_blocks(find_backbone("resnet50").build()[0], "layer4,layer5")
    assert str(caught.value) == (
        "unfreeze layer5: the backbone has no such part; its parts are conv1, bn1, layer1, layer2, layer3, layer4"
    )

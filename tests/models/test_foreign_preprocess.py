"""Preprocessing as timm and Ultralytics write it, against what their own code computes."""

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from batchland.errors import UsageError
from batchland.images.preprocess import fit
from batchland.models.foreign_preprocess import ForeignPreprocess, of_config, of_preset, of_ultralytics

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TIMM = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875, **IMAGENET}
PICTURE = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)


def of(**values):
    return ForeignPreprocess(**{"height": 224, "width": 224} | values)


CONFIGS = {
    "timm": ({"architecture": "x", "pretrained_cfg": TIMM}, of(crop_share=0.875, filter="bicubic", **IMAGENET)),
    "timm, bare": (TIMM, of(crop_share=0.875, filter="bicubic", **IMAGENET)),
    "timm, silent": ({"input_size": [3, 224, 224], "mean": None}, of(crop_share=0.875, filter="bicubic", **IMAGENET)),
    "timm, whole": (TIMM | {"crop_pct": 1.0, "crop_mode": "squash"}, of(filter="bicubic", **IMAGENET)),
    "ours": ({"height": 8, "width": 8, "channels": "bgr", "crop_share": 0.8}, of(height=8, width=8, channels="bgr",
                                                                                   crop_share=0.8)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_of_other_libraries(name):
    config, expected = CONFIGS[name]
    found, _ = of_config("config.json", config)
    assert found.spec() == expected.spec()
    assert found.channels == expected.channels
    np.testing.assert_allclose([found.mean, found.std], [expected.mean, expected.std], rtol=1e-6)


@pytest.mark.parametrize(("share", "side"), [(0.875, 256), (0.9, 248), (0.95, 235), (1.0, 224)])
def test_a_crop_share_gives_the_pixels_of_timm(share, side):
    """timm resizes with Pillow, rounds the picture, then cuts; batchland does both at once: a level or two."""
    found, _ = of_config("config.json", TIMM | {"crop_pct": share, "interpolation": "bilinear"})
    assert found.shorter_side == side
    transform = create_transform(
        (3, 224, 224), interpolation="bilinear", crop_pct=share, mean=(0,) * 3, std=(1,) * 3, is_training=False
    )
    theirs = 255 * transform(Image.fromarray(PICTURE)).numpy().transpose(1, 2, 0)
    assert np.abs(fit(PICTURE, found.spec()) - theirs).max() <= 3


FAMILIES = (
    "resnet50.a1_in1k", "tf_efficientnet_lite0.in1k", "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch16_clip_224.openai_ft_in1k", "convnext_tiny.in12k_ft_in1k_384",
    "swin_tiny_patch4_window7_224.ms_in1k",
    "mobilenetv3_small_100.lamb_in1k", "beit_base_patch16_224.in22k_ft_in22k_in1k", "regnety_032.ra_in1k",
    "deit3_small_patch16_224.fb_in22k_ft_in1k", "eva02_tiny_patch14_336.mim_in22k_ft_in1k", "fastvit_t8.apple_in1k",
    "efficientnet_b3.ra2_in1k", "mobilevit_s.cvnets_in1k", "levit_128s.fb_dist_in1k", "hiera_tiny_224.mae_in1k_ft_in1k",
)  # fmt: skip
"""One of each family, with tests at another size (ResNet, ConvNeXt, RegNet, ...), squashing, and other means."""


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("test_size", [True, False])
def test_timms_own_configurations_give_its_pixels(name, test_size):
    """Whether config.json has the fields at its top or nested; a model that takes the training size gets that."""
    config = get_pretrained_cfg(name).to_dict()
    wanted = resolve_data_config(pretrained_cfg=config, use_test_size=test_size)
    sides = (None, None) if test_size else tuple(config["input_size"][1:])
    found, _ = of_config("config.json", config, sides)
    assert of_config("config.json", {"architecture": "x", "pretrained_cfg": config}, sides) == (found, "timm")
    transform = create_transform(**wanted | {"mean": (0,) * 3, "std": (1,) * 3})
    theirs = 255 * transform(Image.fromarray(PICTURE)).numpy().transpose(1, 2, 0)
    assert np.abs(fit(PICTURE, found.spec()) - theirs).max() <= 3
    np.testing.assert_allclose([found.mean, found.std], [wanted["mean"], wanted["std"]])
    assert found.channels == "rgb"


def test_a_preset_crops_as_timm_rounds():
    assert [of_preset("imagenet", side, side).shorter_side for side in (48, 224, 299)] == [54, 256, 341]


def test_ultralytics_crops_square_pictures_and_squashes_others():
    """As its classify_transforms do."""
    assert of_ultralytics(224, 224) == of(fit="crop", shorter_side=224)
    assert of_ultralytics(224, 320) == of(height=224, width=320)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TIMM | {"input_size": [1, 28, 28]}, "its model takes 1 channels; only red, green and blue can be given"),
        (TIMM | {"interpolation": "lanczos"},
         "interpolation lanczos is not supported; give a JSON file with a similar preprocessing"),
        (TIMM | {"crop_mode": "border"},
         "crop_mode border with crop_pct 0.875 is not supported; give a JSON file with a similar preprocessing"),
        (TIMM | {"input_size": [3, 224, 320]},
         "a crop of 224 x 320 is not supported; give a JSON file with a similar preprocessing"),
        ({"height": 8, "width": 8, "std": [0, 1, 1]}, "std: std must be positive"),
        ({"height": 8, "width": 8, "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]},
         "mean and std are for pixels from 0 to 1; divide values for 0 to 255 by 255"),
        ({"height": 8, "width": 8, "means": [0, 1, 1]}, "means: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_unsupported_preprocessing_is_an_error(config, message):
    with pytest.raises(UsageError) as caught:
        of_config("config.json", config)
    assert str(caught.value) == f"config.json: {message}"


def test_other_files_describe_no_preprocessing():
    assert of_config("config.json", {"name": "my project", "version": 3}) is None
    assert of_config("config.json", ["a", "b"]) is None

"""Preprocessing as timm and Hugging Face write it, against what their own code computes."""

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from batchland.errors import UsageError
from batchland.images.preprocess import fit
from batchland.models.foreign_preprocess import ForeignPreprocess, of_config, of_ultralytics

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TIMM = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875, **IMAGENET}
VIT = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "image_processor_type": "ViTImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
    "size": {"height": 224, "width": 224},
}  # fmt: skip
MOBILENET = VIT | {
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256},
    "image_processor_type": "MobileNetV2ImageProcessor",
}  # fmt: skip
CONVNEXT = VIT | {"crop_pct": 0.875, "size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessor"}


def of(**values):
    return ForeignPreprocess(**{"height": 224, "width": 224} | values)


CONFIGS = {
    "timm": ({"architecture": "x", "pretrained_cfg": TIMM}, of(crop_share=0.875, filter="bicubic", **IMAGENET)),
    "timm, bare": (TIMM, of(crop_share=0.875, filter="bicubic", **IMAGENET)),
    "timm, whole": (TIMM | {"crop_pct": 1.0, "crop_mode": "squash"}, of(filter="bicubic", **IMAGENET)),
    "ViT": (VIT, of(mean=(0.5,) * 3, std=(0.5,) * 3)),
    "ViT, a number": (VIT | {"size": 224, "resample": 3}, of(mean=(0.5,) * 3, std=(0.5,) * 3, filter="bicubic")),
    "MobileNet": (MOBILENET, of(fit="crop", shorter_side=256, mean=(0.5,) * 3, std=(0.5,) * 3)),
    "ConvNeXt": (CONVNEXT, of(fit="crop", shorter_side=256, mean=(0.5,) * 3, std=(0.5,) * 3, crop_share=0.875)),
    "ConvNeXt, large": (
        CONVNEXT | {"size": {"shortest_edge": 384}},
        of(height=384, width=384, mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    "MobileViT": (
        MOBILENET | {"do_flip_channel_order": True, "do_normalize": False},
        of(fit="crop", shorter_side=256, channels="bgr"),
    ),
    "rescaled to -1..1": (
        VIT | {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        of(mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    "bytes": (VIT | {"do_rescale": False, "do_normalize": False}, of(std=(1 / 255,) * 3)),
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
    picture = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
    found, _ = of_config("config.json", TIMM | {"crop_pct": share, "interpolation": "bilinear"})
    assert found.shorter_side == side
    transform = create_transform(
        (3, 224, 224), interpolation="bilinear", crop_pct=share, mean=(0,) * 3, std=(1,) * 3, is_training=False
    )
    theirs = 255 * transform(Image.fromarray(picture)).numpy().transpose(1, 2, 0)
    assert np.abs(fit(picture, found.spec()) - theirs).max() <= 3


def test_ultralytics_crops_the_shorter_side():
    assert of_ultralytics(224) == of(fit="crop", shorter_side=224)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TIMM | {"input_size": [1, 28, 28]}, "its model takes 1 channels; only red, green and blue can be given"),
        (TIMM | {"interpolation": "lanczos"},
         "interpolation lanczos cannot be expressed; give a JSON file that comes closest"),
        (TIMM | {"crop_mode": "border"},
         "crop_mode border with crop_pct 0.875 cannot be expressed; give a JSON file that comes closest"),
        (VIT | {"do_center_crop": True, "size": {"height": 256, "width": 256}, "crop_size": 224},
         "size {'height': 256, 'width': 256} before a crop of 224 x 224 cannot be expressed; give a JSON file that "
         "comes closest"),
        ({k: v for k, v in VIT.items() if k != "image_std"},
         "its preprocessing cannot be read ('image_std'); name the preprocessing"),
        ({"height": 8, "width": 8, "std": [0, 1, 1]}, "std: std must be positive"),
        ({"height": 8, "width": 8, "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]},
         "the file: mean and std are for pixels from 0 to 1; divide values for 0 to 255 by 255"),
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

"""Preprocessing as real repositories on Hugging Face write it; the answers are those of transformers' own classes.

They were compared with the pixels of transformers 5.24 (its Pillow classes) for a picture of 300 x 420: within one
level, shifted by one pixel where the edge of the crop is rounded another way.
"""

import numpy as np
import pytest

from batchland.errors import UsageError
from batchland.models.foreign_preprocess import ForeignPreprocess, of_config

HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
RAW = ((0.0,) * 3, (1.0,) * 3)
TENSORFLOW = (0.47853944, 0.4732864, 0.47434163)


def written(mean_std=None, **values):
    """A file with the usual fields."""
    if mean_std:
        values |= {"image_mean": list(mean_std[0]), "image_std": list(mean_std[1]), "do_normalize": True}
    return {"do_resize": True} | values


def sides(height, width):
    return {"height": height, "width": width}


# name: (file, size, shorter side of a crop or None, filter, (mean, std), channels)
FILES = {
    "ViT": (written(HALF, image_processor_type="ViTImageProcessor", resample=2, size=sides(224, 224), do_rescale=True,
                    rescale_factor=1 / 255), 224, None, "bilinear", HALF, "rgb"),
    "ViT, as first written": (written(HALF, feature_extractor_type="ViTFeatureExtractor", resample=2, size=384),
                              384, None, "bilinear", HALF, "rgb"),
    "ViT, without mean and filter": ({"image_processor_type": "ViTImageProcessorFast", "size": sides(224, 224)},
                                     224, None, "bilinear", HALF, "rgb"),
    "Swin": (written(IMAGENET, feature_extractor_type="ViTFeatureExtractor", resample=3, size=224),
             224, None, "bicubic", IMAGENET, "rgb"),
    "BEiT": (written(HALF, feature_extractor_type="BeitFeatureExtractor", do_center_crop=False, crop_size=224,
                     resample=2, size=224), 224, None, "bilinear", HALF, "rgb"),
    "DeiT, size of the crop": (written(IMAGENET, image_processor_type="DeiTImageProcessor", do_center_crop=True,
                                       crop_size=sides(224, 224), resample=3, size=sides(224, 224)),
                               224, None, "bicubic", IMAGENET, "rgb"),
    "ResNet": (written(IMAGENET, feature_extractor_type="ConvNextFeatureExtractor", crop_pct=0.875, resample=3,
                       size=224), 224, 256, "bicubic", IMAGENET, "rgb"),
    "ConvNeXt": (written(IMAGENET, image_processor_type="ConvNextImageProcessor", crop_pct=0.95, resample=3,
                         size={"shortest_edge": 224}), 224, 235, "bicubic", IMAGENET, "rgb"),
    "ConvNeXt, without crop_pct": (written(IMAGENET, image_processor_type="ConvNextImageProcessor", crop_pct=None,
                                           resample=3, size={"shortest_edge": 224}),
                                   224, 256, "bicubic", IMAGENET, "rgb"),
    "ConvNeXt, 384": (written(IMAGENET, image_processor_type="ConvNextImageProcessor", crop_pct=0.875, resample=3,
                              size={"shortest_edge": 384}), 384, None, "bicubic", IMAGENET, "rgb"),
    "EfficientNet": (written(((0.485, 0.456, 0.406), TENSORFLOW), image_processor_type="EfficientNetImageProcessor",
                             do_center_crop=False, crop_size=sides(289, 289), include_top=True, resample=3,
                             rescale_factor=1 / 255, rescale_offset=False, size=sides(224, 224)),
                     224, None, "bicubic", ((0.485, 0.456, 0.406), tuple(each**2 for each in TENSORFLOW)), "rgb"),
    "EfficientNet, silent about include_top": (
        {"image_processor_type": "EfficientNetImageProcessor", "size": sides(224, 224), "resample": 2},
        224, None, "bilinear", ((0.5,) * 3, (0.25,) * 3), "rgb"),
    "EfficientNet, only the second normalisation": (
        {"image_processor_type": "EfficientNetImageProcessor", "size": sides(224, 224), "do_normalize": False},
        224, None, "bicubic", ((0.0,) * 3, (0.5,) * 3), "rgb"),
    "EfficientNet, -1..1": (
        {"image_processor_type": "EfficientNetImageProcessor", "size": sides(224, 224), "rescale_factor": 1 / 127.5,
         "rescale_offset": True, "do_normalize": False, "include_top": False},
        224, None, "bicubic", HALF, "rgb"),
    "MobileNet": (written(HALF, image_processor_type="MobileNetV2ImageProcessor", do_center_crop=True,
                          crop_size=sides(224, 224), resample=2, size={"shortest_edge": 256}),
                  224, 256, "bilinear", HALF, "rgb"),
    "MobileNet, as first written": (written(HALF, feature_extractor_type="MobileNetV1FeatureExtractor",
                                            do_center_crop=True, crop_size=192, resample=2, size=224),
                                    192, 224, "bilinear", HALF, "rgb"),
    "MobileViT": (written(feature_extractor_type="MobileViTFeatureExtractor", do_center_crop=True, crop_size=256,
                          do_flip_channel_order=True, resample=2, size=288), 256, 288, "bilinear", RAW, "bgr"),
    "MobileViT, silent about the channels": (
        written(image_processor_type="MobileViTImageProcessor", crop_size=sides(256, 256), size={"shortest_edge": 288},
                resample=2, rescale_factor=1 / 255), 256, 288, "bilinear", RAW, "bgr"),
    "LeViT": (written(IMAGENET, feature_extractor_type="LevitFeatureExtractor", do_center_crop=True, resample=3,
                      size=224), 224, 256, "bicubic", IMAGENET, "rgb"),
    "PoolFormer": (written(IMAGENET, feature_extractor_type="PoolFormerFeatureExtractor", do_center_crop=True,
                           crop_pct=0.95, crop_size=224, resample=3, size=224), 224, 235, "bicubic", IMAGENET, "rgb"),
    "DINOv2": (written(IMAGENET, image_processor_type="BitImageProcessor", do_center_crop=True, do_convert_rgb=True,
                       crop_size=sides(224, 224), resample=3, size={"shortest_edge": 256}),
               224, 256, "bicubic", IMAGENET, "rgb"),
    "DINOv3": (written(IMAGENET, image_processor_type="DINOv3ViTImageProcessorFast", do_center_crop=None,
                       crop_size=None, do_pad=None, resample=2, size=sides(224, 224)),
               224, None, "bilinear", IMAGENET, "rgb"),
    "CLIP": (written(CLIP, feature_extractor_type="CLIPFeatureExtractor", do_center_crop=True, crop_size=224,
                     resample=3, size=224), 224, 224, "bicubic", CLIP, "rgb"),
    "SigLIP": (written(HALF, image_processor_type="SiglipImageProcessor", processor_class="SiglipProcessor",
                       resample=3, rescale_factor=1 / 255, size=sides(384, 384)), 384, None, "bicubic", HALF, "rgb"),
    "PVT": (written(IMAGENET, image_processor_type="PvtImageProcessor", resample=2, size=sides(224, 224)),
            224, None, "bilinear", IMAGENET, "rgb"),
    "bytes": (written(image_processor_type="ViTImageProcessor", resample=2, size=224, do_rescale=False,
                      do_normalize=False), 224, None, "bilinear", ((0.0,) * 3, (1 / 255,) * 3), "rgb"),
    "mean and std of bytes": (written(tuple(tuple(255 * each for each in part) for part in IMAGENET), resample=3,
                                      do_rescale=False, size=sides(224, 224)), 224, None, "bicubic", IMAGENET, "rgb"),
    "another class": (written(IMAGENET, image_processor_type="OwnImageProcessor", resample=3, do_center_crop=True,
                              crop_size=224, size={"shortest_edge": 256}), 224, 256, "bicubic", IMAGENET, "rgb"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_real_repositories(name):
    file, side, shorter_side, resample, (mean, std), channels = FILES[name]
    found, library = of_config("preprocessor_config.json", file)
    assert library == "Hugging Face"
    assert found.spec() == ForeignPreprocess(
        height=side, width=side, fit="crop" if shorter_side else "squash", shorter_side=shorter_side, filter=resample
    ).spec()  # fmt: skip
    np.testing.assert_allclose([found.mean, found.std], [mean, std], rtol=1e-6)
    assert found.channels == channels


DEIT = written(IMAGENET, feature_extractor_type="DeiTFeatureExtractor", do_center_crop=True, crop_size=224, resample=3,
               size=256)  # fmt: skip
CLOSEST = "is not supported; give a JSON file with a similar preprocessing"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (written(IMAGENET, image_processor_type="EfficientNetImageProcessor", size=sides(224, 224), rescale_offset=True,
                 do_center_crop=False), f"rescale_offset with rescale_factor 0.003922 {CLOSEST}"),
        (DEIT, f"size 256 of the whole picture before a crop of 224 x 224 {CLOSEST}"),
        (DEIT | {"size": sides(256, 256)},
         f"size {{'height': 256, 'width': 256}} of the whole picture before a crop of 224 x 224 {CLOSEST}"),
        (DEIT | {"feature_extractor_type": None}, f"size 256, of one side or both, before a crop {CLOSEST}"),
        (FILES["EfficientNet"][0] | {"resample": 0}, f"resample 0 {CLOSEST}"),
        (FILES["ViT"][0] | {"do_resize": False}, f"do_resize false {CLOSEST}"),
        (FILES["ViT"][0] | {"do_pad": True}, f"do_pad {CLOSEST}"),
        (FILES["ViT"][0] | {"size": {"shortest_edge": 224}}, f"size {{'shortest_edge': 224}} without a crop {CLOSEST}"),
        (FILES["CLIP"][0] | {"do_center_crop": False}, f"size 224 without a crop {CLOSEST}"),
        (FILES["CLIP"][0] | {"size": {"shortest_edge": 224, "longest_edge": 500}},
         f"size {{'shortest_edge': 224, 'longest_edge': 500}} {CLOSEST}"),
        (FILES["MobileNet"][0] | {"crop_size": 288},
         "shorter_side must be at least 288, the size that is cut out"),
        (written(size=224, resample=3), "does not say its image_mean; name the preprocessing"),
        (written(HALF, size=224, image_processor_type="OwnImageProcessor"),
         "does not say its resample; name the preprocessing"),
        (FILES["ViT"][0] | {"size": "large"},
         "its preprocessing cannot be read (too many values to unpack (expected 2)); name the preprocessing"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_exactly_is_refused(file, message):
    with pytest.raises(UsageError) as caught:
        of_config("preprocessor_config.json", file)
    assert str(caught.value) == f"preprocessor_config.json: {message}"

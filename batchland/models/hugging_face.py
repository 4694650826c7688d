"""Read Hugging Face's preprocessor_config.json as the image processor that it names, with the defaults of its class."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from batchland.errors import UsageError

_BYTE: Final = 1 / 255
_FILTERS: Final = {2: "bilinear", 3: "bicubic"}
"""Names of filters by their number in Pillow."""
_WHOLE_FROM: Final = 384
"""Pixels; from this size on, ConvNextImageProcessor resizes the whole picture."""
_IMAGENET: Final = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF: Final = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLIP: Final = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
_CROP: Final = {"do_center_crop": True, "crop_size": 224}


class _Processor(NamedTuple):
    """What an image processor does where its file is silent."""

    defaults: Mapping[str, Any]
    square: bool = False
    """Whether a size that is a number is that of both sides, and not of the shorter one."""


_PROCESSORS: Final[dict[str, _Processor]] = {
    "Beit": _Processor({**_HALF, "size": 224, "crop_size": 224, "resample": 3}, square=True),
    "Bit": _Processor({**_CLIP, **_CROP, "size": 224, "resample": 3}),
    "CLIP": _Processor({**_CLIP, **_CROP, "size": 224, "resample": 3}),
    "ConvNext": _Processor({**_HALF, "size": 384, "crop_pct": 224 / 256, "resample": 3}),
    "DINOv3ViT": _Processor({**_IMAGENET, "size": 224, "resample": 2}, square=True),
    "DeiT": _Processor({**_HALF, **_CROP, "size": 256, "resample": 3}, square=True),
    "EfficientNet": _Processor({**_HALF, "size": 346, "crop_size": 289, "resample": 3}, square=True),
    "Levit": _Processor({**_IMAGENET, **_CROP, "size": 224, "resample": 3}),
    "MobileNetV1": _Processor({**_HALF, **_CROP, "size": 256, "resample": 2}),
    "MobileNetV2": _Processor({**_HALF, **_CROP, "size": 256, "resample": 2}),
    "MobileViT": _Processor(
        {"do_center_crop": True, "crop_size": 256, "size": 224, "do_flip_channel_order": True, "resample": 3}
    ),
    "PoolFormer": _Processor({**_IMAGENET, **_CROP, "size": 224, "crop_pct": 0.9, "resample": 3}),
    "Pvt": _Processor({**_IMAGENET, "size": 224, "resample": 3}, square=True),
    "Siglip": _Processor({**_HALF, "size": 224, "resample": 3}, square=True),
    "ViT": _Processor({**_HALF, "size": 224, "resample": 2}, square=True),
}
"""By the name of the class without `ImageProcessor`, as transformers 5 defines them. Of another class, the file has to
say everything."""


class _Config(NamedTuple):
    """A file with the defaults of its class."""

    source: str
    kind: str
    """A key of `_PROCESSORS`, the name of another class, or empty."""
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """Raises UsageError if neither the file nor the class says it."""
        if self.values.get(name) is None:
            raise UsageError(f"{self.source}: does not say its {name}; name the preprocessing", advice="preprocess")
        return self.values[name]

    def is_on(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        return default if value is None else bool(value)

    def refuse(self, what: str) -> UsageError:
        return unsupported_preprocess(self.source, what)


def read_processor(source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ForeignPreprocess for a file's content.

    Raises UsageError if it cannot be expressed; TypeError, ValueError or KeyError if its values are of other kinds.
    """
    name = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", name)
    known = _PROCESSORS.get(kind, _Processor({}))
    given = {key: value for key, value in values.items() if value is not None}
    config = _Config(source, kind, {**known.defaults, **given})
    for step in ("do_pad", "do_thumbnail", "do_align_long_axis"):
        if config.is_on(step, default=False):
            raise config.refuse(step)
    if not config.is_on("do_resize", default=True):
        raise config.refuse("do_resize false")
    resample = config.get("resample")
    if resample not in _FILTERS:
        raise config.refuse(f"resample {resample}")
    mean, std = _normalisation(config)
    return {
        **_geometry(config, square=known.square),
        "filter": _FILTERS[resample],
        "mean": mean,
        "std": std,
        "channels": "bgr" if config.is_on("do_flip_channel_order", default=False) else "rgb",
    }


def unsupported_preprocess(source: str, what: str) -> UsageError:
    """The error for a preprocessing that batchland does not have."""
    return UsageError(f"{source}: {what} is not supported; give a JSON file with a similar preprocessing")


def _geometry(config: _Config, *, square: bool) -> dict[str, Any]:
    size = config.get("size")
    if isinstance(size, dict) and set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise config.refuse(f"size {size}")
    crops = config.is_on("do_center_crop", default=False)
    shortest = size["shortest_edge"] if isinstance(size, dict) and "shortest_edge" in size else None
    if isinstance(size, int) and not square:
        if crops and config.kind not in _PROCESSORS:
            raise config.refuse(f"size {size}, of one side or both, before a crop")
        shortest = size if crops or config.kind in _PROCESSORS else None
    if config.kind == "ConvNext":
        side = int(shortest if shortest is not None else config.get("shortest_edge"))
        if side >= _WHOLE_FROM:
            return {"height": side, "width": side}
        return _crop(side, side, int(side / config.get("crop_pct")))
    if shortest is not None and not crops:  # the model would have to take any shape
        raise config.refuse(f"size {size} without a crop")
    if not crops:
        height, width = _sides(size)
        return {"height": height, "width": width}
    height, width = _sides(config.get("crop_size"))
    if config.kind == "PoolFormer" and config.values.get("crop_pct") is not None:
        shortest = int((shortest or size["height"]) / config.get("crop_pct"))
    if shortest is not None:
        return _crop(height, width, int(256 / 224 * shortest) if config.kind == "Levit" else int(shortest))
    if _sides(size) != (height, width):
        raise config.refuse(f"size {size} of the whole picture before a crop of {height} x {width}")
    return {"height": height, "width": width}


def _crop(height: int, width: int, shorter_side: int) -> dict[str, Any]:
    return {"height": height, "width": width, "fit": "crop", "shorter_side": shorter_side}


def _sides(size: Any) -> tuple[int, int]:
    """(height, width) of a size: a number, a pair, or a dictionary."""
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, Sequence):
        height, width = size
        return int(height), int(width)
    return int(size), int(size)


def _normalisation(config: _Config) -> tuple[list[float], list[float]]:
    """(mean, std) for pixels / 255, from `((pixel * rescale_factor + offset) - image_mean) / image_std`."""
    rescales = config.is_on("do_rescale", default=True)
    scale = 255 * float(config.values.get("rescale_factor", _BYTE)) if rescales else 255.0
    offset = -1.0 if rescales and config.is_on("rescale_offset", default=False) else 0.0
    if offset and scale < 2:  # pixels would be between -1 and 0
        raise config.refuse(f"rescale_offset with rescale_factor {scale / 255:.4g}")
    mean, std = [0.0] * 3, [1.0] * 3
    if config.kind != "MobileViT":  # which never normalises
        if config.is_on("do_normalize", default=True):
            mean, std = _per_channel(config.get("image_mean")), _per_channel(config.get("image_std"))
        if config.kind == "EfficientNet" and config.is_on("include_top", default=True):
            # It divides by the deviation once more.
            std = [one * other for one, other in zip(std, _per_channel(config.get("image_std")), strict=True)]
    return [(each - offset) / scale for each in mean], [each / scale for each in std]


def _per_channel(value: Any) -> list[float]:
    """Three numbers; one number is that of all channels."""
    return [float(each) for each in (value if isinstance(value, Sequence) else [value] * 3)]

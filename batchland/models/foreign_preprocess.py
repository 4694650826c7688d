"""Preprocessing of models from elsewhere: our presets, our JSON, and the configurations of other libraries."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.system.options import plain_message

Channels = tuple[float, float, float]
_BYTE: Final = 1 / 255
_RESAMPLE: Final = {2: "bilinear", 3: "bicubic"}
"""Filters by Pillow's number."""
_WHOLE_FROM: Final = 384
"""Pixels; from this size on, Hugging Face's ConvNextImageProcessor resizes the whole picture."""


class ForeignPreprocess(PreprocessSpec):
    """A preprocessing spec with the foreign model's normalisation: `(pixel / 255 - mean) / std` per channel."""

    mean: Channels = (0.0, 0.0, 0.0)
    """Of red, green and blue, whatever the order of the channels."""
    std: Channels = Field(default=(1.0, 1.0, 1.0))
    """Of red, green and blue."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order in which the model takes them."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """Order of the model's axes; None: found by its shape, its names, or by trying."""
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of `shorter_side`: the share of the shorter side that is left, as timm's crop_pct."""

    @model_validator(mode="before")
    @classmethod
    def _share_becomes_a_side(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(share := values.get("crop_share"), int | float) and share > 0:
            size = max(int(values.get("height") or 224), int(values.get("width") or 224))
            return {"fit": "crop", "shorter_side": math.floor(size / share)} | values
        return values

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError("std must be positive")
        return std

    @model_validator(mode="after")
    def _is_for_pixels_from_0_to_1(self) -> "ForeignPreprocess":
        if max(map(abs, (*self.mean, *self.std))) > 1:
            raise ValueError("mean and std are for pixels from 0 to 1; divide values for 0 to 255 by 255")
        return self

    def spec(self) -> PreprocessSpec:
        """The part that the card keeps as preprocessing; the rest goes into the graph."""
        return PreprocessSpec.model_validate(self.model_dump(include=set(PreprocessSpec.model_fields)))


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "imagenet": {"fit": "crop", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "half": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "unit": {},
    "byte": {"std": (_BYTE, _BYTE, _BYTE)},
}
"""imagenet: resize the shorter side, centre crop, ImageNet's statistics. The others squash the whole picture and scale
pixels to -1..1 (half), 0..1 (unit) or 0..255 (byte)."""


def of_preset(name: str, height: int, width: int) -> ForeignPreprocess:
    """A preset for pictures of that size."""
    size: dict[str, Any] = {"height": height, "width": width}
    if PRESETS[name].get("fit") == "crop":
        size["shorter_side"] = round(max(height, width) * 256 / 224)
    return ForeignPreprocess(**PRESETS[name], **size)


def of_config(source: str, values: Any, *, ours: bool = True) -> tuple[ForeignPreprocess, str] | None:
    """The preprocessing in the content of a JSON file, and the library that wrote it; None if it has none.

    ours: also read batchland's own fields. Raises UsageError if it cannot be expressed or is invalid.
    """
    if not isinstance(values, dict):
        return None
    try:
        if isinstance(inner := values.get("pretrained_cfg"), dict) or "input_size" in (inner := values):
            return _of_timm(source, inner), "timm"
        if {"image_mean", "size", "crop_size", "do_resize"} & values.keys():
            return _of_hugging_face(source, values), "Hugging Face"
        if ours and ForeignPreprocess.model_fields.keys() & values.keys():
            return ForeignPreprocess.model_validate(values), "batchland"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{source}: {where}: {plain_message(first)}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"{source}: its preprocessing cannot be read ({error}); name the preprocessing") from error
    return None


def of_ultralytics(side: int) -> ForeignPreprocess:
    """Classifiers of Ultralytics: the shorter side resized to the size, centre crop, pixels as 0..1."""
    return ForeignPreprocess(height=side, width=side, fit="crop", shorter_side=side)


def _of_timm(source: str, config: Mapping[str, Any]) -> ForeignPreprocess:
    channels, height, width = config.get("test_input_size") or config["input_size"]
    if channels != 3:
        raise UsageError(f"{source}: its model takes {channels} channels; only red, green and blue can be given")
    share = config.get("test_crop_pct") or config.get("crop_pct") or 1.0
    values: dict[str, Any] = {"height": height, "width": width, "mean": config["mean"], "std": config["std"]}
    mode = config.get("crop_mode") or "center"
    if mode == "center":
        values["crop_share"] = share
    elif mode != "squash" or share != 1:
        raise _inexpressible(source, f"crop_mode {mode} with crop_pct {share:g}")
    interpolation = config.get("interpolation") or "bilinear"
    if interpolation not in ("bilinear", "bicubic"):
        raise _inexpressible(source, f"interpolation {interpolation}")
    return ForeignPreprocess(filter=interpolation, **values)


def _of_hugging_face(source: str, config: Mapping[str, Any]) -> ForeignPreprocess:
    """As the image processors of transformers do: ViT, BiT, ConvNeXt, EfficientNet, MobileNet, MobileViT, others."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    filter_number = config.get("resample", 2)
    if filter_number not in _RESAMPLE:
        raise _inexpressible(source, f"resample {filter_number}")
    mean, std = _normalisation(config, kind)
    return ForeignPreprocess(
        **_geometry(source, config, kind),
        filter=_RESAMPLE[filter_number],
        mean=mean,
        std=std,
        channels="bgr" if config.get("do_flip_channel_order") else "rgb",
    )


def _geometry(source: str, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    size = config.get("size", 224)
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if kind.startswith("ConvNext"):
        side = int(shortest or size)
        if side >= _WHOLE_FROM:
            return {"height": side, "width": side}
        return {"height": side, "width": side, "crop_share": config.get("crop_pct") or 224 / 256}
    crop = config.get("crop_size", size) if config.get("do_center_crop") else None
    if crop is not None:
        height, width = _sides(crop)
        if shortest is None and isinstance(size, dict) and _sides(size) != (height, width):
            raise _inexpressible(source, f"size {size} before a crop of {height} x {width}")
        side = int(shortest or (size if isinstance(size, int) else max(height, width)))
        return {"height": height, "width": width, "fit": "crop", "shorter_side": side}
    if shortest is not None:  # without a crop, the model would have to take any shape
        raise _inexpressible(source, f"size {size} without a crop")
    height, width = _sides(size)
    return {"height": height, "width": width}


def _sides(size: Any) -> tuple[int, int]:
    """(height, width) of Hugging Face's size: a number, a pair, or a dictionary."""
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, Sequence):
        height, width = size
        return int(height), int(width)
    return int(size), int(size)


def _normalisation(config: Mapping[str, Any], kind: str) -> tuple[Any, Any]:
    """(mean, std) for pixels / 255, from `((pixel * rescale_factor + offset) - image_mean) / image_std`."""
    scale = 255 * float(config.get("rescale_factor", _BYTE)) if config.get("do_rescale", True) else 255.0
    offset = -1.0 if config.get("rescale_offset") else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize", True):
        mean, std = config["image_mean"], config["image_std"]
        if kind.startswith("EfficientNet") and config.get("include_top"):
            std = [each * each for each in std]  # it normalises twice, the second time without a mean
    return [(each - offset) / scale for each in mean], [each / scale for each in std]


def _inexpressible(source: str, what: str) -> UsageError:
    return UsageError(f"{source}: {what} cannot be expressed; give a JSON file that comes closest")

"""Preprocessing of models from elsewhere: our presets, our JSON, and the configurations of other libraries."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.hugging_face import read_processor, unsupported_preprocess
from batchland.system.options import plain_message

Channels = tuple[float, float, float]
Sides = tuple[int | None, int | None]
"""Height and width, pixels."""
_BYTE: Final = 1 / 255
_TIMM_DEFAULTS: Final[dict[str, Any]] = {
    "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
}  # fmt: skip
"""What timm's `resolve_data_config` takes where a configuration is silent."""


class ForeignPreprocess(PreprocessSpec):
    """A preprocessing spec with the foreign model's normalisation: `(pixel / 255 - mean) / std` per channel."""

    mean: Channels = (0.0, 0.0, 0.0)
    """Values for red, green and blue in this order, also if the model's channels have another order."""
    std: Channels = Field(default=(1.0, 1.0, 1.0))
    """Values for red, green and blue."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order in which the model takes them."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """Order of the model's axes; None: found by its shape, or the names of its axes."""
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of `shorter_side`: the share of the shorter side that is left, as timm's crop_pct."""

    @model_validator(mode="before")
    @classmethod
    def _share_becomes_a_side(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(share := values.get("crop_share"), int | float) and share > 0:
            size = max(int(values.get("height") or 224), int(values.get("width") or 224))
            return {"fit": "crop", "shorter_side": math.floor(size / share)} | values
        return values

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _are_three_numbers(cls, values: Any) -> Any:
        numbers = values if isinstance(values, list | tuple) else []
        if len(numbers) != 3 or not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
            raise ValueError("should be three finite numbers, of red, green and blue")
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
        size["shorter_side"] = max(height, width) * 256 // 224
    return ForeignPreprocess(**PRESETS[name], **size)


def of_config(
    source: str, values: Any, sides: Sides = (None, None), *, ours: bool = True
) -> tuple[ForeignPreprocess, str] | None:
    """The preprocessing in the content of a JSON file, and the library that wrote it; None if it has none.

    sides: height and width that the model takes, None where it leaves them open; they decide which of timm's two sizes
    is used. ours: also read batchland's own fields; height and width are by default `sides`. Raises UsageError if the
    preprocessing cannot be expressed or is invalid.
    """
    if not isinstance(values, dict):
        return None
    try:
        if isinstance(inner := values.get("pretrained_cfg"), dict) or "input_size" in (inner := values):
            return _timm_preprocess(source, inner, sides), "timm"
        if {"image_mean", "size", "crop_size", "do_resize"} & values.keys():
            return ForeignPreprocess(**read_processor(source, values)), "Hugging Face"
        if ours and ForeignPreprocess.model_fields.keys() & values.keys():
            known = {name: side for name, side in zip(("height", "width"), sides, strict=True) if side is not None}
            return ForeignPreprocess.model_validate(known | values), "batchland"
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"][:1])
        raise UsageError(f"{source}: {where}{plain_message(first)}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"{source}: its preprocessing cannot be read ({error}); name the preprocessing") from error
    return None


def of_ultralytics(height: int, width: int) -> ForeignPreprocess:
    """Classifiers of Ultralytics, pixels as 0..1: square ones crop the centre, others take the whole picture."""
    if height != width:
        return ForeignPreprocess(height=height, width=width)
    return ForeignPreprocess(height=height, width=width, fit="crop", shorter_side=height)


def _timm_preprocess(source: str, config: Mapping[str, Any], sides: Sides) -> ForeignPreprocess:
    """Preprocessing of timm's validation, with the size for tests if the model accepts it."""
    config = _TIMM_DEFAULTS | {name: value for name, value in config.items() if value}
    (channels, height, width), share = config["input_size"], config["crop_pct"]
    if config.get("test_input_size") and sides != (height, width):
        (channels, height, width), share = config["test_input_size"], config.get("test_crop_pct") or share
    if channels != 3:
        raise UsageError(f"{source}: its model takes {channels} channels; only red, green and blue can be given")
    values: dict[str, Any] = {"height": height, "width": width, "mean": config["mean"], "std": config["std"]}
    mode = config["crop_mode"]
    if mode == "center" and height == width:
        values["crop_share"] = share
    elif mode == "center":
        raise unsupported_preprocess(source, f"a crop of {height} x {width}")
    elif mode != "squash" or share != 1:
        raise unsupported_preprocess(source, f"crop_mode {mode} with crop_pct {share:g}")
    interpolation = config["interpolation"]
    if interpolation not in ("bilinear", "bicubic"):
        raise unsupported_preprocess(source, f"interpolation {interpolation}")
    return ForeignPreprocess(filter=interpolation, **values)

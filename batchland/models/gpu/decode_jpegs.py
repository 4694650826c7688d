"""Decode JPEGs straight into the rows of a batch on a GPU.

A decoder is tested when it is opened: its pictures may differ only a little from the CPU's, and the test finds out
whether it refuses damaged files.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.preprocess import PreprocessSpec, fit, preprocess
from batchland.models.gpu.device import Device
from batchland.models.gpu.jpeg_decoder import HARDWARE, INSTALL, KERNELS, JpegDecoder
from batchland.models.gpu.probe_jpegs import photo, probes
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.resize import Picture, Resizer
from batchland.models.ort import ort

_log = logging.getLogger("batchland")

MAX_DRIFT: Final = 1.0
"""Mean absolute difference between a decoded and resized picture and the CPU's, in levels of 0 to 255."""
MAX_ERROR: Final = 2
"""Largest difference of a single value between a resized picture and the CPU's, in levels of 0 to 255."""
_BACKENDS: Final = ((HARDWARE, KERNELS), (KERNELS,))
"""Tried in this order."""
_SUSPICIOUS: Final = 8
"""If a batch of at least this many JPEGs is refused as a whole, the decoder is at fault, not the files."""
_MAX_PIXELS: Final = 2**27
"""Pixels to decode at once (400 MB on the device), unless a single picture has more."""


class PictureDecoder(Protocol):
    """Turns JPEGs into pictures in a device's memory, for one thread at a time."""

    name: str

    def decode(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        """One picture per JPEG, in order; None for a refused one. Raises RuntimeError if the device is at fault."""


class RowDecoder:
    """Decodes and resizes JPEGs into their rows of a batch. Not thread-safe."""

    def __init__(self, decoder: PictureDecoder, resizer: Resizer) -> None:
        self.name = decoder.name
        self._decoder = decoder
        self._resizer = resizer
        self._has_failed = False

    def decode(self, encoded: Mapping[int, Encoded], batch: Any, row_bytes: int) -> list[int]:
        """Fill the rows of `batch`, an OrtValue, that `encoded` names. Returns the rows that were refused.

        Raises what onnxruntime raises.
        """
        refused = []
        for rows in _portions(encoded):
            for row, picture in zip(rows, self._pictures([encoded[row] for row in rows]), strict=True):
                if picture is None:
                    refused.append(row)
                else:
                    self._resizer.resize(picture, encoded[row].orientation, batch.data_ptr() + row * row_bytes)
        return refused

    def warm_up(self, batch_size: int) -> None:
        """Decode `batch_size` images, because the first call sets the largest batch of the GPU's JPEG engines."""
        good, _ = probes()
        usual = keep_encoded(good[0], PreprocessSpec(), checked=False)
        assert usual is not None
        self._decoder.decode([usual] * batch_size)

    def _pictures(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        try:
            pictures = self._decoder.decode(jpegs)
        except RuntimeError as error:
            pictures, reason = [None] * len(jpegs), str(error)
        else:
            reason = "it refuses every file"
            if len(jpegs) < _SUSPICIOUS or any(pictures):
                return pictures
        if not self._has_failed:
            _log.warning("%s fails, the CPU decodes instead: %s", self.name, reason)
        self._has_failed = True
        return pictures


def _portions(encoded: Mapping[int, Encoded]) -> Iterator[list[int]]:
    """Group the rows so that the pictures of a group have at most _MAX_PIXELS in total."""
    rows: list[int] = []
    pixels = 0
    for row, jpeg in encoded.items():
        pixels += jpeg.width * jpeg.height
        if rows and pixels > _MAX_PIXELS:
            yield rows
            rows, pixels = [], jpeg.width * jpeg.height
        rows.append(row)
    if rows:
        yield rows


class RowDecoders(NamedTuple):
    """Tested decoders, one for each requested device."""

    each: tuple[RowDecoder, ...]
    strict: bool
    """Whether they refuse damaged files. If not, the CPU must check the files first."""

    @property
    def name(self) -> str:
        """The decoder, and what finds damaged files, as recorded in the manifest."""
        return self.each[0].name + ("" if self.strict else "; damaged files are found by the CPU")


def open_decoders(devices: Sequence[Device], spec: PreprocessSpec, threads: int, batch_size: int) -> RowDecoders:
    """One tested decoder per device, each with `threads` CPU threads, for batches of this size. Raises Unusable."""
    reasons = []
    try:
        resizers = {device: Resizer(device, spec) for device in dict.fromkeys(devices)}
        for device, resizer in resizers.items():
            check_resizer(resizer, device, spec)
    except Unusable:
        raise
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise Unusable(explain(str(error))) from error
    for backends in _BACKENDS:
        try:
            each = tuple(RowDecoder(JpegDecoder(device, backends, threads), resizers[device]) for device in devices)
            for decoder in each:
                decoder.warm_up(batch_size)
            strict = [is_strict(decoder, device, spec) for decoder, device in zip(each, devices, strict=True)]
        except Unusable as reason:
            reasons.append(str(reason))
        except Exception as error:  # as above
            reasons.append(explain(str(error)))
        else:
            return RowDecoders(each, strict=all(strict))
    raise Unusable(reasons[-1])


def check_resizer(resizer: Resizer, device: Device, spec: PreprocessSpec) -> None:
    """Raise Unusable unless it resizes a picture as the CPU does."""
    pixels = np.asarray(photo(1280, 960)).copy()
    stored = ort.OrtValue.ortvalue_from_shape_and_type(pixels.shape, np.uint8, *device)
    stored.update_inplace(pixels)
    resized = ort.OrtValue.ortvalue_from_shape_and_type(spec.shape, np.uint8, *device)
    resizer.resize(Picture(stored.data_ptr(), 960, 1280, stored), 1, resized.data_ptr())
    drift = int(np.abs(resized.numpy().astype(int) - fit(pixels, spec)).max())
    if drift > MAX_ERROR:
        raise Unusable(
            f"onnxruntime {ort.__version__} resizes pictures on {device} differently from the CPU, by up to {drift} "
            f"levels; pip install -U onnxruntime-gpu"
        )


def is_strict(decoder: RowDecoder, device: Device, spec: PreprocessSpec) -> bool:
    """Whether the decoder refuses damaged files. Raises Unusable if it decodes good ones differently from the CPU."""
    good, damaged = probes()
    usual = spec.model_copy(update={"max_pixels": 10**8, "jpeg_scale": "none"})  # the GPU decodes in full size
    left = (keep_encoded(data, usual, checked=False) for data in (*good, *damaged))
    jpegs = {row: jpeg for row, jpeg in enumerate(left) if jpeg is not None}
    shape = (len(good) + len(damaged), *spec.shape)
    batch = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, *device)
    refused = decoder.decode(jpegs, batch, int(np.prod(spec.shape)))
    rows = batch.numpy()
    if 0 in refused:
        raise Unusable(f"{decoder.name} decodes no JPEG on {device}; is nvJPEG installed? {INSTALL}")
    for row, data in enumerate(good):
        if row not in refused:
            drift = float(np.abs(rows[row].astype(int) - preprocess(data, usual)).mean())
            if drift > MAX_DRIFT:
                raise Unusable(f"{decoder.name} decodes differently from the CPU, by {drift:.1f} levels on average")
    left_to_cpu = set(range(len(good) + len(damaged))) - set(jpegs)
    return (left_to_cpu | set(refused)).issuperset(range(len(good), len(good) + len(damaged)))

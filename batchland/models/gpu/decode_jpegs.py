"""Decode JPEGs into the rows of a batch that lies on a GPU. Found out when it is opened, not assumed: that the pictures
are the CPU's but for a small drift, and whether damaged files are refused.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.preprocess import PreprocessSpec, fit, preprocess
from batchland.models.gpu.bound import Place
from batchland.models.gpu.jpeg_decoder import HARDWARE, INSTALL, KERNELS, JpegDecoder
from batchland.models.gpu.probe_jpegs import photo, probes
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.resize import Fitter, Picture
from batchland.models.ort import ort

_log = logging.getLogger("batchland")

LARGEST_DRIFT: Final = 1.0
"""Of a fitted picture from the CPU's: mean absolute difference of its values, of 0 to 255."""
LARGEST_ERROR: Final = 2
"""Of any value of a picture that was fitted, but not decoded, there."""
_KINDS: Final = ((HARDWARE, KERNELS), (KERNELS,))
"""Decoders that are tried, in this order."""
_SUSPICIOUS: Final = 8
"""JPEGs of which not all are bad: if all are refused at once, it is the decoder's fault."""
_MOST_PIXELS: Final = 2**27
"""Decoded at once at most, unless a single picture has more: 400 MB on the device."""


class Decoder(Protocol):
    """What turns JPEGs into pictures in a device's memory, for one thread at a time."""

    name: str

    def decode(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        """A picture for each, in order, or None for what it refuses. Raises RuntimeError if the device is at fault."""


class RowDecoder:
    """Decodes JPEGs to where a batch has its rows for them. For one thread at a time."""

    def __init__(self, decoder: Decoder, fitter: Fitter) -> None:
        self.name = decoder.name
        self._decoder = decoder
        self._fitter = fitter
        self._has_failed = False

    def decode(self, encoded: Mapping[int, Encoded], batch: Any, row_bytes: int) -> list[int]:
        """Write each picture, fitted, into its row of `batch`, an OrtValue; gives the rows that were refused.

        Raises what onnxruntime raises.
        """
        refused = []
        for rows in _portions(encoded):
            for row, picture in zip(rows, self._pictures([encoded[row] for row in rows]), strict=True):
                if picture is None:
                    refused.append(row)
                else:
                    self._fitter.fit(picture, encoded[row].orientation, batch.data_ptr() + row * row_bytes)
        return refused

    def warm_up(self, batch_size: int) -> None:
        """Decode that many: how many images its engines ever take is settled by the first call."""
        good, _ = probes()
        usual = keep_encoded(good[0], PreprocessSpec(), checked=False)
        assert usual is not None
        self._decoder.decode([usual] * batch_size)

    def _pictures(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        try:
            pictures = self._decoder.decode(jpegs)
        except RuntimeError as error:
            pictures, why = [None] * len(jpegs), str(error)
        else:
            why = "it refuses all that it is given"
            if len(jpegs) < _SUSPICIOUS or any(pictures):
                return pictures
        if not self._has_failed:
            _log.warning("%s fails, the CPU decodes instead: %s", self.name, why)
        self._has_failed = True
        return pictures


def _portions(encoded: Mapping[int, Encoded]) -> Iterator[list[int]]:
    """The rows, so many at a time that their pictures find room."""
    rows: list[int] = []
    pixels = 0
    for row, jpeg in encoded.items():
        pixels += jpeg.width * jpeg.height
        if rows and pixels > _MOST_PIXELS:
            yield rows
            rows, pixels = [], jpeg.width * jpeg.height
        rows.append(row)
    if rows:
        yield rows


class RowDecoders(NamedTuple):
    """Decoders that have proven themselves, one for each place that was asked for."""

    each: tuple[RowDecoder, ...]
    strict: bool
    """Whether they refuse damaged files; if not, these have to be found before."""

    @property
    def name(self) -> str:
        """What decodes, and who looks whether files are whole, for people."""
        return self.each[0].name + ("" if self.strict else "; damaged files are found by the CPU")


def open_decoders(places: Sequence[Place], spec: PreprocessSpec, threads: int, batch_size: int) -> RowDecoders:
    """A decoder for each place, with CPU threads of its own, for batches of this size. Raises Unusable."""
    reasons = []
    try:
        fitters = {place: Fitter(place, spec) for place in dict.fromkeys(places)}
        for place, fitter in fitters.items():
            examine_fitter(fitter, place, spec)
    except Unusable:
        raise
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise Unusable(explain(str(error))) from error
    for kinds in _KINDS:
        try:
            each = tuple(RowDecoder(JpegDecoder(place, kinds, threads), fitters[place]) for place in places)
            for decoder in each:
                decoder.warm_up(batch_size)
            found = [examine(decoder, place, spec) for decoder, place in zip(each, places, strict=True)]
        except Unusable as reason:
            reasons.append(str(reason))
        except Exception as error:  # as above
            reasons.append(explain(str(error)))
        else:
            return RowDecoders(each, strict=all(found))
    raise Unusable(reasons[-1])


def examine_fitter(fitter: Fitter, place: Place, spec: PreprocessSpec) -> None:
    """Raise Unusable if it does not fit pictures as the CPU does."""
    pixels = np.asarray(photo(1280, 960)).copy()
    stored = ort.OrtValue.ortvalue_from_shape_and_type(pixels.shape, np.uint8, place.kind, place.number)
    stored.update_inplace(pixels)
    fitted = ort.OrtValue.ortvalue_from_shape_and_type(spec.shape, np.uint8, place.kind, place.number)
    fitter.fit(Picture(stored.data_ptr(), 960, 1280, stored), 1, fitted.data_ptr())
    drift = int(np.abs(fitted.numpy().astype(int) - fit(pixels, spec)).max())
    if drift > LARGEST_ERROR:
        raise Unusable(
            f"onnxruntime {ort.__version__} fits pictures on {place} otherwise than the CPU, by up to {drift} levels; "
            f"pip install --upgrade onnxruntime-gpu"
        )


def examine(decoder: RowDecoder, place: Place, spec: PreprocessSpec) -> bool:
    """Whether the decoder refuses damaged files. Raises Unusable if it does not decode good ones as the CPU does."""
    good, damaged = probes()
    usual = spec.model_copy(update={"max_pixels": 10**8, "jpeg_scale": "none"})  # large ones are decoded in full there
    left = (keep_encoded(data, usual, checked=False) for data in (*good, *damaged))
    jpegs = {row: jpeg for row, jpeg in enumerate(left) if jpeg is not None}
    shape = (len(good) + len(damaged), *spec.shape)
    batch = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, place.kind, place.number)
    refused = decoder.decode(jpegs, batch, int(np.prod(spec.shape)))
    fitted = batch.numpy()
    if 0 in refused:
        raise Unusable(f"{decoder.name} decodes no JPEG on {place}; is nvJPEG there? {INSTALL}")
    for row, data in enumerate(good):
        if row not in refused:
            drift = float(np.abs(fitted[row].astype(int) - preprocess(data, usual)).mean())
            if drift > LARGEST_DRIFT:
                raise Unusable(f"{decoder.name} gives other pictures than the CPU, by {drift:.1f} levels on average")
    left_to_cpu = set(range(len(good) + len(damaged))) - set(jpegs)
    return (left_to_cpu | set(refused)).issuperset(range(len(good), len(good) + len(damaged)))

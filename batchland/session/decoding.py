"""Decode JPEGs into the rows of a batch that lies on a GPU. Found out when it is opened, not assumed: that the pictures
are the CPU's but for a small drift, and whether damaged files are refused.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from batchland.jpegs import Encoded, left_encoded
from batchland.preprocess import PreprocessSpec, preprocess
from batchland.session.bound import Place
from batchland.session.fitting import Fitter, Picture
from batchland.session.jpeg_decoder import HARDWARE, INSTALL, KERNELS, JpegDecoder
from batchland.session.ort import ort
from batchland.session.probe_jpegs import probes
from batchland.session.problems import Unusable, explain

_log = logging.getLogger("batchland")

LARGEST_DRIFT: Final = 1.0
"""Of a fitted picture from the CPU's: mean absolute difference of its values, of 0 to 255."""
_KINDS: Final = ((HARDWARE, KERNELS), (KERNELS,))
"""Decoders that are tried, in this order."""
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

    def _pictures(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        try:
            return self._decoder.decode(jpegs)
        except RuntimeError as error:
            if not self._has_failed:
                _log.warning("%s failed, the CPU decodes instead: %s", self.name, error)
            self._has_failed = True
            return [None] * len(jpegs)


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


def open_decoders(places: Sequence[Place], spec: PreprocessSpec, threads: int) -> RowDecoders:
    """A decoder for each place, with CPU threads of its own. Raises Unusable."""
    reasons = []
    for kinds in _KINDS:
        try:
            fitters = {place: Fitter(place, spec) for place in places}
            each = tuple(RowDecoder(JpegDecoder(place, kinds, threads), fitters[place]) for place in places)
            found = [examine(decoder, place, spec) for decoder, place in zip(each, places, strict=True)]
        except Unusable as reason:
            reasons.append(str(reason))
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            reasons.append(explain(str(error)))
        else:
            return RowDecoders(each, strict=all(found))
    raise Unusable(reasons[-1])


def examine(decoder: RowDecoder, place: Place, spec: PreprocessSpec) -> bool:
    """Whether the decoder refuses damaged files. Raises Unusable if it does not decode good ones as the CPU does."""
    good, damaged = probes()
    usual = spec.model_copy(update={"max_pixels": 10**8, "jpeg_scale": "none"})  # large ones are decoded in full there
    left = (left_encoded(data, usual, checked=False) for data in (*good, *damaged))
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
    return set(refused).issuperset(range(len(good), len(good) + len(damaged)))

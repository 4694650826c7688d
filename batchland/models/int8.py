"""Quantise a model to int8: choose method and float layers by measurement, and write a file only if it passes gates.

The gates: faster than fp32 on this machine; the first class of 99 % of the labelled photos unchanged, or of as many as
in fp32 if pictures are re-encoded as JPEG; and no more accuracy lost than allowed.
"""

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.models.card import Int8Summary
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Probabilities
from batchland.models.ort import CPU, cpuinfo, create_session, has_vnni
from batchland.models.quantiser import METHODS, Method, Ranges, WeightBits, layers, measure_ranges, prepare, quantise
from batchland.models.rounding import Rounding
from batchland.system.cores import usable_cores
from batchland.system.text import percent

_log = logging.getLogger("batchland")

AGREEMENT: Final = 0.99
"""Share of photos with the same first class as in fp32 that always suffices."""
_LEAST_AGREEMENT: Final = 0.95
"""Least share for a network that changes some of its answers if pictures are re-encoded."""
_QUALITY: Final = 95
"""JPEG quality at which that is measured, the highest one that Pillow recommends."""
RANGE_PHOTOS: Final = 128
"""Most photos that the ranges of activations are measured on."""
_SAMPLE: Final = 64
"""Photos that candidates are compared on."""
_PROBE: Final = 16
"""Photos on which the layers are examined one by one."""
_BATCH: Final = 8
_ROUNDS: Final = 15
_MAX_SERIES: Final = 4
_TOLERANCE: Final = 0.1
"""Largest relative difference of two estimates of the speed."""
_STEPS: Final = (0, 1, 2, 4, 8, 16)
"""Numbers of layers to keep in float32, tried in turn."""
_EPSILON: Final = 1e-9

Predict = Callable[[Pixels], Probabilities]


class Photos(Protocol):
    """Labelled photos."""

    @property
    def labels(self) -> npt.NDArray[np.intp]:
        """Class indices [photos]."""

    def scores(self, predict: Predict, /) -> Probabilities:
        """Apply `predict` to all photos: [photos, classes]."""

    def sample(self, count: int, /) -> Pixels:
        """At most `count` photos, evenly spaced."""


@dataclass(frozen=True)
class Limits:
    """Limits of the loss of int8."""

    max_drop: float
    """Percentage points of top-1 accuracy."""
    allow_slower: bool = False


def to_int8(
    path: Path, model: onnx.ModelProto, photos: Photos, ranges: Iterable[Pixels], limits: Limits
) -> tuple[onnx.ModelProto, Int8Summary]:
    """The model in int8, and its accuracy and speed. path: named in errors. ranges: pictures, in batches.

    Raises ModelError with the figures if int8 is no faster here, or its answers differ too much.
    """
    plain = prepare(model)
    pictures = [batch[start : start + _BATCH].copy() for batch in ranges for start in range(0, len(batch), _BATCH)]
    search = _Search(path, plain, pictures, photos, limits)
    method, measured = search.best_method()
    refused = []
    for bits, in_float, quantised in search.candidates(measured):
        summary = search.judge(quantised, method, bits, in_float)
        if _passes(summary, limits):
            search.require_faster(quantised)
            return quantised, summary.model_copy(update={"speed": search.speed})
        refused.append(summary)
    raise _refusal(path, max(refused, key=lambda each: each.agreement), limits)


class _Search:
    """Compares candidates with the model in fp32."""

    def __init__(
        self, path: Path, model: onnx.ModelProto, pictures: Sequence[Pixels], photos: Photos, limits: Limits
    ) -> None:
        self.path, self.model, self.pictures, self.photos, self.limits = path, model, pictures, photos, limits
        self.layers = layers(model)
        self._rounding = Rounding(model, pictures)
        self.speed = 0.0
        self._predict = predictor(model)
        self._sample = photos.sample(_SAMPLE)
        self._expected = _in_batches(self._predict, self._sample)
        self._classes = photos.scores(self._predict).argmax(1)

    @cached_property
    def reencoded_agreement(self) -> float:
        """Share of the labelled photos with the same first class in fp32 after the scaled picture is saved as JPEG."""
        classes = self.photos.scores(lambda pixels: self._predict(_reencoded(pixels))).argmax(1)
        return float((classes == self._classes).mean())

    def best_method(self) -> tuple[Method, Ranges]:
        """The method of calibration whose answers are closest to fp32. Raises ModelError if int8 is no faster."""
        found: list[tuple[float, Method, Ranges]] = []
        for method in METHODS:
            measured = measure_ranges(self.model, self.pictures, method)
            quantised = self._quantise(measured)
            if not found:
                self.require_faster(quantised)
            found.append((self._divergence(predictor(quantised), _SAMPLE), method, measured))
            _log.info("%s: int8, ranges by %s: divergence %.4f nats", self.path, method, found[-1][0])
        _, method, measured = min(found, key=lambda each: each[0])
        return method, measured

    def candidates(self, measured: Ranges) -> Iterator[tuple[WeightBits, tuple[str, ...], onnx.ModelProto]]:
        """Bits of the weights, layers in float32, and the resulting model: from the fastest to the most exact."""
        if not has_vnni():
            yield 7, (), self._quantise(measured, bits=7)
        ranked: list[str] = []
        for count in _STEPS:
            if count > len(self.layers) // 2:
                break
            if count and not ranked:
                ranked = self._layers_by_sensitivity(measured)
            in_float = tuple(ranked[:count])
            yield 8, in_float, self._quantise(measured, in_float=in_float)

    def judge(
        self, quantised: onnx.ModelProto, method: Method, bits: WeightBits, in_float: tuple[str, ...]
    ) -> Int8Summary:
        """The figures over all labelled photos."""
        classes = self.photos.scores(predictor(quantised)).argmax(1)
        labels = self.photos.labels
        agreement = float((classes == self._classes).mean())
        _log.info(
            "%s: int8, weights of %d bits, %d layers in float32: agreement %s", self.path, bits, len(in_float),
            percent(agreement),
        )  # fmt: skip
        return Int8Summary(
            method=method,
            weight_bits=bits,
            float_layers=in_float,
            layers=len(self.layers),
            images=len(labels),
            agreement=agreement,
            reencoded_agreement=self.reencoded_agreement if agreement < AGREEMENT else None,
            accuracy=float((classes == labels).mean()),
            accuracy_fp32=float((self._classes == labels).mean()),
            speed=self.speed,
            measured_on=processor(),
        )

    def require_faster(self, quantised: onnx.ModelProto) -> None:
        """Measure `speed` with one thread, as `score` calls models. Raises ModelError if it is not above 1."""
        full, small = (predictor(model, threads=1) for model in (self.model, quantised))
        self.speed = speed(self.path, full, small, self._sample[:_BATCH], rough=self.limits.allow_slower)
        if self.speed <= 1 and not self.limits.allow_slower:
            raise ModelError(
                f"{self.path}: not written, int8 is no faster here than fp32 ({self.speed:.2f} times as fast, "
                f"{processor()})",
                advice="int8_slower",
            )

    def _quantise(self, measured: Ranges, bits: WeightBits = 8, in_float: Sequence[str] = ()) -> onnx.ModelProto:
        return self._rounding.apply(quantise(self.model, measured, bits=bits, in_float=in_float))

    def _layers_by_sensitivity(self, measured: Ranges) -> list[str]:
        """Layers, sorted by how much they change the answers if only they are in int8, the largest change first."""
        nodes = [node.name for node in self.model.graph.node]
        costs = {}
        for layer in self.layers:
            others = [name for name in nodes if name != layer]
            costs[layer] = self._divergence(predictor(self._quantise(measured, in_float=others)), _PROBE)
        return sorted(costs, key=lambda layer: -costs[layer])

    def _divergence(self, predict: Predict, photos: int) -> float:
        """Mean Kullback-Leibler divergence from fp32 on the first photos of the sample, nats."""
        expected = np.maximum(self._expected[:photos], _EPSILON)
        answers = np.maximum(_in_batches(predict, self._sample[:photos]), _EPSILON)
        return float((expected * np.log(expected / answers)).sum(axis=1).mean())


def _passes(summary: Int8Summary, limits: Limits) -> bool:
    enough = summary.agreement >= required_agreement(summary.reencoded_agreement)
    return enough and _drop(summary) <= limits.max_drop + 1e-9


def required_agreement(reencoded: float | None) -> float:
    """Least share of photos with the same first class as in fp32. reencoded: that of fp32 for JPEGs of the pictures."""
    return AGREEMENT if reencoded is None else max(_LEAST_AGREEMENT, min(AGREEMENT, reencoded))


def _drop(summary: Int8Summary) -> float:
    """Percentage points of accuracy lost."""
    return 100 * (summary.accuracy_fp32 - summary.accuracy)


def _refusal(path: Path, summary: Int8Summary, limits: Limits) -> ModelError:
    return ModelError(
        f"{path}: not written, int8 gives {percent(summary.agreement)} of {summary.images} labelled photos the "
        f"same first class as fp32 (at least {percent(required_agreement(summary.reencoded_agreement))} needed) and "
        f"{percent(summary.accuracy)} top-1 after "
        f"{percent(summary.accuracy_fp32)} (at most {limits.max_drop:g} points may be lost), with "
        f"{len(summary.float_layers)} of {summary.layers} layers in float32",
        advice="fp32",
    )


def _reencoded(pixels: Pixels) -> Pixels:
    """Each picture as a JPEG stores it, uint8 [batch, H, W, 3]."""
    pictures = []
    for each in pixels:
        Image.fromarray(each).save(file := io.BytesIO(), "JPEG", quality=_QUALITY)
        pictures.append(np.asarray(Image.open(file)))
    return np.stack(pictures)


def speed(path: Path, full: Predict, small: Predict, pixels: Pixels, *, rough: bool = False) -> float:
    """How many times as fast the second is, by CPU time of this thread: median of rounds in turns.

    Other programs make calls slower, but hardly all of them: so there are more rounds until the ratio of the least
    times is about the median. Raises ModelError if it never is, unless `rough`. path: named in the error.
    """
    for predict in (full, small):
        predict(pixels)
    rounds: list[tuple[float, float]] = []
    for _ in range(_MAX_SERIES):
        rounds += [(_cpu_seconds(full, pixels), _cpu_seconds(small, pixels)) for _ in range(_ROUNDS)]
        usual = median(one / other for one, other in rounds)
        least = min(one for one, _ in rounds) / min(other for _, other in rounds)
        if abs(least / usual - 1) <= _TOLERANCE:
            return usual
    if rough:
        return usual
    raise ModelError(
        f"{path}: not written, the speed of int8 cannot be measured beside the other programs on this machine "
        f"({usual:.2f} or {least:.2f} times as fast as fp32); run the command again when they have ended"
    )


def processor() -> str:
    """The name of the CPU, and whether it has VNNI, which multiplies int8 fastest."""
    fields = dict(line.split(":", 1) for line in cpuinfo().splitlines() if ":" in line)
    names = (value.strip() for key, value in fields.items() if key.strip() == "model name")
    return f"{next(names, f'{usable_cores()} cores')} {'with' if has_vnni() else 'without'} VNNI"


def predictor(model: onnx.ModelProto, *, threads: int | None = None) -> Predict:
    """Opens a model on the CPU. threads: of onnxruntime; None leaves their number to it."""
    session = create_session(model.SerializeToString(), [(CPU, {})], threads)

    def predict(pixels: Pixels) -> Probabilities:
        answers: Probabilities
        (answers,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        return answers

    return predict


def _in_batches(predict: Predict, pixels: Pixels) -> Probabilities:
    return np.concatenate([predict(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)])


def _cpu_seconds(predict: Predict, pixels: Pixels) -> float:
    started = time.thread_time()
    predict(pixels)
    return max(time.thread_time() - started, 1e-9)

"""Quantise a model to int8 if that is worth it: method and float layers by measurement, then gates, or no file.

The gates: faster than fp32 on this machine, the first class of 99 % of the labelled photos unchanged, and no more
accuracy lost than allowed.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.models.card import Int8Summary
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Probabilities
from batchland.models.ort import CPU, create_session
from batchland.models.quantiser import METHODS, Method, Ranges, layers, measure_ranges, prepare, quantise
from batchland.system.cores import usable_cores
from batchland.system.text import percent

_log = logging.getLogger("batchland")

AGREEMENT: Final = 0.99
"""Least share of photos with the same first class as in fp32."""
RANGE_PHOTOS: Final = 128
"""Most photos that the ranges of activations are measured on."""
_SAMPLE: Final = 64
"""Photos that candidates are compared on."""
_PROBE: Final = 16
"""Photos on which the layers are examined one by one."""
_BATCH: Final = 8
_ROUNDS: Final = 7
_STEPS: Final = (0, 1, 2, 4, 8, 16)
"""Numbers of layers to keep in float32, tried in turn."""
_LEAST: Final = 1e-9

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
    """What int8 may cost."""

    max_drop: float
    """Percentage points of top-1 accuracy."""
    allow_slower: bool = False


def to_int8(
    path: Path, model: onnx.ModelProto, photos: Photos, ranges: Iterable[Pixels], limits: Limits
) -> tuple[onnx.ModelProto, Int8Summary]:
    """The model in int8, and what that cost and gained. path: named in errors. ranges: pictures, in batches.

    Raises ModelError with the figures if int8 is no faster here, or its answers differ too much.
    """
    plain = prepare(model)
    pictures = [batch[start : start + _BATCH].copy() for batch in ranges for start in range(0, len(batch), _BATCH)]
    search = _Search(path, plain, layers(plain), photos.sample(_SAMPLE), limits)
    method, measured = search.best_method(pictures)
    in_float, quantised = search.fewest_float_layers(measured)
    summary = _judge(path, plain, quantised, photos, limits, search.speed, method, in_float)
    return quantised, summary


@dataclass
class _Search:
    """Compares candidates on a sample of the photos."""

    path: Path
    model: onnx.ModelProto
    layers: Sequence[str]
    sample: Pixels
    limits: Limits

    def __post_init__(self) -> None:
        self._predict = predictor(self.model)
        self._expected = _in_batches(self._predict, self.sample)
        self.speed = 0.0

    def best_method(self, pictures: Sequence[Pixels]) -> tuple[Method, Ranges]:
        """The method of calibration whose answers are closest to fp32. Raises ModelError if int8 is no faster."""
        found: list[tuple[float, Method, Ranges]] = []
        for method in METHODS:
            measured = measure_ranges(self.model, pictures, method)
            predict = predictor(quantise(self.model, measured))
            if not found:
                self._require_faster(predict)
            found.append((self._divergence(predict), method, measured))
            _log.info("%s: int8, ranges by %s: divergence %.4f nats", self.path, method, found[-1][0])
        _, method, measured = min(found, key=lambda each: each[0])
        return method, measured

    def fewest_float_layers(self, measured: Ranges) -> tuple[tuple[str, ...], onnx.ModelProto]:
        """The first candidate that agrees on the sample, with as few layers in float32 as needed; else the last."""
        ranked: list[str] = []
        in_float: tuple[str, ...] = ()
        for count in _STEPS:
            if count > len(self.layers) // 2:
                break
            if count and not ranked:
                ranked = self._by_sensitivity()
            in_float = tuple(ranked[:count])
            quantised = quantise(self.model, measured, in_float=in_float)
            predict = predictor(quantised)
            agreement = self._agreement(predict)
            _log.info("%s: int8, %d layers in float32: agreement %s", self.path, count, percent(agreement))
            if agreement >= AGREEMENT:
                break
        if in_float:
            self._require_faster(predict)
        return in_float, quantised

    def _by_sensitivity(self) -> list[str]:
        """Layers, those first whose rounded weights change the answers most."""
        pixels, expected = self.sample[:_PROBE], self._expected[:_PROBE]
        costs = {}
        for layer in self.layers:
            answers = _in_batches(predictor(_with_rounded_weights(self.model, layer)), pixels)
            costs[layer] = _divergence(expected, answers)
        return sorted(costs, key=lambda layer: -costs[layer])

    def _require_faster(self, predict: Predict) -> None:
        self.speed = speed(self._predict, predict, self.sample[:_BATCH])
        if self.speed <= 1 and not self.limits.allow_slower:
            raise ModelError(
                f"{self.path}: not written, int8 is no faster here than fp32 ({self.speed:.2f} times as fast, "
                f"{processor()})",
                advice="int8_slower",
            )

    def _divergence(self, predict: Predict) -> float:
        return _divergence(self._expected, _in_batches(predict, self.sample))

    def _agreement(self, predict: Predict) -> float:
        return float((_in_batches(predict, self.sample).argmax(1) == self._expected.argmax(1)).mean())


def _judge(
    path: Path, plain: onnx.ModelProto, quantised: onnx.ModelProto, photos: Photos, limits: Limits, faster: float,
    method: Method, in_float: tuple[str, ...],
) -> Int8Summary:  # fmt: skip
    """The figures over all labelled photos. Raises ModelError if one misses its gate."""
    full, small = (photos.scores(predictor(each)).argmax(1) for each in (plain, quantised))
    summary = Int8Summary(
        method=method,
        float_layers=in_float,
        layers=len(layers(plain)),
        images=len(photos.labels),
        agreement=float((full == small).mean()),
        accuracy=float((small == photos.labels).mean()),
        accuracy_fp32=float((full == photos.labels).mean()),
        speed=faster,
        measured_on=processor(),
    )
    drop = 100 * (summary.accuracy_fp32 - summary.accuracy)
    if summary.agreement < AGREEMENT or drop > limits.max_drop + 1e-9:
        raise ModelError(
            f"{path}: not written, int8 gives {percent(summary.agreement)} of {summary.images} labelled photos the "
            f"same first class as fp32 (at least {AGREEMENT:.0%} needed) and {percent(summary.accuracy)} top-1 after "
            f"{percent(summary.accuracy_fp32)} (at most {limits.max_drop:g} points may be lost), with "
            f"{len(in_float)} of {summary.layers} layers in float32",
            advice="fp32",
        )
    return summary


def speed(full: Predict, small: Predict, pixels: Pixels) -> float:
    """How many times as fast the second is, by CPU time: median of rounds in turns."""
    for predict in (full, small):
        predict(pixels)
    return median(_cpu_seconds(full, pixels) / _cpu_seconds(small, pixels) for _ in range(_ROUNDS))


def processor() -> str:
    """The name of the CPU, and whether it has VNNI, which multiplies int8 fastest."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{usable_cores()} cores"
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    name = next((value.strip() for key, value in fields.items() if key.strip() == "model name"), "unknown CPU")
    vnni = any(flag in text for flag in ("avx512_vnni", "avx_vnni"))
    return f"{name} {'with' if vnni else 'without'} VNNI"


def predictor(model: onnx.ModelProto) -> Predict:
    """Opens a model on the CPU."""
    session = create_session(model.SerializeToString(), [(CPU, {})])

    def predict(pixels: Pixels) -> Probabilities:
        answers: Probabilities
        (answers,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        return answers

    return predict


def _with_rounded_weights(model: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The model with one layer's weights rounded as `quantise` rounds them: 7 bits, a scale per output channel."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    node = next(each for each in rounded.graph.node if each.name == layer)
    stored = {tensor.name: tensor for tensor in rounded.graph.initializer}
    tensor = stored[next(name for name in node.input[1:] if name in stored)]
    weights = numpy_helper.to_array(tensor)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    channels = 0 if node.op_type == "Conv" or transposed else weights.ndim - 1
    others = tuple(axis for axis in range(weights.ndim) if axis != channels)
    scale = np.maximum(np.abs(weights).max(axis=others, keepdims=True), _LEAST) / 64
    tensor.CopyFrom(numpy_helper.from_array((np.round(weights / scale) * scale).astype(weights.dtype), tensor.name))
    return rounded


def _in_batches(predict: Predict, pixels: Pixels) -> Probabilities:
    return np.concatenate([predict(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)])


def _divergence(expected: Probabilities, answers: Probabilities) -> float:
    """Mean Kullback-Leibler divergence, nats."""
    ratio = np.log(np.maximum(expected, _LEAST)) - np.log(np.maximum(answers, _LEAST))
    return float((expected * ratio).sum(axis=1).mean())


def _cpu_seconds(predict: Predict, pixels: Pixels) -> float:
    started = time.process_time()
    predict(pixels)
    return max(time.process_time() - started, 1e-9)

"""Smaller versions of a trained model: half floats, or int8 by static quantisation with onnxruntime's quantiser."""

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME
from batchland.training.models import ServedModel

_QUANTISED: Final = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "GlobalAveragePool"]
"""Operators to run in int8. Normalisation and softmax stay in float32."""


class _HalfNetwork(nn.Module):
    """A copy of a network in half floats, with float32 input and output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images.half()).float()
        return scores


def half(model: ServedModel) -> ServedModel:
    """The model with its network in half floats; normalisation and softmax stay in float32."""
    twin = ServedModel(_HalfNetwork(model.network), model.mean.flatten().tolist(), model.std.flatten().tolist())
    twin.temperature.copy_(model.temperature)
    return twin.eval()


def quantisable(model: ServedModel) -> ServedModel:
    """A copy of the model that gives the same answers with ReLU before pooling.

    onnxruntime then fuses convolution and ReLU, and pools on int8. Training pools first, which is less work.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                if isinstance(module[index], nn.MaxPool2d) and isinstance(module[index + 1], nn.ReLU):
                    module[index], module[index + 1] = module[index + 1], module[index]
    return twin


def quantise(path: Path, calibration: Iterator[Pixels]) -> None:
    """Quantise the ONNX file to int8 in place: weights per channel, activations by their ranges on `calibration`.

    calibration: batches of training photos, uint8 [batch, H, W, 3]. Weights take 7 bits, because CPUs without VNNI
    saturate at 8, and the same file should give the same answers everywhere. The last layer stays in float32: it
    decides between close classes, and is small.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder, _quiet():
        original = Path(folder, "original.onnx")
        path.replace(original)
        quantize_static(
            original,
            path,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_exclude=[_last_layer(original)],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    quantised = onnx.load(path)
    used = {node.domain for node in quantised.graph.node}
    kept = [entry for entry in quantised.opset_import if entry.domain in used]
    del quantised.opset_import[:]
    quantised.opset_import.extend(kept)
    onnx.save(quantised, path)


def _last_layer(path: Path) -> str:
    nodes = onnx.load(path).graph.node
    return next(str(node.name) for node in reversed(nodes) if node.op_type in ("Gemm", "MatMul", "Conv"))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds batches to the quantiser."""

    def __init__(self, batches: Iterator[Pixels]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {INPUT_NAME: pixels}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which logs advice to the root logger and prints to stdout."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)

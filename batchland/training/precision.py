"""The same model in fewer bits: half floats, or int8 by static quantisation.

Besides `session` the only module that imports onnxruntime, for its quantiser; nothing here runs when images are scored.
"""

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
"""Operators that work on int8. Normalisation before them and softmax behind them stay in float32."""


class _HalfNetwork(nn.Module):
    """A network's twin in half floats, from float32 to float32."""

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
    """The model, at the same answers, in the order that int8 likes: ReLU before pooling.

    onnxruntime then makes one step of convolution and ReLU, and pools on int8. Training pools first: less work.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                if isinstance(module[place], nn.MaxPool2d) and isinstance(module[place + 1], nn.ReLU):
                    module[place], module[place + 1] = module[place + 1], module[place]
    return twin


def quantise(path: Path, calibration: Iterator[Pixels]) -> None:
    """Replace the ONNX file by its int8 twin: weights per channel, activations by what `calibration` shows of them.

    calibration: batches of training photos, uint8 [batch, H, W, 3]. Weights take 7 bits, because processors without
    VNNI saturate at 8: the same file is to give the same answers everywhere. The last layer stays in float32: it
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
    """Batches as the quantiser asks for them."""

    def __init__(self, batches: Iterator[Pixels]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {INPUT_NAME: pixels}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger and prints to stdout."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)

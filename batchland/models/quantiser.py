"""Use onnxruntime's quantiser: prepare a model, measure the ranges of its activations, write it in int8 (QDQ).

Weights are int8 per channel, activations uint8 per tensor. The fast product of the two saturates on x86 CPUs without
VNNI if weights have more than 7 bits; there `create_session` has onnxruntime use a slower, exact one: a file gives
the same answers everywhere.
"""

import contextlib
import copy
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import onnx
from onnx import version_converter

from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME
from batchland.models.ort import ort, tools_importable

Method = Literal["minmax", "percentile", "entropy"]
METHODS: Final[tuple[Method, ...]] = ("minmax", "percentile", "entropy")
WeightBits = Literal[7, 8]
LAYERS: Final = ("Conv", "Gemm", "MatMul")
"""Operators with weights."""
_OPERATORS: Final = (
    *LAYERS, "Add", "Mul", "Clip", "Relu", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Split", "Slice",
)  # fmt: skip
_OPSET: Final = 13
"""Oldest opset with scales per channel."""
_PERCENTILE: Final = 99.99

Ranges = Any
"""onnxruntime's TensorsData."""


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with batch norm folded into convolutions, constants folded, every node named, and opset 13 or later."""
    model = copy.deepcopy(model)
    if next(each.version for each in model.opset_import if each.domain == "") < _OPSET:
        model = version_converter.convert_version(model, _OPSET)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder, "prepared.onnx"))
        options.log_severity_level = 4
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        prepared: onnx.ModelProto = onnx.load(options.optimized_model_filepath)
    for number, node in enumerate(prepared.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    del prepared.metadata_props[:]
    prepared.metadata_props.extend(model.metadata_props)
    _keep_used_opsets(prepared)
    return prepared


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes with weights, from input to output."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in LAYERS and stored.intersection(node.input[1:])]


def measure_ranges(model: onnx.ModelProto, batches: Iterable[Pixels], method: Method) -> Ranges:
    """Ranges of all activations on pictures, uint8 [batch, H, W, 3]. Memory is that of one batch."""
    with tempfile.TemporaryDirectory() as folder, _quiet(), tools_importable():
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

        methods = {
            "minmax": (CalibrationMethod.MinMax, {}),
            "percentile": (CalibrationMethod.Percentile, {"num_bins": 2048, "percentile": _PERCENTILE}),
            "entropy": (CalibrationMethod.Entropy, {"num_bins": 512}),
        }
        kind, extra = methods[method]
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        calibrator = create_calibrator(
            path, list(_OPERATORS), augmented_model_path=str(Path(folder, "augmented.onnx")), calibrate_method=kind,
            extra_options=extra,
        )  # fmt: skip
        for batch in batches:
            calibrator.collect_data(_OneBatch(batch))
        return calibrator.compute_data()


def quantise(
    model: onnx.ModelProto, ranges: Ranges, *, bits: WeightBits = 8, in_float: Sequence[str] = ()
) -> onnx.ModelProto:
    """The prepared model in int8, with the same metadata. in_float: names of nodes that stay in float32."""
    with _quiet(), tools_importable():
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        quantiser = QDQQuantizer(
            copy.deepcopy(model),
            per_channel=True,
            reduce_range=bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[*in_float, *_before_layers(model)],
            op_types_to_quantize=list(_OPERATORS),
            extra_options={},
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
    quantised: onnx.ModelProto = quantiser.model.model
    _keep_used_opsets(quantised)
    return quantised


def _before_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute the input of the first layers: normalisation."""
    behind: set[str] = set()
    before = []
    for node in model.graph.node:
        if node.op_type in LAYERS or behind.intersection(node.input):
            behind.update(node.output)
        else:
            before.append(node.name)
    return before


class _OneBatch:
    """onnxruntime's CalibrationDataReader of one batch."""

    def __init__(self, batch: Pixels) -> None:
        self._left = [batch]

    def get_next(self) -> dict[str, Any] | None:
        return {INPUT_NAME: self._left.pop()} if self._left else None


def _keep_used_opsets(model: onnx.ModelProto) -> None:
    """Each domain that a node uses once: onnxruntime adds all that it knows."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept.items())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which logs to the root logger, prints, warns, and appends to sys.path."""
    root, before = logging.getLogger(), list(sys.path)
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        sys.path[:] = before

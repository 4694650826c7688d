"""Create onnxruntime sessions that really compute on a GPU."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from batchland.errors import ModelError
from batchland.models.devices import GpuKind, library_problem
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.tuning import Settings
from batchland.models.ort import CPU, CUDA, TENSORRT, Placement, Provider, create_session, placement
from batchland.system.text import first_line

_log = logging.getLogger("batchland")

SessionFactory = Callable[[Device, Settings], Any]
"""Creates an onnxruntime session on a device, with settings of its execution provider."""

THREADS: Final = 1
"""For the few nodes on the CPU; its cores are for decoding."""
_HEAVY_OPERATORS: Final = ("Conv", "Gemm", "MatMul", "Attention")
"""Parts of the names of operators that must run on the GPU."""


def create_on_gpu(
    path: Path, content: bytes, kind: GpuKind, engines: Path, device: Device, settings: Settings, *, half: bool
) -> Any:
    """A session that uses the GPU for all heavy operators.

    engines: folder for TensorRT's. half: whether TensorRT may compute in half floats. Raises Unusable, or ModelError if
    not even the CPU can load the model.
    """
    providers = _providers(kind, engines, device, settings, half=half)
    try:
        session = create_session(content, providers, THREADS, record_placement=True)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        try:
            create_session(content, [(CPU, {})])
        except Exception as broken:
            raise ModelError(f"{path}: onnxruntime cannot load it: {first_line(broken)}") from broken
        raise Unusable(explain(str(error))) from error
    if providers[0][0] not in session.get_providers():
        raise Unusable(library_problem(kind) or f"onnxruntime could not start GPU {device.number}; check nvidia-smi")
    require_gpu_nodes(placement(session))
    return session


def require_gpu_nodes(placed: Placement) -> None:
    """Raise Unusable if a heavy operator would run on the CPU."""
    heavy = [node for node in placed.on_cpu if any(part in node.partition(" ")[0] for part in _HEAVY_OPERATORS)]
    if heavy:
        raise Unusable(
            f"onnxruntime would run {len(heavy)} heavy nodes of the model on the CPU ({', '.join(heavy[:3])}); export "
            f"it in fp32 or fp16"
        )


def warn_of_int8(path: Path, placed: Placement) -> None:
    """Log that a quantised model gains nothing on a GPU, if it is one: its dequantising nodes run on the CPU."""
    count = sum(node.startswith("DequantizeLinear") for node in placed.on_cpu)
    if count:
        _log.warning(
            "%s: an int8 model is slow on a GPU: %d DequantizeLinear nodes run on the CPU; export it in fp16",
            path,
            count,
        )


def _providers(kind: GpuKind, engines: Path, device: Device, settings: Settings, *, half: bool) -> Sequence[Provider]:
    """Execution providers in order of preference: each takes the nodes that those before it do not support."""
    providers: list[Provider] = [(CUDA, {"device_id": str(device.number), **settings}), (CPU, {})]
    if kind == "tensorrt":
        providers.insert(0, (TENSORRT, _tensorrt_options(engines, device, half=half)))
    return providers


def _tensorrt_options(engines: Path, device: Device, *, half: bool) -> dict[str, str]:
    """Engines take minutes to build and are kept; TensorRT names their files by version and GPU."""
    engines.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": str(device.number),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_fp16_enable": "1" if half else "0",
    }

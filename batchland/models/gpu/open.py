"""Open a model on one or several GPUs: choose settings, create sessions, and share them as runners."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from batchland.errors import DeviceError, ModelError
from batchland.models.card import ModelCard
from batchland.models.contract import checked_card
from batchland.models.devices import GpuKind, count_gpus, driver_version, gpu_model, library_problem
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.device import Device
from batchland.models.gpu.pool import RunnerPool
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.settings import FP16, GpuSettings, settings_for
from batchland.models.gpu.tuning import Settings, Trial, cached, run_repeatedly, tune
from batchland.models.ort import (
    CPU,
    CUDA,
    TENSORRT,
    Placement,
    Provider,
    Threads,
    create_session,
    first_line,
    ort,
    placement,
)
from batchland.system.cores import usable_cores
from batchland.system.folders import cache_folder

if TYPE_CHECKING:
    from batchland.models.gpu.decode_jpegs import RowDecoder, RowDecoders

SessionFactory = Callable[[Device, Settings], Any]
"""Creates an onnxruntime session on a device, with settings of its execution provider."""

RUNNERS_PER_GPU: Final = 2
"""One copies while the other computes."""
THREADS: Final = Threads(intra_op=1)
"""For the few nodes on the CPU; its cores are for decoding."""
_HEAVY_OPERATORS: Final = ("Conv", "Gemm", "MatMul", "Attention")
"""Parts of the names of operators that must run on the GPU."""


class GpuModel(NamedTuple):
    """A model that is open on GPUs."""

    card: ModelCard
    gpus: tuple[int, ...]
    placement: Placement
    settings: Settings
    """Options of the CUDA provider."""
    session: Any
    """On the first GPU, for batches of any size; None with a pool."""
    pool: RunnerPool | None
    """For batches of the given size."""
    decoders: "RowDecoders | None" = None
    """One for each runner of the pool, if the GPUs decode JPEGs."""


def open_on_gpus(
    path: Path,
    content: bytes,
    sha256: str,
    kind: GpuKind,
    gpus: tuple[int, ...] | None,
    batch_size: int | None,
    settings: Settings,
    decode: Literal["cpu", "cuda"] = "cpu",
) -> GpuModel:
    """Open a model on GPUs, all of them if `gpus` is None; given a batch size, tune it for that size.

    settings: override the defaults for the model's precision. decode: what decodes JPEGs; `cuda` needs a batch size.
    Call only where `gpu_problem` returns None. Raises Unusable if the GPUs are at fault, ModelError if the model is.
    """
    numbers = _gpu_numbers(gpus)
    defaults = settings_for(content)
    engines = cache_folder() / "tensorrt" / sha256
    create = partial(_create_on_gpu, path, content, kind, engines, half=defaults is FP16)
    defaults = defaults._replace(base={**defaults.base, **settings})
    first = Device("cuda", numbers[0])
    session = create(first, defaults.base)
    card, placed = checked_card(path, session), placement(session)
    _require_gpu_nodes(placed)
    if batch_size is None:
        return GpuModel(card, numbers, placed, defaults.base, session, None)
    del session  # frees its memory
    chosen = _tuned(create, first, card, sha256, batch_size, placed, defaults) if kind == "cuda" else defaults.base
    devices = [Device("cuda", number) for number in numbers]
    pool, decoders = open_runners(create, devices, card, batch_size, chosen, decode)
    return GpuModel(card, numbers, placed, chosen, None, pool, decoders)


def open_runners(
    create: SessionFactory,
    devices: Sequence[Device],
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decode: Literal["cpu", "cuda"],
) -> "tuple[RunnerPool, RowDecoders | None]":
    """A pool with RUNNERS_PER_GPU on each device, or with one each if memory does not suffice.

    Raises Unusable, or DeviceError if JPEGs cannot be decoded there.
    """
    runners = RUNNERS_PER_GPU
    while True:
        all_devices = [*devices] * runners
        try:
            decoders = _decoders(all_devices, card, batch_size) if decode == "cuda" else None
            return open_pool(create, all_devices, card, batch_size, settings, decoders), decoders
        except (Unusable, DeviceError):
            if runners == 1:
                raise
        runners = 1


def _decoders(devices: Sequence[Device], card: ModelCard, batch_size: int) -> "RowDecoders":
    from batchland.models.gpu.decode_jpegs import open_decoders

    try:
        return open_decoders(devices, card.preprocess, max(1, usable_cores() // len(devices)), batch_size)
    except Unusable as reason:
        raise DeviceError(f"the GPU cannot decode JPEGs here: {reason}", advice="decode_on_cpu") from reason


def open_pool(
    create: SessionFactory,
    devices: Sequence[Device],
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decoders: "RowDecoders | None" = None,
) -> RunnerPool:
    """One runner per device, each with its own session and decoder, warmed up. Raises Unusable."""
    each = decoders.each if decoders else (None,) * len(devices)
    pool = RunnerPool(
        [
            _runner(create, device, card, batch_size, settings, decoder)
            for device, decoder in zip(devices, each, strict=True)
        ]
    )
    try:  # one after the other: while a CUDA graph is captured, no other thread may use the GPU
        pool.warm_up(np.zeros((batch_size, *card.preprocess.shape), np.uint8))
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        pool.close()
        raise _as_unusable(error) from error
    return pool


def measure_settings(
    create: SessionFactory, device: Device, card: ModelCard, batch_size: int, settings: Settings
) -> Trial:
    """The speed of a session with these settings, on noise, and its answers."""
    runner = _runner(create, device, card, batch_size, settings)
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *card.preprocess.shape), np.uint8)
    return run_repeatedly(lambda: runner.predict(pixels), batch_size)


def _runner(
    create: SessionFactory,
    device: Device,
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decoder: "RowDecoder | None" = None,
) -> BatchRunner:
    graph = settings.get("enable_cuda_graph") == "1"
    session = create(device, settings)
    shape = card.preprocess.shape
    return BatchRunner(session, device, batch_size, shape, len(card.classes), graph=graph, decoder=decoder)


def _as_unusable(error: Exception) -> Exception:
    """The error itself if the model is at fault, else an Unusable with its explanation."""
    if isinstance(error, DeviceError):
        return Unusable(str(error))
    return error if isinstance(error, Unusable | ModelError) else Unusable(explain(str(error)))


def _gpu_numbers(gpus: tuple[int, ...] | None) -> tuple[int, ...]:
    """`gpus`, or all of them. Raises Unusable if one does not exist."""
    visible = count_gpus()
    for number in gpus or ():
        if number >= visible:
            raise Unusable(f"there is no GPU {number}, the driver shows {visible}; `nvidia-smi -L` lists them")
    return gpus or tuple(range(visible))


def _create_on_gpu(
    path: Path, content: bytes, kind: GpuKind, engines: Path, device: Device, settings: Settings, *, half: bool
) -> Any:
    """A session that really uses the GPU. Raises Unusable, or ModelError if not even the CPU can load the model."""
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
    return session


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


def _require_gpu_nodes(placed: Placement) -> None:
    """Raise Unusable if a heavy operator would run on the CPU."""
    heavy = [node for node in placed.on_cpu if any(part in node.partition(" ")[0] for part in _HEAVY_OPERATORS)]
    if heavy:
        raise Unusable(
            f"onnxruntime would run {len(heavy)} heavy nodes of the model on the CPU ({', '.join(heavy[:3])}); export "
            f"it in fp32 or fp16"
        )


def _tuned(
    create: SessionFactory,
    device: Device,
    card: ModelCard,
    sha256: str,
    batch_size: int,
    placed: Placement,
    defaults: GpuSettings,
) -> Settings:
    # a CUDA graph cannot hold nodes of the CPU
    changes = [change for change in defaults.changes if not (placed.on_cpu and "enable_cuda_graph" in change)]
    key = {
        "model": sha256,
        "gpu": gpu_model(device.number),
        "driver": driver_version(),
        "onnxruntime": ort.__version__,
        "batch_size": batch_size,
        "start": defaults.base,
        "changes": changes,
    }
    measure = partial(measure_settings, create, device, card, batch_size)
    try:
        return cached(cache_folder() / "tuning", key, lambda: tune(defaults.base, changes, measure, defaults.tolerance))
    except Exception as error:  # of the base settings; onnxruntime's errors share no base class but Exception
        raise _as_unusable(error) from error

"""Open a model several times, once per runner, and check that each runner computes what the CPU does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from batchland.errors import DeviceError, ModelError
from batchland.models.card import ModelCard
from batchland.models.contract import further_outputs
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.cpu_check import CpuCheck
from batchland.models.gpu.create import SessionFactory
from batchland.models.gpu.device import Device
from batchland.models.gpu.pool import RunnerPool
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.tuning import Settings, Trial, run_repeatedly
from batchland.models.ort import Placement, placement
from batchland.system.cores import usable_cores

if TYPE_CHECKING:
    from batchland.models.gpu.decode_jpegs import RowDecoder, RowDecoders

RUNNERS_PER_GPU: Final = 2
"""One copies while the other computes."""


class BatchModel(NamedTuple):
    """A model for batches of one size, and the functions that open and check it."""

    create: SessionFactory
    card: ModelCard
    batch_size: int
    check: CpuCheck
    features: bool = False
    """Whether to compute features, too."""


class Runners(NamedTuple):
    """A pool that is ready, and facts about it."""

    pool: RunnerPool
    placement: Placement
    """Placement of nodes in the first runner's session."""
    decoders: "RowDecoders | None"
    """One for each runner, if the GPUs decode JPEGs."""


def open_runners(
    model: BatchModel, devices: Sequence[Device], settings: Settings, decode: Literal["cpu", "cuda"]
) -> Runners:
    """RUNNERS_PER_GPU runners on each device, or one each if memory does not suffice.

    Raises Unusable, or DeviceError if JPEGs cannot be decoded there.
    """
    runners = RUNNERS_PER_GPU
    while True:
        all_devices = [*devices] * runners
        try:
            decoders = _decoders(all_devices, model) if decode == "cuda" else None
            return open_pool(model, all_devices, settings, decoders)
        except (Unusable, DeviceError):
            if runners == 1:
                raise
        runners = 1


def _decoders(devices: Sequence[Device], model: BatchModel) -> "RowDecoders":
    from batchland.models.gpu.decode_jpegs import open_decoders

    threads = max(1, usable_cores() // len(devices))
    try:
        return open_decoders(devices, model.card.preprocess, threads, model.batch_size)
    except Unusable as reason:
        raise DeviceError(f"the GPU cannot decode JPEGs here: {reason}", advice="decode_on_cpu") from reason


def open_pool(
    model: BatchModel, devices: Sequence[Device], settings: Settings, decoders: "RowDecoders | None" = None
) -> Runners:
    """One runner per device, each with its own session and decoder, warmed up and checked. Raises Unusable."""
    each = decoders.each if decoders else (None,) * len(devices)
    sessions = [model.create(device, settings) for device in devices]
    pool = RunnerPool(
        [
            _runner(model, session, device, settings, decoder)
            for session, device, decoder in zip(sessions, devices, each, strict=True)
        ]
    )
    try:  # one after the other: while a CUDA graph is captured, no other thread may use the GPU
        for device, answers in zip(devices, pool.warm_up(model.check.batch(model.batch_size)), strict=True):
            model.check.require(device, answers)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        pool.close()
        raise as_unusable(error) from error
    return Runners(pool, placement(sessions[0]), decoders)


def measure_settings(model: BatchModel, device: Device, settings: Settings) -> Trial:
    """The speed of a session with these settings, and its answers. Raises Unusable if they are not the CPU's."""
    runner = _runner(model, model.create(device, settings), device, settings)
    pixels = model.check.batch(model.batch_size)
    model.check.require(device, runner.predict(pixels))
    return run_repeatedly(lambda: runner.predict(pixels), model.batch_size)


def _runner(
    model: BatchModel, session: Any, device: Device, settings: Settings, decoder: "RowDecoder | None" = None
) -> BatchRunner:
    graph = settings.get("enable_cuda_graph") == "1"
    shape, classes = model.card.preprocess.shape, len(model.card.classes)
    further = further_outputs(model.card, features=model.features)
    return BatchRunner(session, device, model.batch_size, shape, classes, further, graph=graph, decoder=decoder)


def as_unusable(error: Exception) -> Exception:
    """The error itself if the model is at fault, else an Unusable with its explanation."""
    if isinstance(error, DeviceError):
        return Unusable(str(error))
    return error if isinstance(error, Unusable | ModelError) else Unusable(explain(str(error)))

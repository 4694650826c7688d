"""Open a model on one or several GPUs: settings, sessions that really have their GPU, and runners that keep it busy."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from batchland.errors import DeviceError, ModelError
from batchland.models.card import ModelCard
from batchland.models.contract import checked_card
from batchland.models.devices import GpuKind, count_gpus, driver_version, gpu_model, library_problem
from batchland.models.gpu.bound import BoundRunner, Place
from batchland.models.gpu.pool import RunnerPool
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.settings import HALF, Recipe, recipe_for
from batchland.models.gpu.tuning import Settings, Trial, choose, remembered, try_out
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

Create = Callable[[Place, Settings], Any]
"""Makes an onnxruntime session at a place, with settings of its execution provider."""

RUNNERS_PER_GPU: Final = 2
"""One copies while the other computes."""
THREADS: Final = Threads(intra_op=1)
"""For the few nodes that stay on the CPU; its cores are for decoding."""
_WORK: Final = ("Conv", "Gemm", "MatMul", "Attention")
"""Parts of the names of operators that a GPU is there for."""


class Opened(NamedTuple):
    """A model on GPUs."""

    card: ModelCard
    gpus: tuple[int, ...]
    placement: Placement
    settings: Settings
    """Of the CUDA provider."""
    session: Any
    """For any number of images at once, on the first GPU; None with a pool."""
    pool: RunnerPool | None
    """For batches of a size that was given."""
    decoders: "RowDecoders | None" = None
    """The pool's, one for each runner, where GPUs decode JPEGs."""


def open_on_gpus(
    path: Path,
    content: bytes,
    sha256: str,
    kind: GpuKind,
    gpus: tuple[int, ...] | None,
    batch_size: int | None,
    settings: Settings,
    decode: Literal["cpu", "cuda"] = "cpu",
) -> Opened:
    """A model on GPUs, all of them if `gpus` is None; with a batch size tuned for it.

    settings: in place of the recipe's. decode: who decodes JPEGs, with a batch size. Only where `gpu_problem` finds
    none. Raises Unusable of the GPUs, ModelError of the model.
    """
    numbers = _numbers(gpus)
    recipe = recipe_for(content)
    create = partial(_create_on_gpu, path, content, kind, cache_folder() / "tensorrt" / sha256, half=recipe is HALF)
    recipe = recipe._replace(base={**recipe.base, **settings})
    first = Place("cuda", numbers[0])
    session = create(first, recipe.base)
    card, placed = checked_card(path, session), placement(session)
    _require_work(placed)
    if batch_size is None:
        return Opened(card, numbers, placed, recipe.base, session, None)
    del session  # its memory is needed
    chosen = _tuned(create, first, card, sha256, batch_size, placed, recipe) if kind == "cuda" else recipe.base
    places = [Place("cuda", number) for number in numbers]
    pool, decoders = fill(create, places, card, batch_size, chosen, decode)
    return Opened(card, numbers, placed, chosen, None, pool, decoders)


def fill(
    create: Create,
    places: Sequence[Place],
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decode: Literal["cpu", "cuda"],
) -> "tuple[RunnerPool, RowDecoders | None]":
    """RUNNERS_PER_GPU at each place, or one where no more find room.

    Raises Unusable, or DeviceError if JPEGs cannot be decoded there.
    """
    runners = RUNNERS_PER_GPU
    while True:
        all_places = [*places] * runners
        try:
            decoders = _decoders(all_places, card, batch_size) if decode == "cuda" else None
            return open_pool(create, all_places, card, batch_size, settings, decoders), decoders
        except (Unusable, DeviceError):
            if runners == 1:
                raise
        runners = 1


def _decoders(places: Sequence[Place], card: ModelCard, batch_size: int) -> "RowDecoders":
    from batchland.models.gpu.decode_jpegs import open_decoders

    try:
        return open_decoders(places, card.preprocess, max(1, usable_cores() // len(places)), batch_size)
    except Unusable as reason:
        raise DeviceError(f"--decode cuda cannot be used here: {reason}; or use --decode cpu") from reason


def open_pool(
    create: Create,
    places: Sequence[Place],
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decoders: "RowDecoders | None" = None,
) -> RunnerPool:
    """A runner for each place, with a session and a decoder of its own, warmed up. Raises Unusable."""
    each = decoders.each if decoders else (None,) * len(places)
    pool = RunnerPool(
        [
            _runner(create, place, card, batch_size, settings, decoder)
            for place, decoder in zip(places, each, strict=True)
        ]
    )
    try:  # one after the other: while a CUDA graph is captured, no other thread may use the GPU
        pool.warm_up(np.zeros((batch_size, *card.preprocess.shape), np.uint8))
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        pool.close()
        raise _unusable(error) from error
    return pool


def attempt(create: Create, place: Place, card: ModelCard, batch_size: int, settings: Settings) -> Trial:
    """How fast a session with these settings is, on noise."""
    runner = _runner(create, place, card, batch_size, settings)
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *card.preprocess.shape), np.uint8)
    return try_out(lambda: runner.predict(pixels), batch_size)


def _runner(
    create: Create,
    place: Place,
    card: ModelCard,
    batch_size: int,
    settings: Settings,
    decoder: "RowDecoder | None" = None,
) -> BoundRunner:
    graph = settings.get("enable_cuda_graph") == "1"
    session = create(place, settings)
    shape = card.preprocess.shape
    return BoundRunner(session, place, batch_size, shape, len(card.classes), graph=graph, decoder=decoder)


def _unusable(error: Exception) -> Exception:
    """What to raise of an error while a GPU is tried: the model's own stay, the others become reasons."""
    if isinstance(error, DeviceError):
        return Unusable(str(error))
    return error if isinstance(error, Unusable | ModelError) else Unusable(explain(str(error)))


def _numbers(gpus: tuple[int, ...] | None) -> tuple[int, ...]:
    there = count_gpus()
    for number in gpus or ():
        if number >= there:
            raise Unusable(f"there is no GPU {number}, the driver shows {there}; `nvidia-smi -L` lists them")
    return gpus or tuple(range(there))


def _create_on_gpu(
    path: Path, content: bytes, kind: GpuKind, engines: Path, place: Place, settings: Settings, *, half: bool
) -> Any:
    """A session that really has the GPU. Raises Unusable, or ModelError if the CPU cannot take the model, either."""
    providers = _providers(kind, engines, place, settings, half=half)
    try:
        session = create_session(content, providers, THREADS, record_placement=True)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        try:
            create_session(content, [(CPU, {})])
        except Exception as broken:
            raise ModelError(f"{path}: onnxruntime cannot load it: {first_line(broken)}") from broken
        raise Unusable(explain(str(error))) from error
    if providers[0][0] not in session.get_providers():
        raise Unusable(library_problem(kind) or f"onnxruntime could not start GPU {place.number}; see nvidia-smi")
    return session


def _providers(kind: GpuKind, engines: Path, place: Place, settings: Settings, *, half: bool) -> Sequence[Provider]:
    """With TensorRT, CUDA takes what TensorRT leaves; the CPU what CUDA leaves."""
    providers: list[Provider] = [(CUDA, {"device_id": str(place.number), **settings}), (CPU, {})]
    if kind == "tensorrt":
        providers.insert(0, (TENSORRT, _tensorrt_options(engines, place, half=half)))
    return providers


def _tensorrt_options(engines: Path, place: Place, *, half: bool) -> dict[str, str]:
    """An engine takes minutes to build, so it is kept; one for other versions or GPUs goes by another name."""
    engines.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": str(place.number),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_fp16_enable": "1" if half else "0",
    }


def _require_work(placed: Placement) -> None:
    """Raise Unusable if the CPU would do what the GPU is there for."""
    idle = [node for node in placed.on_cpu if any(part in node.partition(" ")[0] for part in _WORK)]
    if idle:
        raise Unusable(
            f"onnxruntime would leave {len(idle)} nodes of the model's work to the CPU ({', '.join(idle[:3])}); export "
            f"it in fp32 or fp16"
        )


def _tuned(
    create: Create, place: Place, card: ModelCard, sha256: str, batch_size: int, placed: Placement, recipe: Recipe
) -> Settings:
    # a CUDA graph holds nothing of the CPU
    changes = [change for change in recipe.changes if not (placed.on_cpu and "enable_cuda_graph" in change)]
    key = {
        "model": sha256,
        "gpu": gpu_model(place.number),
        "driver": driver_version(),
        "onnxruntime": ort.__version__,
        "batch_size": batch_size,
        "start": recipe.base,
        "changes": changes,
    }
    trial = partial(attempt, create, place, card, batch_size)
    try:
        return remembered(cache_folder() / "tuning", key, lambda: choose(recipe.base, changes, trial, recipe.tolerance))
    except Exception as error:  # of the base itself: onnxruntime's errors share no base class but Exception
        raise _unusable(error) from error

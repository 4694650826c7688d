"""Open a model on one or several GPUs: choose settings for them, check what they compute, and open runners."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from batchland.models.card import ModelCard
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, checked_card, require_features
from batchland.models.devices import GpuKind, count_gpus, driver_version, gpu_model
from batchland.models.gpu.cpu_check import CpuCheck, cpu_check
from batchland.models.gpu.create import create_on_gpu, warn_of_int8
from batchland.models.gpu.device import Device
from batchland.models.gpu.disk_cache import cached
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.runners import BatchModel, Runners, as_unusable, measure_settings, open_runners
from batchland.models.gpu.settings import FP16, TF32_TOLERANCE, GpuSettings, settings_for
from batchland.models.gpu.tuning import Settings, tune
from batchland.models.ort import Placement, ort, placement
from batchland.system.folders import cache_folder


class GpuModel(NamedTuple):
    """A model that is open on GPUs."""

    card: ModelCard
    gpus: tuple[int, ...]
    placement: Placement
    settings: Settings
    """Options of the CUDA provider."""
    session: Any
    """On the first GPU, for batches of any size; None with runners."""
    runners: Runners | None
    """For batches of the given size."""


def open_on_gpus(
    path: Path,
    content: bytes,
    sha256: str,
    kind: GpuKind,
    gpus: tuple[int, ...] | None,
    batch_size: int | None,
    settings: Settings,
    decode: Literal["cpu", "cuda"] = "cpu",
    features: bool = False,
) -> GpuModel:
    """Open a model on GPUs, all of them if `gpus` is None; given a batch size, tune it for that size.

    settings: override the defaults for the model's precision. decode: what decodes JPEGs; `cuda` needs a batch size.
    features: whether runners also give features.
    Call only where `gpu_problem` returns None. Raises Unusable if the GPUs are at fault, ModelError if the model is.
    """
    numbers = _gpu_numbers(gpus)
    defaults = settings_for(content)
    engines = cache_folder() / "tensorrt" / sha256
    create = partial(create_on_gpu, path, content, kind, engines, half=defaults is FP16)
    tolerance = TF32_TOLERANCE if settings.get("use_tf32") == "1" else defaults.cpu_tolerance
    defaults = defaults._replace(base={**defaults.base, **settings})
    first = Device("cuda", numbers[0])
    session = create(first, defaults.base)
    card, placed = checked_card(path, session), placement(session)
    if features:
        require_features(path, card)
    warn_of_int8(path, placed)
    check = cpu_check(content, sha256, card.preprocess.shape, tolerance)
    if batch_size is None:
        _check_session(session, first, check)
        return GpuModel(card, numbers, placed, defaults.base, session, None)
    del session  # frees its memory
    model = BatchModel(create, card, batch_size, check, features=features)
    chosen = _tuned(model, first, sha256, defaults) if kind == "cuda" else defaults.base
    runners = open_runners(model, [Device("cuda", number) for number in numbers], chosen, decode)
    return GpuModel(card, numbers, runners.placement, chosen, None, runners)


def _gpu_numbers(gpus: tuple[int, ...] | None) -> tuple[int, ...]:
    """`gpus`, or all of them. Raises Unusable if one does not exist."""
    visible = count_gpus()
    numbers = tuple(range(visible)) if gpus is None else gpus
    for number in numbers:
        if number >= visible:
            raise Unusable(f"there is no GPU {number}, the driver shows {visible}; `nvidia-smi -L` lists them")
    return numbers


def _check_session(session: Any, device: Device, check: CpuCheck) -> None:
    """Raise Unusable unless the session gives the CPU's answers."""
    try:
        (answers,) = session.run([OUTPUT_NAME], {INPUT_NAME: check.pixels})
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise as_unusable(error) from error
    check.require(device, answers)


def _tuned(model: BatchModel, device: Device, sha256: str, defaults: GpuSettings) -> Settings:
    key = {
        "model": sha256,
        "gpu": gpu_model(device.number),
        "driver": driver_version(),
        "onnxruntime": ort.__version__,
        "batch_size": model.batch_size,
        "start": defaults.base,
        "changes": defaults.changes,
    }
    measure = partial(measure_settings, model, device)

    def choose() -> Settings:
        return tune(defaults.base, defaults.changes, measure, defaults.tolerance)

    try:
        return cached(cache_folder() / "tuning", key, choose, _parse_settings)
    except Exception as error:  # of the base settings; onnxruntime's errors share no base class but Exception
        raise as_unusable(error) from error


def _parse_settings(value: Mapping[Any, Any]) -> Settings:
    return {str(name): str(setting) for name, setting in value.items()}

"""Which devices `--device` means, and whether the GPUs among them can be used: the driver is asked, by ctypes.

Knows nothing of models. Nothing here creates a session; what a session says, problems.py turns into sentences.
"""

import contextlib
import ctypes
import importlib.util
import io
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from batchland.errors import DeviceError
from batchland.models.gpu.problems import explain, explain_missing_provider, explain_start, explain_version
from batchland.models.ort import CUDA, TENSORRT, ort

PATTERN: Final = r"auto|cpu|(?:cuda|tensorrt)(?::(?:all|\d+(?:,\d+)*))?"
"""What `--device` takes, as a regular expression."""
_WHEELS: Final = ("onnxruntime", "onnxruntime-gpu")
_PROVIDERS: Final = {"cuda": CUDA, "tensorrt": TENSORRT}
_CUDNN: Final = "libcudnn.so.9"
_NAME_BYTES: Final = 256

Kind = Literal["auto", "cpu", "cuda", "tensorrt"]
GpuKind = Literal["cuda", "tensorrt"]


class Wanted(NamedTuple):
    """What `--device` asks for."""

    kind: Kind
    gpus: tuple[int, ...] | None
    """Their numbers; None means all of them. Empty without a GPU."""


def parse_device(text: str) -> Wanted:
    """Read `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:0,1`, `cuda:all` or the same with `tensorrt`. Raises DeviceError."""
    if not re.fullmatch(PATTERN, text):
        raise DeviceError(f"unknown device {text!r}; use auto, cpu, cuda, cuda:N, cuda:0,1, cuda:all or tensorrt")
    kind, _, numbers = text.partition(":")
    if kind == "cpu":
        return Wanted("cpu", ())
    gpus = None if numbers == "all" else tuple(dict.fromkeys(int(number) for number in (numbers or "0").split(",")))
    return Wanted(cast("Kind", kind), gpus)


def device_name(kind: str, gpus: tuple[int, ...]) -> str:
    """As it is recorded: `cpu`, `cuda:0`, `cuda:0,1`."""
    return f"{kind}:{','.join(map(str, gpus))}" if gpus else kind


def gpu_problem(kind: GpuKind = "cuda") -> str | None:
    """Why a GPU cannot work here, as far as it shows without a session. None if nothing speaks against it.

    Where nothing does, the libraries in NVIDIA's wheels are loaded, for onnxruntime to find them.
    """
    if CUDA not in ort.get_available_providers():
        return explain_missing_provider(tuple(wheel for wheel in _WHEELS if _installed(wheel)))
    if _PROVIDERS[kind] not in ort.get_available_providers():
        return "the installed onnxruntime has no TensorRT provider; use --device cuda"
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        return f"onnxruntime {ort.__version__} does not tell where nodes run; pip install --upgrade onnxruntime-gpu"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return explain(str(error))
    if (status := driver.cuInit(0)) != 0:
        return explain_start(status)
    if problem := explain_version(_number(driver.cuDriverGetVersion), ort.cuda_version):
        return problem
    _load_libraries(kind)
    try:  # without it, onnxruntime leaves convolutions to the CPU and says nothing
        ctypes.CDLL(_CUDNN)
    except OSError as error:
        return explain(str(error))
    return None


def count_gpus() -> int:
    """GPUs that the driver shows this process. Only where `gpu_problem` finds none."""
    return _number(ctypes.CDLL("libcuda.so.1").cuDeviceGetCount)


def driver_version() -> int:
    """The newest CUDA that the driver knows, 12040 for 12.4. Only where `gpu_problem` finds none."""
    return _number(ctypes.CDLL("libcuda.so.1").cuDriverGetVersion)


def gpu_model(number: int) -> str:
    """What a GPU is called: `NVIDIA H200`. Only where `gpu_problem` finds none."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuDeviceGet(ctypes.byref(device), number) or driver.cuDeviceGetName(name, _NAME_BYTES, device):
        return "unknown GPU"
    return name.value.decode(errors="replace")


def _number(function: Callable[[Any], int]) -> int:
    value = ctypes.c_int(0)
    function(ctypes.byref(value))
    return value.value


def _installed(wheel: str) -> bool:
    try:
        version(wheel)
    except PackageNotFoundError:
        return False
    return True


def _load_libraries(kind: str) -> None:
    """Load CUDA, cuDNN and TensorRT from NVIDIA's wheels, as far as they are there."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, on the terminal of our answers
        ort.preload_dlls()
    wheel = importlib.util.find_spec("tensorrt_libs") if kind == "tensorrt" else None
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):  # the others need the first
            for library in Path(folder).glob(name):
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(library))


def library_problem(kind: GpuKind) -> str | None:
    """What the loader misses for onnxruntime's provider. For where a session came without it, and did not say why."""
    for name in dict.fromkeys((kind, "cuda")):
        library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            if "Provider_GetHost" not in str(error):  # that symbol is onnxruntime's own, never there on its own
                return explain(str(error))
    return None

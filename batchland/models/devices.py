"""Parse device names, and find out whether GPUs can be used by asking the driver through ctypes.

No session is created here; gpu/problems.py explains the errors of sessions.
"""

import contextlib
import ctypes
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from batchland.errors import DeviceError
from batchland.models.gpu.problems import explain, explain_missing_provider, explain_start, explain_version
from batchland.models.ort import CUDA, TENSORRT, ort
from batchland.system.packages import installed_version

PATTERN: Final = r"auto|cpu|(?:cuda|tensorrt)(?::(?:all|\d+(?:,\d+)*))?"
"""Device names, as a regular expression."""
_WHEELS: Final = ("onnxruntime", "onnxruntime-gpu")
_PROVIDERS: Final = {"cuda": CUDA, "tensorrt": TENSORRT}
_CUDNN: Final = "libcudnn.so.9"
_CUDA_LIBRARIES: Final = (
    "libcudart.so.{cuda}",
    "libnvJitLink.so.{cuda}",
    "libnvrtc.so.{cuda}",
    "libcublasLt.so.{cuda}",
    "libcublas.so.{cuda}",
    "libcufft.so.*",
    "libcurand.so.10",
    "libnvjpeg.so.{cuda}",
    _CUDNN,
)
"""Libraries in NVIDIA's wheels, in the order of their dependencies. `{cuda}` is the major version."""
_TENSORRT_LIBRARIES: Final = ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*")
_NAME_BYTES: Final = 256

Kind = Literal["auto", "cpu", "cuda", "tensorrt"]
GpuKind = Literal["cuda", "tensorrt"]


class DeviceRequest(NamedTuple):
    """A parsed device name."""

    kind: Kind
    gpus: tuple[int, ...] | None
    """CUDA numbers; None means all GPUs. Empty for the CPU."""


def parse_device(text: str) -> DeviceRequest:
    """Parse `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:0,1`, `cuda:all` or the same with `tensorrt`. Raises DeviceError."""
    if not re.fullmatch(PATTERN, text):
        raise DeviceError(f"unknown device {text!r}; use auto, cpu, cuda, cuda:N, cuda:0,1, cuda:all or tensorrt")
    kind, _, numbers = text.partition(":")
    if kind == "cpu":
        return DeviceRequest("cpu", ())
    gpus = None if numbers == "all" else tuple(dict.fromkeys(int(number) for number in (numbers or "0").split(",")))
    return DeviceRequest(cast("Kind", kind), gpus)


def device_name(kind: str, gpus: tuple[int, ...]) -> str:
    """The device as recorded in manifests: `cpu`, `cuda:0`, `cuda:0,1`."""
    return f"{kind}:{','.join(map(str, gpus))}" if gpus else kind


def gpu_problem(kind: GpuKind = "cuda") -> str | None:
    """Why no GPU can work here, in a sentence with a remedy; None if nothing is found without creating a session.

    If nothing is found, the CUDA libraries of NVIDIA's wheels have been loaded, so that onnxruntime finds them.
    """
    if CUDA not in ort.get_available_providers():
        return explain_missing_provider(tuple(filter(installed_version, _WHEELS)))
    if _PROVIDERS[kind] not in ort.get_available_providers():
        return "the installed onnxruntime has no TensorRT provider; use device cuda"
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        return f"onnxruntime {ort.__version__} cannot report where nodes run; pip install -U onnxruntime-gpu"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return explain(str(error))
    if (status := driver.cuInit(0)) != 0:
        return explain_start(status)
    if problem := explain_version(_number(driver.cuDriverGetVersion), ort.cuda_version):
        return problem
    _load_libraries(kind)
    try:  # without cuDNN, onnxruntime silently runs convolutions on the CPU
        ctypes.CDLL(_CUDNN)
    except OSError as error:
        return explain(str(error))
    return None


def count_gpus() -> int:
    """Number of GPUs visible to this process. Call only where `gpu_problem` returns None."""
    return _number(ctypes.CDLL("libcuda.so.1").cuDeviceGetCount)


def driver_version() -> int:
    """The newest CUDA version that the driver supports, 12040 for 12.4. Call only where `gpu_problem` returns None."""
    return _number(ctypes.CDLL("libcuda.so.1").cuDriverGetVersion)


def gpu_model(number: int) -> str:
    """The name of a GPU: `NVIDIA H200`. Call only where `gpu_problem` returns None."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuDeviceGet(ctypes.byref(device), number) or driver.cuDeviceGetName(name, _NAME_BYTES, device):
        return "unknown GPU"
    return name.value.decode(errors="replace")


def library_problem(kind: GpuKind) -> str | None:
    """Which library the dynamic loader lacks for onnxruntime's provider.

    For sessions that were created without the provider and without an error.
    """
    for name in dict.fromkeys((kind, "cuda")):
        try:
            ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"))
        except OSError as error:
            if "Provider_GetHost" not in str(error):  # onnxruntime itself defines that symbol
                return explain(str(error))
    return None


def _number(function: Callable[[Any], int]) -> int:
    value = ctypes.c_int(0)
    function(ctypes.byref(value))
    return value.value


def _load_libraries(kind: str) -> None:
    """Load CUDA, cuDNN and TensorRT from NVIDIA's wheels, wherever on Python's path they are installed.

    onnxruntime's own `preload_dlls` looks only beside onnxruntime, so not in a second site-packages folder.
    """
    folders = [folder for entry in sys.path for folder in sorted(Path(entry).glob("nvidia/*/lib"))]
    _load(folders, [name.format(cuda=ort.cuda_version.partition(".")[0]) for name in _CUDA_LIBRARIES])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the names of missing libraries
        ort.preload_dlls()  # also registers providers that onnxruntime ships as plugins
    if kind == "tensorrt":
        _load([Path(entry, "tensorrt_libs") for entry in sys.path], _TENSORRT_LIBRARIES)


def _load(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Load the first library of each name that can be loaded; a name may have a wildcard for the version."""
    for name in names:
        for library in (path for folder in folders for path in sorted(folder.glob(name))):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library))
                break

"""Turn error texts of onnxruntime, CUDA and the dynamic loader into one sentence with a remedy.

Pure functions of a text or a status code.
"""

import re
from typing import Final, NamedTuple

INSTALL_CUDA: Final = "pip install 'batchland[cuda]'"


class Unusable(Exception):  # noqa: N818 - becomes a DeviceError or the reason of a fallback
    """The GPUs cannot be used; the message is one sentence with a remedy."""


class _Known(NamedTuple):
    pattern: str
    """Regular expression, case-insensitive."""
    sentence: str
    """`{0}`, `{1}` are replaced by the pattern's groups."""


_SEE: Final = "nvidia-smi shows which process uses it"
_KNOWN: Final = (
    _Known(
        r"(libcudnn[\w.-]*?\.so[.\d]*): cannot open shared object",
        "cuDNN is not installed ({0} is missing); " + INSTALL_CUDA,
    ),
    _Known(
        r"cuDNN (?:library was not found|is not available|is unavailable)", "cuDNN is not installed; " + INSTALL_CUDA
    ),
    _Known(
        r"(libnv(?:infer|onnxparser)[\w-]*\.so\.(\d+)): cannot open shared object",
        "TensorRT is not installed ({0} is missing); pip install 'tensorrt-cu13=={1}.*', or use device cuda",
    ),
    _Known(r"install TensorRT libraries", "TensorRT does not start; check that it is installed, or use device cuda"),
    _Known(
        r"(libcuda\.so[.\d]*): cannot open shared object",
        "no NVIDIA driver on this machine ({0} is missing); run on a machine with a GPU",
    ),
    _Known(
        r"(lib[\w.-]+?\.so[.\d]*): cannot open shared object",
        "a CUDA library is not installed ({0} is missing); " + INSTALL_CUDA,
    ),
    _Known(
        r"(?:symbol lookup error|undefined symbol|version `?[\w.]+'? not found)",
        "the CUDA libraries do not match this onnxruntime; pip install -U 'batchland[cuda]'",
    ),
    _Known(
        r"driver version is insufficient|not supported in the installed CUDA driver|cudaErrorInsufficientDriver",
        "the NVIDIA driver is too old for the CUDA of this onnxruntime; update the driver",
    ),
    _Known(
        r"invalid device (?:ordinal|id)|cudaErrorInvalidDevice",
        "there is no GPU with that number; `nvidia-smi -L` lists them, and CUDA_VISIBLE_DEVICES may hide some",
    ),
    _Known(
        r"no CUDA-capable device|cudaErrorNoDevice",
        "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings",
    ),
    _Known(
        r"no kernel image is available|cudaErrorNoKernelImageForDevice",
        "this onnxruntime has no code for this kind of GPU; install a newer onnxruntime-gpu, or use the CPU",
    ),
    _Known(
        r"devices? (?:are|is|\(s\) is/are) busy or unavailable|\(s\) is/are busy|cudaErrorDevicesUnavailable",
        "the GPU is busy: another process has exclusive use of it; " + _SEE,
    ),
    _Known(
        r"system not yet initialized|cudaErrorSystemNotReady",
        "the GPU is not ready; start its fabric manager (systemctl start nvidia-fabricmanager)",
    ),
    _Known(
        r"system has unsupported display driver|cudaErrorSystemDriverMismatch",
        "the driver and the CUDA libraries do not match; restart the machine after a driver update",
    ),
    _Known(
        r"CUDNN_STATUS_(?:SUBLIBRARY_)?VERSION_MISMATCH",
        "cuDNN's libraries have different versions; reinstall nvidia-cudnn-cu13",
    ),
    _Known(
        r"CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN does not start: it does not match the CUDA in use, or the GPU's memory is full (nvidia-smi shows which "
        "process uses it); pip install -U 'batchland[cuda]'",
    ),
    _Known(
        r"illegal memory access|cudaErrorIllegalAddress|unspecified launch failure|cudaErrorLaunchFailure"
        r"|uncorrectable ECC|cudaErrorECCUncorrectable|CUBLAS failure 13\b|CUBLAS_STATUS_EXECUTION_FAILED",
        "the GPU failed while computing; run the same command again, it resumes where it stopped",
    ),
    _Known(r"((?:CUDA|CUDNN(?:_FE)?|CUBLAS) failure -?\d+: [^;]+?) *;", "{0}; see nvidia-smi for the GPU's state"),
)

_OUT_OF_MEMORY: Final = re.compile(
    r"Failed to allocate memory for requested buffer"
    r"|Available memory of \d+ is smaller than requested"
    r"|CUDA(?:_| )(?:failure|error)[^;]*out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|OutOfMemory",
    re.IGNORECASE,
)

_CU_INIT: Final = {
    2: "the GPU's memory is full; " + _SEE,
    34: "CUDA's stub library is loaded instead of the driver; remove CUDA's folder `stubs` from LD_LIBRARY_PATH",
    46: "the GPU is busy: another process has exclusive use of it; " + _SEE,
    100: "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings",
    101: "CUDA_VISIBLE_DEVICES names a GPU that does not exist; `nvidia-smi -L` lists them",
    802: "the GPU is not ready; start its fabric manager (systemctl start nvidia-fabricmanager)",
    803: "the kernel's driver and the driver library differ; restart the machine after a driver update",
    804: "this GPU does not support CUDA's forward compatibility; update the driver",
}


def explain(text: str) -> str:
    """Why a GPU cannot be used and what to do, from an error's text; for an unknown error, its first line."""
    return explain_known(text) or f"{text.strip().partition(chr(10))[0]}; see nvidia-smi for the GPU's state"


def explain_known(text: str) -> str | None:
    """Like `explain`, but None for an unknown error."""
    if is_out_of_memory(text):
        return "the GPU's memory is full; " + _SEE
    for known in _KNOWN:
        if match := re.search(known.pattern, text, re.IGNORECASE):
            return known.sentence.format(*match.groups())
    return None


def is_out_of_memory(text: str) -> bool:
    """Whether the text of an onnxruntime error means that the device is out of memory."""
    return _OUT_OF_MEMORY.search(text) is not None


def explain_start(status: int) -> str:
    """Why the driver does not start, from the status of `cuInit`."""
    known = _CU_INIT.get(status)
    return known or f"the NVIDIA driver does not start (cuInit returns {status}); see nvidia-smi"


def explain_version(driver: int, needed: str) -> str | None:
    """What to do about a driver that is older than CUDA `needed` ("13.0"); None if it is new enough.

    driver: as `cuDriverGetVersion` returns it, 12040 for 12.4. Any driver of the same major version suffices.
    """
    major, minor = driver // 1000, driver % 1000 // 10
    wanted = needed.partition(".")[0]
    if not wanted.isdigit() or major >= int(wanted):  # empty in custom builds
        return None
    return (
        f"the NVIDIA driver supports CUDA up to {major}.{minor}, this onnxruntime needs {needed}; update the driver, "
        f"or install an onnxruntime-gpu for CUDA {major}"
    )


def explain_missing_provider(wheels: tuple[str, ...]) -> str:
    """Why this onnxruntime has no CUDA provider, from the names of the installed onnxruntime wheels."""
    if len(wheels) > 1:
        names = " ".join(wheels)
        return (
            f"{' and '.join(wheels)} are installed side by side and break each other; pip uninstall -y {names}; then "
            f"pip install onnxruntime-gpu"
        )
    return "the installed onnxruntime has no CUDA provider; install onnxruntime-gpu instead"

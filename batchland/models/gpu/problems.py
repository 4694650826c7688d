"""What onnxruntime, CUDA and the loader say when a GPU cannot be used, as a sentence that ends in a remedy.

Pure functions of a text or a status; nothing here touches a device.
"""

import re
from typing import Final, NamedTuple

INSTALL_CUDA: Final = "pip install 'batchland[cuda]'"


class Unusable(Exception):  # noqa: N818 - a finding, told as a DeviceError or as the reason of a fallback
    """Why the GPUs cannot be used, as a sentence with a remedy."""


class _Known(NamedTuple):
    pattern: str
    """Searched for in the text, whatever the case."""
    sentence: str
    """With what the pattern's groups have caught."""


_SEE: Final = "see nvidia-smi for who uses it"
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
        "TensorRT is not installed ({0} is missing); pip install 'tensorrt-cu13=={1}.*', or use --device cuda",
    ),
    _Known(r"install TensorRT libraries", "TensorRT does not start; see whether it is installed, or use --device cuda"),
    _Known(
        r"(libcuda\.so[.\d]*): cannot open shared object",
        "no NVIDIA driver on this machine ({0} is missing); run it where there is a GPU",
    ),
    _Known(
        r"(lib[\w.-]+?\.so[.\d]*): cannot open shared object",
        "a library of CUDA is not installed ({0} is missing); " + INSTALL_CUDA,
    ),
    _Known(
        r"(?:symbol lookup error|undefined symbol|version `?[\w.]+'? not found)",
        "the libraries of CUDA do not fit this onnxruntime; pip install --upgrade 'batchland[cuda]'",
    ),
    _Known(
        r"driver version is insufficient|not supported in the installed CUDA driver|cudaErrorInsufficientDriver",
        "the NVIDIA driver is too old for the CUDA of this onnxruntime; update the driver",
    ),
    _Known(
        r"invalid device (?:ordinal|id)|cudaErrorInvalidDevice",
        "there is no GPU of that number; `nvidia-smi -L` lists them, and CUDA_VISIBLE_DEVICES may hide some",
    ),
    _Known(
        r"no CUDA-capable device|cudaErrorNoDevice",
        "the driver shows no GPU; see nvidia-smi, and whether CUDA_VISIBLE_DEVICES or the container hides it",
    ),
    _Known(
        r"no kernel image is available|cudaErrorNoKernelImageForDevice",
        "this onnxruntime has no code for a GPU of this kind; install a newer onnxruntime-gpu, or use --device cpu",
    ),
    _Known(
        r"devices? (?:are|is|\(s\) is/are) busy or unavailable|\(s\) is/are busy|cudaErrorDevicesUnavailable",
        "the GPU is busy: another process holds it for itself; " + _SEE,
    ),
    _Known(
        r"system not yet initialized|cudaErrorSystemNotReady",
        "the GPU is not ready; start its fabric manager (systemctl start nvidia-fabricmanager)",
    ),
    _Known(
        r"system has unsupported display driver|cudaErrorSystemDriverMismatch",
        "driver and CUDA libraries do not match; restart the machine after the driver's update",
    ),
    _Known(
        r"CUDNN_STATUS_(?:SUBLIBRARY_)?VERSION_MISMATCH",
        "cuDNN's libraries are of different versions; pip install --force-reinstall nvidia-cudnn-cu13",
    ),
    _Known(
        r"CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN does not start: it does not fit the CUDA in use, or the GPU's memory is full; pip install --upgrade "
        "'batchland[cuda]', and " + _SEE,
    ),
    _Known(
        r"illegal memory access|cudaErrorIllegalAddress|unspecified launch failure|cudaErrorLaunchFailure"
        r"|uncorrectable ECC|cudaErrorECCUncorrectable",
        "the GPU has failed while it computed; run the same command again, it goes on where it stopped",
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
    34: "the driver's stub library is loaded instead of the driver; take CUDA's folder `stubs` out of LD_LIBRARY_PATH",
    46: "the GPU is busy: another process holds it for itself; " + _SEE,
    100: "the driver shows no GPU; see nvidia-smi, and whether CUDA_VISIBLE_DEVICES or the container hides it",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there; `nvidia-smi -L` lists them",
    802: "the GPU is not ready; start its fabric manager (systemctl start nvidia-fabricmanager)",
    803: "the driver in the kernel and its library differ; restart the machine after the driver's update",
    804: "this GPU does not take CUDA's forward compatibility; update the driver",
}


def explain(text: str) -> str:
    """Why a GPU cannot be used and what to do, from an error's text; its own first line where it is not known."""
    return explain_known(text) or f"{text.strip().partition(chr(10))[0]}; see nvidia-smi for the GPU's state"


def explain_known(text: str) -> str | None:
    """As `explain`; None where the text is not known."""
    if is_out_of_memory(text):
        return "the GPU's memory is full; " + _SEE
    for known in _KNOWN:
        if match := re.search(known.pattern, text, re.IGNORECASE):
            return known.sentence.format(*match.groups())
    return None


def is_out_of_memory(text: str) -> bool:
    """Whether an error of onnxruntime's says that the device has no memory left: fewer images at once may go."""
    return _OUT_OF_MEMORY.search(text) is not None


def explain_start(status: int) -> str:
    """Why the driver does not start, from what `cuInit` gives."""
    known = _CU_INIT.get(status)
    return known or f"the NVIDIA driver does not start (cuInit gives {status}); see nvidia-smi"


def explain_version(driver: int, needed: str) -> str | None:
    """What to do about a driver that is older than CUDA `needed` ("13.0"); None if it is new enough.

    driver: as `cuDriverGetVersion` gives it, 12040 for 12.4. Any driver of the same major version will do.
    """
    major, minor = driver // 1000, driver % 1000 // 10
    wanted = needed.partition(".")[0]
    if not wanted.isdigit() or major >= int(wanted):  # a build of one's own may not say
        return None
    return (
        f"the NVIDIA driver knows CUDA up to {major}.{minor}, and this onnxruntime needs {needed}; update the driver, "
        f"or install an onnxruntime-gpu for CUDA {major}"
    )


def explain_missing_provider(wheels: tuple[str, ...]) -> str:
    """Why this onnxruntime has no CUDA, from the names of the wheels that brought it."""
    if len(wheels) > 1:
        names = " ".join(wheels)
        return (
            f"{' and '.join(wheels)} are installed side by side and break each other; pip uninstall -y {names}; then "
            f"pip install onnxruntime-gpu"
        )
    return "the installed onnxruntime has no CUDA provider; install onnxruntime-gpu in its place"

"""Calls of the CUDA runtime that onnxruntime's Python API lacks: current GPU, pinned memory, streams."""

import ctypes
import weakref
from typing import Any, Final

import numpy as np

from batchland.images.preprocess import Pixels
from batchland.models.gpu.problems import INSTALL_CUDA, Unusable
from batchland.models.ort import ort

_RELEASE_THRESHOLD: Final = 4
"""cudaMemPoolAttrReleaseThreshold: bytes that a pool keeps."""
_NON_BLOCKING: Final = 1
"""cudaStreamNonBlocking: the stream does not wait for the default stream."""


def use_gpu(number: int) -> None:
    """Make the GPU current in the calling thread, so that its copies take no memory on another one.

    This function and the next two are optimisations: without a CUDA runtime they do nothing.
    """
    runtime = _runtime()
    if runtime is not None and runtime.cudaSetDevice(ctypes.c_int(number)) != 0:
        runtime.cudaGetLastError()  # clears it; onnxruntime would report it as its own


def keep_freed_memory(number: int) -> None:
    """Keep memory that is freed on this GPU in the process, ready for its next use."""
    runtime = _runtime()
    pool, all_of_it = ctypes.c_void_p(), ctypes.c_uint64(2**64 - 1)
    if runtime is None:
        return
    if (
        runtime.cudaDeviceGetDefaultMemPool(ctypes.byref(pool), ctypes.c_int(number)) != 0
        or runtime.cudaMemPoolSetAttribute(pool, ctypes.c_int(_RELEASE_THRESHOLD), ctypes.byref(all_of_it)) != 0
    ):
        runtime.cudaGetLastError()  # as above


def pinned_zeros(shape: tuple[int, ...]) -> Pixels:
    """A uint8 array of zeros in pinned memory, which a GPU copies at full speed."""
    array = np.zeros(shape, np.uint8)
    runtime = _runtime()
    if runtime is not None:
        address = ctypes.c_void_p(array.ctypes.data)
        if runtime.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(0)) == 0:
            # before the memory is freed; at the end of the process the driver does it
            weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
        else:
            runtime.cudaGetLastError()  # as above
    return array


class Stream:
    """A CUDA stream on the calling thread's current GPU. Raises Unusable without a CUDA runtime."""

    def __init__(self) -> None:
        runtime = _runtime()
        if runtime is None:
            raise Unusable(f"the CUDA runtime is not installed; {INSTALL_CUDA}")
        self._runtime = runtime
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p()
        self._check(runtime.cudaStreamCreateWithFlags(ctypes.byref(self._handle), ctypes.c_uint(_NON_BLOCKING)))

    @property
    def handle(self) -> int:
        """The stream's address, as other libraries take it."""
        return self._handle.value or 0

    def wait(self) -> None:
        """Block until the stream's work is done. Raises RuntimeError if the GPU has failed."""
        self._check(self._runtime.cudaStreamSynchronize(self._handle))

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"CUDA failure {status}: {self._runtime.cudaGetErrorString(status).decode()} ;")


def _runtime() -> Any:
    major = (getattr(ort, "cuda_version", None) or "").partition(".")[0]
    try:
        return ctypes.CDLL(f"libcudart.so.{major}") if major else None
    except OSError:
        return None

"""What CUDA's runtime is asked for past onnxruntime: a thread's GPU, memory that stays in place, a queue of work."""

import ctypes
import weakref
from typing import Any, Final

import numpy as np

from batchland.images.preprocess import Pixels
from batchland.models.gpu.problems import INSTALL_CUDA, Unusable
from batchland.models.ort import ort

_RELEASE_THRESHOLD: Final = 4
"""cudaMemPoolAttrReleaseThreshold, bytes that a pool keeps."""
_NON_BLOCKING: Final = 1
"""A stream that does not wait for those of others."""


def use_gpu(number: int) -> None:
    """Make copies of the calling thread belong to this GPU, and to no other, where they would take memory, too.

    This and the next two only help: where there is no runtime, nothing happens.
    """
    runtime = _runtime()
    if runtime is not None and runtime.cudaSetDevice(ctypes.c_int(number)) != 0:
        runtime.cudaGetLastError()  # or onnxruntime would take it for an error of its own


def keep_freed_memory(number: int) -> None:
    """Let what was freed on this GPU wait for its next use, in place of going back to the driver and coming again."""
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
    """A uint8 array of zeros in memory that the kernel never moves, so that a GPU can copy it at full speed."""
    array = np.zeros(shape, np.uint8)
    runtime = _runtime()
    if runtime is not None:
        address = ctypes.c_void_p(array.ctypes.data)
        if runtime.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(0)) == 0:
            # before the memory is anyone else's; at the process's end the driver does it
            weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
        else:
            runtime.cudaGetLastError()  # as above
    return array


class Stream:
    """A queue of work on the GPU that the calling thread uses. Raises Unusable where there is no runtime."""

    def __init__(self) -> None:
        runtime = _runtime()
        if runtime is None:
            raise Unusable(f"CUDA's runtime is not installed; {INSTALL_CUDA}")
        self._runtime = runtime
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p()
        self._check(runtime.cudaStreamCreateWithFlags(ctypes.byref(self._handle), ctypes.c_uint(_NON_BLOCKING)))

    @property
    def handle(self) -> int:
        """For what puts work into it."""
        return self._handle.value or 0

    def wait(self) -> None:
        """Until all that was put into it is done. Raises RuntimeError if the GPU failed meanwhile."""
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

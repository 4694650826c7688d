"""What CUDA's runtime is asked for past onnxruntime: the GPU of a thread, and memory that stays in place.

Both only help; where the runtime is not there, nothing happens.
"""

import ctypes
import weakref
from typing import Any

import numpy as np

from batchland.preprocess import Pixels
from batchland.session.ort import ort


def use_gpu(number: int) -> None:
    """Make copies of the calling thread belong to this GPU, and to no other, where they would take memory, too."""
    runtime = _runtime()
    if runtime is not None:
        runtime.cudaSetDevice(ctypes.c_int(number))


def pinned_zeros(shape: tuple[int, ...]) -> Pixels:
    """A uint8 array of zeros in memory that the kernel never moves, so that a GPU can copy it at full speed."""
    array = np.zeros(shape, np.uint8)
    runtime = _runtime()
    if runtime is not None:
        address = ctypes.c_void_p(array.ctypes.data)
        if runtime.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(0)) == 0:
            # before the memory is anyone else's; at the process's end the driver does it
            weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
    return array


def _runtime() -> Any:
    major = (getattr(ort, "cuda_version", None) or "").partition(".")[0]
    try:
        return ctypes.CDLL(f"libcudart.so.{major}") if major else None
    except OSError:
        return None

"""Where and in what numbers training computes. Chooses, and says what it chose; knows nothing of models or data."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import nn

from batchland.errors import DeviceError
from batchland.system.cores import usable_cores

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_GLIBC_DEFAULTS: Final = {_M_TRIM_THRESHOLD: 128 * 1024, _M_MMAP_MAX: 65536}


@dataclass(frozen=True)
class Compute:
    """A device, and whether products are computed in bfloat16 there (weights, sums and losses stay float32)."""

    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """Context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def place(self, model: nn.Module) -> None:
        """Move a model, its convolutions laid out as the pictures are: channels last."""
        model.to(self.device)
        model.to(memory_format=torch.channels_last)

    def workers(self, wanted: int | None) -> int:
        """Processes that augment, by default by cores and device."""
        if wanted is not None:
            return wanted
        return min(8, usable_cores()) if self.device.type == "cuda" else min(2, usable_cores() - 1)

    def __str__(self) -> str:
        return f"{self.device}, {'bfloat16 products' if self.bf16 else 'float32'}"


def choose(device: Literal["auto", "cpu", "cuda"], precision: Literal["auto", "fp32", "bf16"]) -> Compute:
    """CUDA where torch can use it, bfloat16 where the hardware multiplies it.

    Raises DeviceError if CUDA was asked for and cannot be had.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise DeviceError("--device cuda: torch sees no usable GPU; see nvidia-smi, or use --device cpu")
    chosen = torch.device("cuda" if available and device != "cpu" else "cpu")
    bf16 = _multiplies_bf16(chosen) if precision == "auto" else precision == "bf16"
    return Compute(chosen, bf16)


def _multiplies_bf16(device: torch.device) -> bool:
    """Whether it has instructions for it: without them, a CPU emulates it, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Random numbers that follow from the seed, with those of the caller put back afterwards."""
    with torch.random.fork_rng(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        torch.manual_seed(seed)
        yield


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next step instead of giving it back to the system each time (glibc only).

    A step frees and takes the same few hundred megabytes; mapping them anew costs a page fault for every 4 kB. Measured
    on the scratch model, 224 x 224, batches of 32: from 1.08 to 0.60 seconds of CPU a step.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for parameter, value in _GLIBC_DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)

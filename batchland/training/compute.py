"""Choose the device and the number format that training computes in."""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

    def move(self, model: nn.Module) -> None:
        """Move a model to the device, in the memory layout of the images (channels last)."""
        model.to(self.device)
        model.to(memory_format=torch.channels_last)

    def for_training(self, parts: Iterable[nn.Module]) -> "Compute":
        """The faster format for these parts: on a CPU, gradients of depthwise convolutions are slow in bfloat16."""
        slow = self.device.type == "cpu" and any(_is_depthwise(layer) for part in parts for layer in part.modules())
        return replace(self, bf16=False) if slow else self

    def workers(self, wanted: int | None) -> int:
        """Number of processes that augment; None chooses by cores and device."""
        if wanted is not None:
            return wanted
        return min(8, usable_cores()) if self.device.type == "cuda" else min(2, usable_cores() - 1)

    def __str__(self) -> str:
        return f"{self.device}, {'bfloat16 products' if self.bf16 else 'float32'}"


def choose_compute(device: Literal["auto", "cpu", "cuda"], precision: Literal["auto", "fp32", "bf16"]) -> Compute:
    """CUDA where torch can use it, bfloat16 where the hardware multiplies it.

    Raises DeviceError if `device` is `cuda` and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise DeviceError("device cuda: torch sees no usable GPU; see nvidia-smi", advice="cpu_device")
    chosen = torch.device("cuda" if available and device != "cpu" else "cpu")
    bf16 = _multiplies_bf16(chosen) if precision == "auto" else precision == "bf16"
    return Compute(chosen, bf16)


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 instructions; a CPU without them emulates it, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch's random numbers and make cuDNN deterministic; restores the caller's state afterwards."""
    # enabled=True: the default of `flags` is False, which would switch cuDNN off
    deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.random.fork_rng(), deterministic:
        torch.manual_seed(seed)
        yield


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep freed memory for the next step instead of returning it to the system. No-op elsewhere.

    A step allocates and frees the same few hundred megabytes; mapping them again costs a page fault per 4 kB. Measured
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

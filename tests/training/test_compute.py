"""Choice of device and precision, and restoring global state."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from batchland.training.compute import Compute, choose_compute, reproducible


def test_precision_is_the_requested_one() -> None:
    assert choose_compute("cpu", "fp32") == Compute(torch.device("cpu"), bf16=False)
    assert choose_compute("cpu", "bf16") == Compute(torch.device("cpu"), bf16=True)
    assert (str(choose_compute("cpu", "fp32")), str(choose_compute("cpu", "bf16"))) == (
        "cpu, float32",
        "cpu, bfloat16 products",
    )


def test_only_products_are_bfloat16() -> None:
    layer, inputs = nn.Linear(4, 4), torch.rand(2, 4)
    for bf16, kind in ((False, torch.float32), (True, torch.bfloat16)):
        with Compute(torch.device("cpu"), bf16).autocast():
            assert layer(inputs).dtype == kind
    assert layer.weight.dtype == torch.float32


def test_depthwise_convolutions_are_trained_in_float32_on_a_cpu() -> None:
    plain, depthwise = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4)
    cpu, cuda = (Compute(torch.device(name), bf16=True) for name in ("cpu", "cuda"))
    assert cpu.for_training([plain, nn.Conv2d(1, 4, 3)]) == cpu
    assert cpu.for_training([plain, nn.Sequential(depthwise)]) == Compute(torch.device("cpu"), bf16=False)
    assert cuda.for_training([depthwise]) == cuda


def test_seed_determines_random_numbers_and_caller_state_is_restored() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with reproducible(7):
            assert torch.backends.cudnn.enabled
            assert torch.backends.cudnn.deterministic
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)


PAGE_FAULTS = """
import resource
import torch
from batchland.training.compute import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 1024**2).sum()  # 64 MB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
with freed_memory_kept():
    kept = min(faults() for _ in range(8))  # at last the heap has a hole that is large enough
print(before > 8000, kept < 100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_reused_without_page_faults() -> None:
    printed = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True).stdout
    assert printed == "True True\n"

"""Where training computes, and what it leaves as it was."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from batchland.training.compute import Compute, choose, reproducible


def test_precision_is_what_was_asked_for() -> None:
    assert choose("cpu", "fp32") == Compute(torch.device("cpu"), bf16=False)
    assert choose("cpu", "bf16") == Compute(torch.device("cpu"), bf16=True)
    assert (str(choose("cpu", "fp32")), str(choose("cpu", "bf16"))) == ("cpu, float32", "cpu, bfloat16 products")


def test_only_products_are_bfloat16() -> None:
    layer, inputs = nn.Linear(4, 4), torch.rand(2, 4)
    for bf16, kind in ((False, torch.float32), (True, torch.bfloat16)):
        with Compute(torch.device("cpu"), bf16).autocast():
            assert layer(inputs).dtype == kind
    assert layer.weight.dtype == torch.float32


def test_random_numbers_follow_the_seed_and_the_callers_go_on() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with reproducible(7):
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
usual = faults()
with freed_memory_kept():
    for _ in range(8):  # until the heap has a hole that is large enough
        kept = faults()
print(usual > 8000, kept < 100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_that_is_freed_is_taken_again_without_page_faults() -> None:
    told = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True).stdout
    assert told == "True True\n"

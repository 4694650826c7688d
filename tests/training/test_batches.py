"""Worker processes end with the process that started them."""

import subprocess
import sys

CHILD = """
import torch
from batchland.training.batches import picture_loader
from batchland.training.compute import Compute

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, place):
        return torch.tensor([place]), place

loader = picture_loader(Numbers(), [[0, 1], [2, 3]], 2, Compute(torch.device("cpu"), bf16=False))
print([labels.tolist() for _, labels in loader])
kept = loader  # until the very end, its workers with it
"""


def test_workers_that_are_left_do_not_keep_the_process_from_its_end():
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "[[0, 1], [2, 3]]\n"), run.stderr

"""Worker processes end with the process that started them."""

import subprocess
import sys

CHILD = """
import torch
from batchland.training.batches import image_loader
from batchland.training.compute import Compute

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return torch.tensor([index]), index

loader = image_loader(Numbers(), [[0, 1], [2, 3]], 1, Compute(torch.device("cpu"), bf16=False))
print([labels.tolist() for _, labels in loader])
kept = loader  # with its workers, until the interpreter exits
"""


def test_process_ends_while_workers_are_running():
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=240, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[[0, 1], [2, 3]]\n", "")

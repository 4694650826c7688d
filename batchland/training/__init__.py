"""Train the two classifiers and export them to ONNX. The only package that imports torch and torchvision.

`train` (train.py) leaves a checkpoint per model, `export` (export.py) turns one into an ONNX file. Nothing is imported
here, so that naming the package costs nothing.
"""

import os

# Read once, when torch loads its OpenMP. Otherwise its threads burn their core while they wait for each other, which it
# would rather give to the processes that augment: measured on two shared cores, half of a step's CPU time and more.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

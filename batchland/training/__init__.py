"""Train the two classifiers and export them to ONNX. The only package that imports torch and torchvision.

`train` (train.py) writes a checkpoint per model, `export` (export.py) turns one into an ONNX file.
"""

from batchland.training import openmp as openmp  # before torch, which any module of this package may import

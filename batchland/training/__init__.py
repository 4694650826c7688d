"""Train the two classifiers and export them to ONNX. The only package that imports torch and torchvision.

`train` (train.py) leaves a checkpoint per model, `export` (export.py) turns one into an ONNX file. Nothing is imported
here, so that naming the package costs nothing.
"""

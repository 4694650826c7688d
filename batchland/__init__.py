"""Batch inference and evaluation for image classifiers: ONNX in, Parquet and reports out."""

__version__ = "0.1.0"

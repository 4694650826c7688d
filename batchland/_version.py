"""The version of batchland."""

__version__ = "0.1.0"

"""Decode image files, one module per format. Files that may be decoded wrongly are refused."""

"""Decode image files, one module per format; anything that is not certain to be read right is refused."""

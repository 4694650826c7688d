"""Data sets of labelled photos in class folders: download, split and check them."""

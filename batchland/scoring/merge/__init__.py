"""Merge the shards of one listing into the output that a single process would have written.

check.py: are the shards complete and of one kind. order.py: their rows in listing order. merge.py: the output.
"""

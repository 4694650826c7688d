"""Merge the shards of one listing into the output that a single process would have written.

check.py checks that they are complete and of one kind. order.py gives their rows in listing order. describe.py makes
the manifest, merge.py the output. in_place.py writes only a manifest.
"""

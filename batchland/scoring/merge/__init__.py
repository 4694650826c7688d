"""Merge the shards of one listing into the output that a single process would have written.

shard_folder.py: their folder, at a path or a URL. check.py: are they complete and of one kind. order.py: their rows in
listing order. describe.py: the manifest. merge.py: the output. in_place.py: no output, only a manifest.
"""

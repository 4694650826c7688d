"""One listing, scored by N processes or machines that know nothing of each other, and put together again.

deal.py: which images are whose. finished.py: what the shards have left. ordered.py: their rows in order, all of them.
merge.py: one output out of them.
"""

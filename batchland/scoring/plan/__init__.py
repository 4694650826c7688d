"""List a source once, and let any number of machines score their own part of the list.

schema.py: the files of a plan. write.py: list and freeze. read.py: the images of a plan, or of a range of it.
planned_run.py: score all of a plan, or one shard of it.
"""

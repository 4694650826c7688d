"""List a source once, and let any number of machines score their own part of the list.

schema.py defines the files of a plan. write.py lists a source and writes them. read.py reads the images of a plan, or
of a range of it. planned_run.py scores all of a plan, or one shard of it.
"""

"""Score with Ray, on this machine or on a cluster: workers score whole parts with the local engine and write them.

The driver (scoring/score.py) keeps listing, resuming and the output. No pixels and no rows travel through it.

    driver   names of a part's images -> worker          a bounded number of parts in progress
    worker   reads, decodes, infers, writes the part     an actor with the local engine, on some cores or a GPU
    driver   <- number of rows, failures, digests

environment.py comes before `import ray`; start.py starts or joins Ray; cluster_plan.py divides cores and GPUs;
worker.py runs on the nodes; pool.py hands out parts and replaces lost workers; engine.py is the engine.
"""

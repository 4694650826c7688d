"""Score with Ray Data, on this machine or on a cluster: decode in tasks, infer in a pool of actors, rows back in order.

The driver (scoring/score.py) keeps listing, parts, resuming and the output. Here batches of images become rows, by the
functions that the local engine uses.

    driver   a window of batches of names -> BatchQueue, an actor on the driver's node
    read     n, n + 1, ...                               one task
    decode   n -> pixels and outcomes                    tasks
    infer    pixels -> rows                              actors, each with a session
    driver   rows of n, n + 1, ...                       a bounded number of batches in progress

environment.py comes before `import ray`; engine.py is the engine; cluster_plan.py divides the cores; batch_queue.py
holds the batches in progress; stages.py runs on the nodes; pipeline.py makes a Ray data set of the stages; results.py
takes its rows.
"""

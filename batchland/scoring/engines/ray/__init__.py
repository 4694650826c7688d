"""Score with Ray Data, on this machine or on a cluster: decode in tasks, infer in a pool of actors, rows back in order.

The driver, that is scoring.py, keeps listing, parts, resuming and the output; here batches of images become their rows,
by the very functions that the local engine uses. The only package that imports Ray, and it is imported on demand.

    driver   a window of batches of names -> Feed, an actor beside the driver
    read     n, n + 1, ...                               one task
    decode   n -> pixels and outcomes                    tasks
    infer    pixels -> rows                              actors, each with a session
    driver   rows of n, n + 1, ...                       a bounded number of batches under way

engine.py is what scoring.py sees; plan.py shares the cores out, feed.py has the batches under way, stages.py is what
runs on the nodes, pipeline.py makes a data set of that, results.py takes its rows.
"""

import os
from importlib.util import find_spec

from batchland.errors import UsageError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for that
# Ray's own reports would come between our lines on stderr, and on stdout; errors come as exceptions anyway.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
if missing := [package for package in ("ray", "pandas", "fsspec") if find_spec(package) is None]:
    raise UsageError(f"--engine ray needs {', '.join(missing)}; install with `pip install 'batchland[ray]'`")

"""Run commands in forked processes, each with one failing system call: a JSON object per line in, another one out."""

import ctypes
import json
import os
import sys
import traceback
from typing import Any

from batchland.cli.main import main

MODULES = (
    "scipy.stats", "jinja2", "pyarrow.csv", "pyarrow.dataset",
    *(f"batchland.{name}" for name in (
        "scoring.score", "scoring.merge.merge", "evaluation.evaluate", "report.write",
        "report.duplicates_page", "embeddings.duplicates", "monitoring.drift", "nightly.runner", "nightly.accept",
        "nightly.history", "nightly.plan", "trend.write", "trend.overview", "trend.night_map",
    )),
)  # fmt: skip
for module in MODULES:
    __import__(module)  # once, before the forks: most of the time of a command

FAULTS = ctypes.CDLL(None)
FAULTS.fault_path.restype = ctypes.c_char_p


def run(job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["cwd"])
    FAULTS.set_fault(job["below"].encode(), job["kind"].encode(), job["n"], job["errno"])
    try:
        main(job["command"], prog_name="batchland")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    count, path = FAULTS.fault_count(), FAULTS.fault_path().decode()
    FAULTS.set_fault(b"", b"", 0, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{job['log']}.json", "w") as file:
        json.dump({"code": code, "count": count, "path": path}, file)
    return code


for line in sys.stdin:
    if (pid := os.fork()) == 0:
        os._exit(run(json.loads(line)))
    os.waitpid(pid, 0)
    print("done", flush=True)

"""CPU seconds and memory of one command in its own process: of `compare`, and of `evaluate` with slices of own columns.

    python -m benchmarks.comparison_rows evaluate A/preds.parquet A/labels.parquet [--by camera,site]
    python -m benchmarks.comparison_rows report A/preds.parquet A/labels.parquet --out REPORT
    python -m benchmarks.comparison_rows compare REPORT REPORT...

`report` writes what `compare` reads, without the page. `python -m benchmarks.evaluation_rows` makes the files.
"""

import argparse
import resource
import time
from pathlib import Path

from batchland.evaluation.comparison import compare
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.saved import read_report, write_folder
from batchland.evaluation.several import compare_several


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("evaluate", "report", "compare"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--by", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cpu, wall = time.process_time(), time.perf_counter()
    if given.what == "compare":
        reports = [read_report(path) for path in given.paths]
        found = compare(*reports).summary.account.paired if len(reports) == 2 else compare_several(reports).images
    else:
        options = EvaluateOptions(by=tuple(given.by.split(",")) if given.by else ())
        evaluation = evaluate(*given.paths, options)
        found = len(evaluation.summary.slices)
        if given.out:
            tables = {"per_class": evaluation.per_class, "outcomes": evaluation.outcomes_file}
            write_folder(given.out, tables, evaluation.summary, "")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{given.what} {given.by}: {cpu:.1f} CPU s, {wall:.1f} s, {memory:,.0f} MB, {found:,}", flush=True)


if __name__ == "__main__":
    main()

"""The cost of writing predictions to an object store: the same rows to a disk and to a server on this machine.

    python -m benchmarks.outputs --rows 100000

No image is read and no model runs: rows of 50 classes, five choices each, go through the sink, from the first batch to
the manifest. The server (tests/s3_server.py, of the extra `dev`) shares the cores.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from batchland.images.batch import Batch, Outcome
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard, class_names
from batchland.predictions.parts import PartSpec
from batchland.predictions.rows import to_rows
from batchland.predictions.storage import open_output, output_location
from batchland.predictions.writer import PredictionSink
from benchmarks.machine import describe_machine

BATCH, PART = 32, 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from s3_server import S3Server

    refs = [ImageRef(f"camera-{number % 7}/{number:09}.jpg", b"") for number in range(options.rows)]
    batches = list(_batches(sorted(refs)))
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_STATE_HOME"] = name
        server = S3Server(Path(name) / "buckets", Path(name) / "log")
        (server.folder / "bucket").mkdir(parents=True)
        server.start()
        os.environ.update(server.environment)
        places = {
            "disk, one file": f"{name}/disk/p.parquet",
            "disk, a folder": f"{name}/disk/p",
            "S3, one file": "s3://bucket/p.parquet",
            "S3, a folder": "s3://bucket/p",
        }
        try:
            seconds: dict[str, list[float]] = {kind: [] for kind in places}
            asked: dict[str, Counter[str]] = {}
            for number in range(options.rounds):
                for kind, where in places.items():
                    server.requests()
                    seconds[kind].append(_written(where.replace("/p", f"/p{number}"), sorted(refs), batches))
                    time.sleep(0.5)
                    asked[kind] = Counter(server.requests())
        finally:
            server.kill()
    print(describe_machine())
    for kind, spent in seconds.items():
        requests = ", ".join(f"{count} {request}" for request, count in sorted(asked[kind].items()))
        print(f"{kind}: {median(spent):.2f} s (from {min(spent):.2f} to {max(spent):.2f}); {requests or 'no requests'}")


def _batches(refs: list[ImageRef]) -> Iterator[pa.RecordBatch]:
    names = [f"{number:02}.Landmark_{number}" for number in range(50)]
    card = ModelCard(
        name="drawn",
        architecture="none",
        classes=class_names(names),
        preprocess=PreprocessSpec(height=8, width=8),
        created_at="2026-11-23T00:00:00Z",
    )
    rng = np.random.default_rng(0)
    for begin in range(0, len(refs), BATCH):
        some = refs[begin : begin + BATCH]
        outcomes = [Outcome(1024, 768, int(rng.integers(10**5, 10**6)), 1_700_000_000_000_000) for _ in some]
        logits = rng.normal(size=(len(some), 50)).astype(np.float32) * 3
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        yield to_rows(Batch(some, np.empty(0, np.uint8), outcomes), probabilities, card, 5)


def _written(out: str, refs: list[ImageRef], batches: list[pa.RecordBatch]) -> float:
    """Seconds from opening the output until it is published."""
    begin = time.perf_counter()
    spec = PartSpec.of({"bench": 1}, batch_size=BATCH, part_size=PART)
    with PredictionSink(open_output(output_location(out)), spec) as sink:
        rows = iter(batches)
        listed = 0
        for ref in sink.pending_images(refs):
            listed += ref is not None
            if listed == BATCH or (ref is None and listed):
                sink.write(next(rows))
                listed = 0
        sink.survey()
        sink.assemble("{}")
        sink.publish("{}")
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()

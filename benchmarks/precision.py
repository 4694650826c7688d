"""Compare the speed of exported files of one model, in turns: python benchmarks/precision.py fp32.onnx int8.onnx ..."""

import statistics
import sys
import time

import numpy as np

from batchland.models.session import Session, open_session

ROUNDS = 15
BATCHES = (1, 32)


def seconds(session: Session, pixels: np.ndarray) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    session.predict(pixels)
    return time.process_time() - cpu, time.perf_counter() - wall


def main(files: list[str]) -> None:
    sessions = [open_session(file, "cpu", intra_op_threads=2) for file in files]
    shape = sessions[0].card.preprocess.shape
    print("| file | MB | batch | images per CPU second | CPU ratio to the first | wall ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for batch in BATCHES:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
        for session in sessions:
            session.predict(pixels)
        rounds = [[seconds(session, pixels) for session in sessions] for _ in range(ROUNDS)]
        for index, session in enumerate(sessions):
            rate = batch / statistics.median(each[index][0] for each in rounds)
            cpu, wall = (statistics.median(each[0][kind] / each[index][kind] for each in rounds) for kind in (0, 1))
            size = session.path.stat().st_size / 1e6
            print(f"| {session.path.name} | {size:.1f} | {batch} | {rate:.1f} | {cpu:.2f} | {wall:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])

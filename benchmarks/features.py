"""The cost of features: CPU microseconds per image of each step, and bytes in the file. Prints a Markdown table.

    python -m benchmarks.features
    python -m benchmarks.features --runs MODEL --work FOLDER [--count 400] [--pairs 7] [--width 2048]

--runs scores the same photos with a model without features, and with the same model with features, at the same time in
two processes. On one core (`taskset -c 1`) both are slowed down alike by other programs. It gives the CPU seconds of
whole runs: medians, the median of the ratios within a pair, and its interval with 95 % confidence by the bootstrap.
MODEL is `scratch`, `transfer` (ResNet50), or a path of a model without features. With --width 2048, a small model has
as many features as ResNet50, so that the cost of its features is not lost in the noise of a large one.
"""

import argparse
import io
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pyarrow.parquet as pq

from batchland import ScoreOptions, score
from batchland.models.contract import FEATURES_NAME
from batchland.models.features import keep_features, normalised
from batchland.models.known import MAX_PHOTOS, add_distance
from batchland.models.ort import CPU, create_session
from batchland.predictions.layout import write_table
from batchland.predictions.schema import features_column
from benchmarks.machine import describe_machine
from benchmarks.models import find_model
from benchmarks.photos import draw_photos

BATCH, ROWS, WIDTHS = 32, 4096, (512, 1280, 2048)


def nodes(width: int, *, known: bool) -> float:
    """CPU microseconds an image of the nodes for features alone, or with those for the distance."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        normalised("images", pooled=False, opset=18),
        "features",
        [value("images", onnx.TensorProto.FLOAT, ["batch", width])],
        [value(FEATURES_NAME, onnx.TensorProto.FLOAT, ["batch", width])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    pictures = vectors(max(BATCH, MAX_PHOTOS), width)
    if known:
        add_distance(model, pictures / np.linalg.norm(pictures, axis=1, keepdims=True))
    session = create_session(model.SerializeToString(), [(CPU, {})], 1)
    feed = {"images": pictures[:BATCH]}
    return 1e6 / BATCH * _least(lambda: session.run(None, feed), 50)


def vectors(count: int, width: int) -> npt.NDArray[np.float32]:
    """Half of their numbers are 0, as behind ReLU."""
    return np.maximum(np.random.default_rng(0).normal(size=(count, width)), 0).astype(np.float32)


def steps(width: int) -> dict[str, float]:
    """CPU microseconds an image by step, and bytes."""
    kind, pictures = features_column(width).type, vectors(ROWS, width)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pictures.astype(np.float16).ravel()), type=kind)
    table, file = pa.table({"features": column}), io.BytesIO()
    write = _least(lambda: write_table(table, io.BytesIO(), {}))
    write_table(table, file, {})
    return {
        "nodes for features": nodes(width, known=False),
        "these and those for the distance": nodes(width, known=True),
        "conversion to half floats": 1e6 / ROWS * _least(lambda: pictures.astype(np.float16)),
        "writing once": 1e6 / ROWS * write,
        "reading once": 1e6 / ROWS * _least(lambda: pq.read_table(io.BytesIO(file.getvalue()))),
        "bytes in the file": len(file.getvalue()) / ROWS,
    }


def _seconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin


def _least(action: Callable[[], object], times: int = 5) -> float:
    return min(_seconds(action) for _ in range(times))


def whole_runs(name: str, work: Path, count: int, pairs: int, width: int | None) -> str:
    """A row of the table: CPU seconds without and with features, and the difference in a pair."""
    plain, photos = find_model(name, work), draw_photos(work / "photos", "small", count)
    if width:
        plain = widened(plain, width, work / f"wide-{plain.name}")
    model = Path(shutil.copy(plain, work / f"with-features-of-{plain.name}"))
    keep_features(model)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for _ in range(1 + pairs):  # the first pair opens caches
            both = {used: pool.submit(_run, model if used else plain, photos, work, features=used) for used in seconds}
            for used, run in both.items():
                seconds[used].append(run.result())
    without, used = seconds[False][1:], seconds[True][1:]
    ratios = np.array(used) / np.array(without)
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    what = f"{name} | {width or ''} | {count} | {pairs} | {median(without):.2f} | {median(used):.2f}"
    return f"| {what} | {median(ratios) - 1:+.1%} | {low - 1:+.1%} to {high - 1:+.1%} |"


def _run(model: Path, photos: Path, work: Path, *, features: bool) -> float:
    """CPU seconds."""
    options = ScoreOptions(model=model, device="cpu", features=features, overwrite=True)
    return _seconds(lambda: score(photos, work / f"features-{features}.parquet", options))


def widened(model: Path, width: int, out: Path) -> Path:
    """Write the model with the input of its last layer repeated to `width` numbers; the answers stay the same."""
    proto = onnx.load(model)
    layer = [node for node in proto.graph.node if node.op_type == "Gemm"][-1]
    weight = next(each for each in proto.graph.initializer if each.name == layer.input[1])
    values = onnx.numpy_helper.to_array(weight)
    times = width // values.shape[1]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.tile(values, times) / np.float32(times), weight.name))
    wide = onnx.helper.make_node("Concat", [layer.input[0]] * times, ["wide"], axis=1)
    proto.graph.node.insert(list(proto.graph.node).index(layer), wide)
    layer.input[0] = "wide"
    onnx.save(proto, out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", metavar="MODEL")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--width", type=int, help="number of features; the model's own are repeated")
    given = parser.parse_args()
    print(describe_machine())
    if given.runs:
        print("\n| model | features | images | pairs | CPU s without | with features | more | interval |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
        print(whole_runs(given.runs, given.work, given.count, given.pairs, given.width))
        return
    found = {width: steps(width) for width in WIDTHS}
    print(f"\n| CPU us an image | {' | '.join(f'{width} features' for width in WIDTHS)} |")
    print("| --- |" + " ---: |" * len(WIDTHS))
    for name in found[WIDTHS[0]]:
        print(f"| {name} | {' | '.join(f'{found[width][name]:.1f}' for width in WIDTHS)} |")


if __name__ == "__main__":
    main()

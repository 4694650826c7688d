"""Which library finds the most similar features among many: time to build and to search, recall, memory, bytes.

    python -m benchmarks.indexes FOLDER --count 100000 --dimensions 1280 [--only "faiss IVF, half floats"]

Needs faiss-cpu, usearch and hnswlib; those that are not installed are left out. FOLDER keeps the made-up features.
They are those of a network: 64 hidden numbers, with 1,000 classes in them, through a random layer with ReLU, with
noise, of length 1, as half floats. The queries are 100 other pictures of these classes. Recall is the share of the 20
most similar ones, found exactly, that a search finds. Each library has a process of its own; memory is the most that
the process itself holds, without the file of features, which it maps.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.embeddings.lists import PROBES, Lists
from batchland.embeddings.neighbours import nearest
from batchland.system.cores import usable_cores

HIDDEN, CLASSES, QUERIES, TOP, BLOCK = 64, 1000, 100, 20, 16384
LISTS_PER_ROOT = 1
"""Lists of an inverted file, as a multiple of the square root of the number of vectors."""
Vectors = npt.NDArray[Any]


def make_features(folder: Path, count: int, dimensions: int) -> tuple[Vectors, Vectors]:
    """Features and queries, made once."""
    paths = [folder / f"{name}-{count}-{dimensions}.npy" for name in ("features", "queries")]
    if not paths[1].exists():
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(CLASSES, HIDDEN)).astype(np.float32)
        shares = rng.dirichlet(np.full(CLASSES, 2.0))
        spread = (1 / np.sqrt(np.arange(1, HIDDEN + 1))).astype(np.float32)
        layer = rng.normal(size=(HIDDEN, dimensions)).astype(np.float32) / np.float32(np.sqrt(HIDDEN))

        def some(size: int) -> Vectors:
            hidden = centres[rng.choice(CLASSES, size, p=shares)]
            hidden = hidden + spread * rng.standard_normal((size, HIDDEN), np.float32)
            found = np.maximum(hidden @ layer + 0.1 * rng.standard_normal((size, dimensions), np.float32), 0)
            return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)

        features = np.lib.format.open_memmap(paths[0], "w+", np.float16, (count, dimensions))
        for start in range(0, count, BLOCK):
            features[start : start + BLOCK] = some(min(BLOCK, count - start))
        features.flush()
        np.save(paths[1], some(QUERIES))
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1]).astype(np.float32)


def in_blocks(features: Vectors) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(features), BLOCK):
        yield features[start : start + BLOCK].astype(np.float32)


class Built(NamedTuple):
    """An index."""

    searches: dict[str, Callable[[npt.NDArray[np.float32]], Vectors]]
    """Setting -> a function of queries, [n, dimensions], that returns rows, [n, TOP]."""
    save: Callable[[Path], Any]


def exact(features: Vectors) -> Built:
    """A search through the file."""
    return Built({"": lambda queries: nearest(queries, features, TOP)[0]}, lambda path: path.touch())


def faiss_lists(kind: str) -> Callable[[Vectors], Built]:
    """An inverted file: k-means, then the vectors of some nearest means are compared."""

    def build(features: Vectors) -> Built:
        import faiss

        faiss.omp_set_num_threads(usable_cores())
        lists = int(LISTS_PER_ROOT * np.sqrt(len(features)))
        index = faiss.index_factory(features.shape[1], f"IVF{lists},{kind}", faiss.METRIC_INNER_PRODUCT)
        clustering = faiss.extract_index_ivf(index).cp
        clustering.niter, clustering.max_points_per_centroid = 10, 64
        index.train(features[:: max(1, len(features) // (64 * lists))].astype(np.float32))
        for block in in_blocks(features):
            index.add(block)

        def search(probes: int) -> Callable[[npt.NDArray[np.float32]], Vectors]:
            def found(queries: npt.NDArray[np.float32]) -> Vectors:
                faiss.extract_index_ivf(index).nprobe = probes
                return index.search(queries, TOP)[1]

            return found

        return Built(
            {f"{n} lists": search(n) for n in (4, 8, 16, 32, 64)}, lambda path: faiss.write_index(index, str(path))
        )

    return build


def shipped(features: Vectors) -> Built:
    """The index that `similar --index` keeps; searched in the written file, which is mapped."""
    lists = Lists.of(features)
    with NamedTemporaryFile(dir=Path(features.filename).parent) as file:
        lists.write(Path(file.name))
        mapped = Lists.read(Path(file.name))

    def search(queries: npt.NDArray[np.float32]) -> Vectors:
        return np.stack([mapped.nearest(query, TOP)[0] for query in queries])

    return Built({f"{PROBES} lists": search}, lists.write)


def faiss_graph(features: Vectors) -> Built:
    import faiss

    faiss.omp_set_num_threads(usable_cores())
    index = faiss.index_factory(features.shape[1], "HNSW16,SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.train(features[:1000].astype(np.float32))
    for block in in_blocks(features):
        index.add(block)

    def search(width: int) -> Callable[[npt.NDArray[np.float32]], Vectors]:
        def found(queries: npt.NDArray[np.float32]) -> Vectors:
            index.hnsw.efSearch = width
            return index.search(queries, TOP)[1]

        return found

    return Built(
        {f"width {n}": search(n) for n in (32, 64, 128, 256)}, lambda path: faiss.write_index(index, str(path))
    )


def usearch_graph(kind: str) -> Callable[[Vectors], Built]:
    def build(features: Vectors) -> Built:
        from usearch.index import Index

        index = Index(ndim=features.shape[1], metric="ip", dtype=kind, connectivity=16, expansion_add=100)
        for start in range(0, len(features), BLOCK):
            block = np.asarray(features[start : start + BLOCK])
            index.add(np.arange(start, start + len(block)), block, threads=usable_cores())

        def search(width: int) -> Callable[[npt.NDArray[np.float32]], Vectors]:
            def found(queries: npt.NDArray[np.float32]) -> Vectors:
                index.expansion_search = width
                return np.atleast_2d(index.search(queries.astype(np.float16), TOP, threads=1).keys)

            return found

        return Built({f"width {n}": search(n) for n in (32, 64, 128, 256)}, lambda path: index.save(str(path)))

    return build


def hnswlib_graph(features: Vectors) -> Built:
    import hnswlib

    index = hnswlib.Index("ip", features.shape[1])
    index.init_index(len(features), ef_construction=100, M=16)
    for start, block in zip(range(0, len(features), BLOCK), in_blocks(features), strict=True):
        index.add_items(block, np.arange(start, start + len(block)), num_threads=usable_cores())

    def search(width: int) -> Callable[[npt.NDArray[np.float32]], Vectors]:
        def found(queries: npt.NDArray[np.float32]) -> Vectors:
            index.set_ef(width)
            return index.knn_query(queries, TOP, num_threads=1)[0].astype(np.int64)

        return found

    return Built({f"width {n}": search(n) for n in (32, 64, 128, 256)}, lambda path: index.save_index(str(path)))


CONTENDERS: dict[str, tuple[str, Callable[[Vectors], Built]]] = {
    "exact, numpy": ("numpy", exact),
    "shipped": ("faiss", shipped),
    "faiss IVF, half floats": ("faiss", faiss_lists("SQfp16")),
    "faiss IVF, 8 bits": ("faiss", faiss_lists("SQ8")),
    "faiss HNSW, half floats": ("faiss", faiss_graph),
    "usearch HNSW, half floats": ("usearch", usearch_graph("f16")),
    "usearch HNSW, 8 bits": ("usearch", usearch_graph("i8")),
    "hnswlib HNSW, floats": ("hnswlib", hnswlib_graph),
}


class _Memory(threading.Thread):
    """Watches the bytes that are this process's own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = self._now()

    def run(self) -> None:
        while True:
            self.most = max(self.most, self._now())
            time.sleep(0.05)

    def _now(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def measure(folder: Path, name: str, count: int, dimensions: int) -> None:
    """Print the rows of one contender."""
    features, queries = make_features(folder, count, dimensions)
    truth = np.load(folder / f"truth-{count}-{dimensions}.npy")
    memory = _Memory()
    before = memory.most
    memory.start()
    wall, cpu = time.perf_counter(), time.process_time()
    built = CONTENDERS[name][1](features)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    file = folder / "index.tmp"
    built.save(file)
    size = file.stat().st_size
    file.unlink()
    for setting, search in built.searches.items():
        search(queries[:1])
        few = queries[:5] if name.startswith("exact") else queries
        begin = time.process_time()
        found = np.concatenate([search(query[None]) for query in few])
        each = (time.process_time() - begin) / len(few)
        recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found.tolist(), truth.tolist(), strict=False)])
        print(
            f"| {name} | {count:,} | {dimensions:,} | {cpu:,.1f} | {wall:,.1f} | {(memory.most - before) / 1e6:,.0f} | "
            f"{size / 1e6:,.0f} | {setting} | {each * 1000:,.2f} | {recall:.1%} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=1280)
    parser.add_argument("--only", action="append", choices=CONTENDERS)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.folder, given.one, given.count, given.dimensions)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    features, queries = make_features(given.folder, given.count, given.dimensions)
    np.save(given.folder / f"truth-{given.count}-{given.dimensions}.npy", nearest(queries, features, TOP)[0])
    heads = ("index", "vectors", "dimensions", "build: CPU s", "wall s", "memory, MB", "file, MB", "setting")
    print(f"| {' | '.join(heads)} | query: CPU ms | recall |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |", flush=True)
    for name, (package, _) in CONTENDERS.items():
        if find_spec(package) and (not given.only or name in given.only):
            command = [sys.executable, "-m", "benchmarks.indexes", str(given.folder), "--one", name]
            command += ["--count", str(given.count), "--dimensions", str(given.dimensions)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

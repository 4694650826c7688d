"""Time and memory of copies, similar images and the map for many images with made-up signatures and features.

    python -m benchmarks.embeddings_scale copies 100000
    python -m benchmarks.embeddings_scale map 100000
    python -m benchmarks.embeddings_scale similar 100000
    python -m benchmarks.embeddings_scale strangers 100000

Signatures are those of smooth random pictures, and 1% of them copies with noise. Features have 1,280 dimensions around
50 centres. Trustworthiness of a map is scikit-learn's, for the 10 nearest of each of 2,000 pictures: 1 if all of them
are near in features, too, about 0.5 by chance. Strangers are the nodes that add the distance from 2,000 known photos,
in batches of 32; a run of `score` computes them with the model.
"""

import argparse
import resource
import time

import numpy as np
import onnx
from sklearn.manifold import trustworthiness

from batchland.embeddings.copies import find_copies, groups
from batchland.embeddings.layout import layout
from batchland.embeddings.neighbours import nearest
from batchland.embeddings.signatures import signatures
from batchland.models.contract import DISTANCE_NAME, FEATURES_NAME
from batchland.models.known import MAX_PHOTOS, add_distance
from batchland.models.ort import CPU, create_session
from batchland.system.cores import usable_cores

DIMENSIONS = 1280


def made_up_signatures(count: int) -> np.ndarray:
    """Of pictures of 9 x 8 smooth random cells; the last 1% are copies of the first, with noise."""
    rng = np.random.default_rng(0)
    colour = rng.dirichlet([1.0, 1.0, 1.0], count)[:, None, None] * 1.5 + 0.2
    coarse = rng.uniform(40, 220, (count, 4, 4, 3)) * colour
    copies = count // 100
    coarse[-copies:] = coarse[:copies] + rng.normal(0, 2, (copies, 4, 4, 3))
    cells = np.clip(coarse, 0, 255)
    rows, columns = np.linspace(0, 3, 8), np.linspace(0, 3, 9)
    tones = cells.mean(axis=3)
    low, part = np.floor(columns).astype(int).clip(0, 2), columns - np.floor(columns).clip(0, 2)
    across = tones[:, :, low] * (1 - part) + tones[:, :, low + 1] * part
    low, part = np.floor(rows).astype(int).clip(0, 2), (rows - np.floor(rows).clip(0, 2))[:, None]
    smooth = across[:, low] * (1 - part) + across[:, low + 1] * part
    bits = np.packbits((smooth[:, :, 1:] > smooth[:, :, :-1]).reshape(count, 64), axis=1)
    hashes = bits.copy().view(">u8").ravel().astype(np.uint64)
    return signatures(hashes, cells.astype(np.uint8).reshape(count, 48))


def made_up_features(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, DIMENSIONS)).astype(np.float32)
    found = np.zeros((count, DIMENSIONS), np.float16)
    for start in range(0, count, 4096):
        size = min(4096, count - start)
        part = centres[rng.integers(0, 50, size)] + rng.normal(size=(size, DIMENSIONS)).astype(np.float32)
        found[start : start + size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return found


def distances(features: np.ndarray) -> int:
    """Compute the distances of all images from the first 2,000. Returns the number of images."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["images"], [FEATURES_NAME])],
        "strangers",
        [value("images", onnx.TensorProto.FLOAT, ["batch", DIMENSIONS])],
        [value(FEATURES_NAME, onnx.TensorProto.FLOAT, ["batch", DIMENSIONS])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    add_distance(model, features[:MAX_PHOTOS].astype(np.float32))
    session = create_session(model.SerializeToString(), [(CPU, {})], usable_cores())
    return sum(
        len(session.run([DISTANCE_NAME], {"images": features[start : start + 32].astype(np.float32)})[0])
        for start in range(0, len(features), 32)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("copies", "map", "similar", "strangers"))
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    data = made_up_signatures(options.count) if options.what == "copies" else made_up_features(options.count)
    wall, cpu = time.perf_counter(), time.process_time()
    if options.what == "copies":
        pairs = find_copies(data)
        found = f"{len(pairs.left):,} pairs in {len(groups(len(data), pairs)):,} groups"
    elif options.what == "map":
        made = layout(data)
        found = made.method
    elif options.what == "strangers":
        found = f"{distances(data):,} distances"
    else:
        rows, _ = nearest(data[:1], data, 20)
        found = f"{rows.shape[1]} images"
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.what == "map":
        some = np.linspace(0, len(data) - 1, min(len(data), 2000)).astype(int)
        near = trustworthiness(data[some].astype(np.float32), made.positions[some], n_neighbors=10)
        found += f", trustworthiness {near:.3f}"
    print(f"{options.what} {options.count:,}: {wall:.1f} s, {cpu:.1f} CPU s, {memory:,.0f} MB at most, {found}")


if __name__ == "__main__":
    main()

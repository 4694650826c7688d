"""The compared ways to score a folder, each as a process: `python -m benchmarks.contenders WAY ...`.

Each prints one JSON line: images, and seconds from when everything is imported, loaded and has answered once.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.photos import photo_files

BATCH_SIZE = 32


def decode(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """D: read, decode and fit every image, as `score` does; nothing else runs."""
    from batchland.images.loader import BatchLoader
    from batchland.images.sources.folder import list_images
    from batchland.models.session import open_session

    spec = open_session(model, "cpu").card.preprocess
    begin = time.perf_counter()
    batches = BatchLoader(list_images(images), spec, BATCH_SIZE, workers)
    return sum(len(batch.refs) for batch in batches), time.perf_counter() - begin


def session(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """M: only the onnxruntime session, on one batch in memory, one call after the other with all cores."""
    return _bare(images, model, calls=1, threads=workers)


def sessions(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """M: the same with a call per core, each on one thread."""
    return _bare(images, model, calls=workers, threads=1)


def _bare(images: Path, model: Path, calls: int, threads: int) -> tuple[int, float]:
    import onnxruntime as ort

    from batchland.images.sources.folder import list_images

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    opened = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, *opened.get_inputs()[0].shape[1:]), np.uint8)
    rounds = max(4, min(40, sum(1 for _ in list_images(images)) // BATCH_SIZE))
    with ThreadPoolExecutor(calls) as pool:
        list(pool.map(lambda _: opened.run(None, {"images": pixels}), range(calls)))
        begin = time.perf_counter()
        list(pool.map(lambda _: opened.run(None, {"images": pixels}), range(rounds)))
    return rounds * BATCH_SIZE, time.perf_counter() - begin


def batchland(images: Path, model: Path, _workers: int) -> tuple[int, float]:
    """`batchland score` with a model that is open and has answered once."""
    from batchland.scoring.engines.local import LocalEngine
    from batchland.scoring.options import ScoreOptions
    from batchland.scoring.score import score

    options = ScoreOptions(model=model, device="cpu", batch_size=BATCH_SIZE)
    engine = LocalEngine(model, options)
    engine.model.predict(np.zeros((BATCH_SIZE, *engine.model.card.preprocess.shape), np.uint8))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = score(images, Path(folder, "predictions.parquet"), options, engine=engine)
    return run.manifest.counts.listed, time.perf_counter() - begin


def naive(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """The simplest program: Pillow and onnxruntime, one image at a time."""
    import onnxruntime as ort
    import pandas as pd
    from PIL import Image

    options = ort.SessionOptions()
    options.intra_op_num_threads = workers
    opened = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    size = opened.get_inputs()[0].shape[2:0:-1]
    rows: list[dict[str, object]] = []

    def answer(path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        (probabilities,) = opened.run(None, {"images": pixels[None]})
        best = np.argsort(-probabilities[0])[:5]
        rows.append({"image": str(path), "classes": best.tolist(), "probabilities": probabilities[0][best].tolist()})

    paths = photo_files(images)
    answer(paths[0])
    begin = time.perf_counter()
    for path in paths:
        answer(path)
    with tempfile.TemporaryDirectory() as folder:
        pd.DataFrame(rows).to_parquet(Path(folder, "predictions.parquet"))
    return len(paths), time.perf_counter() - begin


def imagefolder(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """The walk-through's way: ImageFolder, DataLoader, the torch model, topk."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    mean, std = ((0.5,) * 3,) * 2
    transform = transforms.Compose(
        [transforms.Resize([224, 224]), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    if not any(path.is_dir() for path in images.iterdir()):  # ImageFolder wants class folders
        folder = Path(tempfile.mkdtemp())
        (folder / "photos").symlink_to(images.resolve())
        images = folder
    dataset = ImageFolder(str(images), transform)
    network = _torch_network(model)
    network(torch.zeros(1, 3, 224, 224))
    begin = time.perf_counter()
    results = []
    with torch.no_grad():
        for batch, _ in DataLoader(dataset, BATCH_SIZE, num_workers=workers):
            results.append(network(batch).softmax(1).topk(5))
    return sum(len(result.indices) for result in results), time.perf_counter() - begin


def timm(images: Path, model: Path, workers: int) -> tuple[int, float]:
    """What timm's inference.py does: its dataset, loader and transform, a torch model, top-k into a table."""
    import pandas as pd
    import torch
    from timm.data import create_dataset, create_loader

    dataset = create_dataset(root=str(images), name="")
    loader = create_loader(
        dataset, (3, 224, 224), BATCH_SIZE, use_prefetcher=False, num_workers=workers, device=torch.device("cpu")
    )
    network = _torch_network(model)
    network(torch.zeros(1, 3, 224, 224))
    begin = time.perf_counter()
    probabilities, indices = [], []
    with torch.no_grad():
        for batch, _ in loader:
            values, places = network(batch).softmax(-1).topk(5)
            probabilities.append(values.numpy())
            indices.append(places.numpy())
    names = dataset.filenames(basename=True)
    columns = {"filename": names, "index": list(np.concatenate(indices)), "prob": list(np.concatenate(probabilities))}
    with tempfile.TemporaryDirectory() as folder:
        pd.DataFrame(columns).set_index("filename").to_csv(Path(folder, "predictions.csv"))
    return len(names), time.perf_counter() - begin


def _torch_network(model: Path):
    """The same architecture in torch, random weights: speed does not depend on them."""
    from batchland.models.session import open_session
    from batchland.training.models import build

    card = open_session(model, "cpu").card
    return build(card.architecture, len(card.classes), card.preprocess).eval().network


WAYS: dict[str, Callable[[Path, Path, int], tuple[int, float]]] = {
    way.__name__: way for way in (decode, session, sessions, batchland, imagefolder, timm, naive)
}

if __name__ == "__main__":
    way, images, model, workers = sys.argv[1:]
    count, seconds = WAYS[way](Path(images), Path(model), int(workers))
    print(json.dumps({"images": count, "seconds": seconds}))

"""A typical program for each compared tool: `python -m benchmarks.field_peers PEER IMAGES MODEL OUT`.

Every peer computes the same network, in batches of 32 on all cores, and writes a CSV file with a row `name,class` for
each image. Where a peer has an option for broken files, it is set.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.photos import photo_files

BATCH = 32
SIZE = 224


def network(model: Path) -> Any:
    """The network in the ONNX file of benchmarks.models, in torch, for float pixels 0 to 1 [batch, 3, 224, 224]."""
    import torch

    from batchland.images.preprocess import PreprocessSpec
    from batchland.training.models import build
    from benchmarks.models import CLASSES

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    spec = PreprocessSpec(jpeg_scale="auto", resize="simd")
    return build("scratch" if "scratch" in model.name else "transfer", CLASSES, spec).eval().network


def write(out: Path, rows: Iterable[tuple[str, int]]) -> None:
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def walkthrough(images: Path, model: Path, out: Path) -> None:
    """ImageFolder, DataLoader, argmax."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.Resize([SIZE, SIZE]), transforms.ToTensor()])
    dataset, net = datasets.ImageFolder(str(images), transform), network(model)
    found: list[int] = []
    with torch.no_grad():
        for batch, _ in DataLoader(dataset, BATCH, num_workers=2):
            found += net(batch).argmax(1).tolist()
    write(out, zip((Path(path).name for path, _ in dataset.samples), found, strict=True))


def timm(images: Path, model: Path, out: Path) -> None:
    """timm's inference.py: its dataset and loader; rows are matched to file names at the end."""
    import torch
    from timm.data import create_dataset, create_loader

    dataset = create_dataset(root=str(images), name="")
    loader = create_loader(dataset, (3, SIZE, SIZE), BATCH, use_prefetcher=False, num_workers=2)
    found: list[int] = []
    net = network(model)
    with torch.no_grad():
        for batch, _ in loader:
            found += net(batch).argmax(1).tolist()
    write(out, zip(dataset.filenames(basename=True), found, strict=True))


def huggingface(images: Path, model: Path, out: Path) -> None:
    """The image-classification pipeline over a list of files."""
    from transformers import PretrainedConfig, PreTrainedModel, ViTImageProcessor, pipeline
    from transformers.modeling_outputs import ImageClassifierOutput

    class Network(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.net = network(model)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            pass

        def forward(self, pixel_values: Any) -> Any:
            return ImageClassifierOutput(logits=self.net(pixel_values))

    config = PretrainedConfig(num_labels=50)
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, do_normalize=False)
    classify = pipeline("image-classification", model=Network(config), image_processor=processor, batch_size=BATCH)
    files = [str(path) for path in photo_files(images)]
    answers = classify(files, top_k=1)
    rows = (
        (Path(file).name, int(answer[0]["label"].rpartition("_")[2]))
        for file, answer in zip(files, answers, strict=True)
    )
    write(out, rows)


def ultralytics(images: Path, model: Path, out: Path) -> None:
    """YOLO(...).predict over a folder, with the network exported for it."""
    import onnx
    import torch
    from ultralytics import YOLO

    exported = out.with_name(f"{out.stem}-{model.stem}.yolo.onnx")  # not of another network
    if not exported.exists():
        example = torch.zeros(1, 3, SIZE, SIZE)
        net = torch.nn.Sequential(network(model), torch.nn.Softmax(1))
        torch.onnx.export(
            net, (example,), exported, input_names=["images"], dynamo=False, dynamic_axes={"images": {0: "batch"}}
        )
        graph = onnx.load(exported)
        facts = {
            "names": {number: str(number) for number in range(50)},
            "imgsz": [SIZE, SIZE],
            "task": "classify",
            "stride": 1,
            "batch": 1,
        }
        for key, value in facts.items():
            graph.metadata_props.add(key=key, value=str(value))
        onnx.save(graph, exported)
    results = YOLO(exported, task="classify").predict(
        str(images / "**"), stream=True, verbose=False, imgsz=SIZE, device="cpu", batch=BATCH
    )
    write(out, [(Path(result.path).name, int(result.probs.top1)) for result in results])


def daft(images: Path, model: Path, out: Path) -> None:
    """A Daft data frame: glob, download, decode, resize, a user function in batches."""
    import daft
    import numpy as np
    import torch

    net = network(model)

    @daft.func.batch(return_dtype=daft.DataType.int64(), batch_size=BATCH)
    def classify(pictures: Any) -> Any:
        found = []
        for picture in (picture for picture in [pictures.to_pylist()]):
            good = [number for number, pixels in enumerate(picture) if pixels is not None]
            classes: list[int | None] = [None] * len(picture)
            if good:
                pixels = np.stack([np.asarray(picture[number]) for number in good])
                with torch.no_grad():
                    answers = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).argmax(1).tolist()
                for number, answer in zip(good, answers, strict=True):
                    classes[number] = answer
            found += classes
        return daft.Series.from_pylist(found)

    frame = daft.from_glob_path(f"{images}/**/*.*")
    picture = daft.col("path").download(on_error="null").decode_image(on_error="null", mode="RGB").resize(SIZE, SIZE)
    table = frame.select("path", classify(picture).alias("class")).to_pydict()
    rows = zip(table["path"], table["class"], strict=True)
    write(out, ((Path(path).name, number) for path, number in rows if number is not None))


def ray(images: Path, model: Path, out: Path) -> None:
    """Ray Data: read_images, map_batches with a class."""
    import ray.data
    import torch

    class Classify:
        def __init__(self) -> None:
            self.net = network(model)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                return {"path": batch["path"], "class": self.net(pixels).argmax(1).numpy()}

    ray.init(logging_level="error", log_to_driver=False)
    pictures = ray.data.read_images(str(images), size=(SIZE, SIZE), mode="RGB", include_paths=True)
    rows = pictures.map_batches(Classify, batch_size=BATCH, concurrency=1).take_all()
    write(out, ((Path(row["path"]).name, int(row["class"])) for row in rows))


PEERS: dict[str, Callable[[Path, Path, Path], None]] = {
    peer.__name__: peer for peer in (walkthrough, timm, huggingface, ultralytics, daft, ray)
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*map(Path, sys.argv[2:]))

"""What features cost: CPU seconds of `score` and bytes in the file, with and without them. Prints a Markdown table.

python -m benchmarks.features --images demo/sample --model models/transfer.onnx --rounds 5

In each round the same images are scored with the model as it was before it had features, with the model as it is, with
its features written, and with the distance from known photos computed. Rounds differ; the ratios are medians over
rounds.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.decisions import KnownPhotos
from batchland.models.known import MOST_PHOTOS, add_distance
from benchmarks.machine import describe_machine

PLAIN, SILENT, WRITTEN, KNOWN = "no features in the model", "not asked for", "features written", "known photos"


def variants(model: Path, folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """By name: a model file, and flags."""
    whole = onnx.load(model)
    card = ModelCard.from_json(
        next(each.value for each in whole.metadata_props if each.key == METADATA_KEY), model.name
    )
    assert card.features is not None, f"{model}: has no features"
    photos = np.random.default_rng(0).normal(size=(MOST_PHOTOS, card.features)).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    known = onnx.ModelProto()
    known.CopyFrom(whole)
    add_distance(known, photos)
    rule = KnownPhotos(images=MOST_PHOTOS, labels_fingerprint="", distances=tuple(np.linspace(0.1, 1, 1000).tolist()))
    save(known, card.model_copy(update={"known": rule}), folder / "known.onnx")
    for values in (whole.graph.node, whole.graph.output):
        kept = [each for each in values if not each.name.startswith("features") and not _of_features(each)]
        del values[:]
        values.extend(kept)
    save(whole, card.model_copy(update={"features": None}), folder / "plain.onnx")
    return {
        PLAIN: (folder / "plain.onnx", ()),
        SILENT: (model, ()),
        WRITTEN: (model, ("--features",)),
        KNOWN: (folder / "known.onnx", ()),
    }


def _of_features(part: onnx.NodeProto | onnx.ValueInfoProto) -> bool:
    return isinstance(part, onnx.NodeProto) and part.output[0].startswith("features")


def save(model: onnx.ModelProto, card: ModelCard, path: Path) -> None:
    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save(model, path)


def cpu_seconds(images: Path, model: Path, flags: tuple[str, ...], out: Path) -> float:
    """Of one run, start-up included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["score", images, "--out", out, "--model", model, "--device", "cpu", "--overwrite", *flags]
    subprocess.run([sys.executable, "-m", "batchland", *map(str, command)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="with features")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp())
    with tempfile.TemporaryDirectory() as temporary:
        found = variants(given.model, Path(temporary))
        outs = {name: Path(temporary, f"{number}.parquet") for number, name in enumerate(found)}
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for number in range(given.rounds + 1):
            for name, (model, flags) in found.items():
                spent = cpu_seconds(given.images, model, flags, outs[name])
                if number:  # the first round fills caches
                    seconds[name].append(spent)
        rows = rows_of(outs[PLAIN])
        print(describe_machine())
        print(f"\n{rows} images of {given.images}, {given.rounds} rounds\n")
        print("| model | CPU s | times the first, median (least to most) | bytes an image |")
        print("| --- | ---: | ---: | ---: |")
        for name in found:
            ratios = [spent / first for spent, first in zip(seconds[name], seconds[PLAIN], strict=True)]
            spread = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"| {name} | {median(seconds[name]):.2f} | {spread} | {outs[name].stat().st_size / rows:.0f} |")


def rows_of(out: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(out).num_rows)


if __name__ == "__main__":
    main()

"""The project's two architectures with random weights, as ONNX: as fast as trained ones."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from batchland.images.preprocess import PreprocessSpec
from batchland.models.card import ModelCard, class_names

if TYPE_CHECKING:
    from batchland.training.options import Architecture

CLASSES = 50


def write_random_model(architecture: "Architecture", path: Path, precision: str = "fp32") -> None:
    """For 50 classes and 224 x 224 pixels, with fast JPEG decoding, as `train` makes them by default; fp32 or fp16."""
    import torch

    from batchland.training.export import write_onnx
    from batchland.training.models import build
    from batchland.training.precision import half

    spec = PreprocessSpec(jpeg_scale="auto", resize="simd")
    card = ModelCard(
        name=architecture,
        architecture=architecture,
        classes=class_names([f"{number:02}.Class_{number}" for number in range(CLASSES)]),
        preprocess=spec,
        created_at="2026-11-24T00:00:00Z",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = build(architecture, CLASSES, spec).eval()
    write_onnx(half(model) if precision == "fp16" else model, card, path)


def find_model(name: str, work: Path) -> Path:
    """`scratch`, `transfer` or either with `-fp16`, written to the folder `work` once, or the path of another model."""
    architecture, _, precision = name.partition("-")
    if architecture not in ("scratch", "transfer") or precision not in ("", "fp16"):
        return Path(name)
    path = work / f"{name}.onnx"
    if not path.exists():
        # in a separate process: torch here would count as the peak memory of every child
        command = [sys.executable, "-m", "benchmarks.models", architecture, str(path), precision or "fp32"]
        subprocess.run(command, check=True)
    return path


if __name__ == "__main__":
    write_random_model(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])  # type: ignore[arg-type]

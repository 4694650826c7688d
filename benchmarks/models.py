"""The project's two architectures with random weights, as ONNX: as fast as trained ones."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from batchland.model_card import ModelCard, class_names
from batchland.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from batchland.training.models import Architecture

CLASSES = 50


def write_random_model(architecture: "Architecture", path: Path) -> None:
    """For 50 classes and 224 x 224 pixels, with fast JPEG decoding, as `train` makes them by default."""
    from batchland.training.export import write_onnx
    from batchland.training.models import build

    spec = PreprocessSpec(jpeg_scale="auto")
    card = ModelCard(
        name=architecture,
        architecture=architecture,
        classes=class_names([f"{number:02}.Class_{number}" for number in range(CLASSES)]),
        preprocess=spec,
        created_at="2026-11-24T00:00:00Z",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(build(architecture, CLASSES, spec).eval(), card, path)


def find_model(name: str, work: Path) -> Path:
    """`scratch` or `transfer`, written to the folder `work` once, or the path of any other model."""
    if name not in ("scratch", "transfer"):
        return Path(name)
    path = work / f"{name}.onnx"
    if not path.exists():
        # in a process of its own: torch here would be counted as every child's peak memory
        subprocess.run([sys.executable, "-m", "benchmarks.models", name, str(path)], check=True)
    return path


if __name__ == "__main__":
    write_random_model(sys.argv[1], Path(sys.argv[2]))  # type: ignore[arg-type]

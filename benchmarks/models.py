"""The project's two architectures with random weights, as ONNX: as fast as trained ones."""

import sys
from pathlib import Path

from batchland.model_card import ModelCard, class_names
from batchland.preprocess import PreprocessSpec
from batchland.training.export import write_onnx
from batchland.training.models import Architecture, build

CLASSES = 50


def write_random_model(architecture: Architecture, path: Path) -> None:
    """For 50 classes and 224 x 224 pixels, with fast JPEG decoding, as `train` makes them by default."""
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


if __name__ == "__main__":
    write_random_model(sys.argv[1], Path(sys.argv[2]))  # type: ignore[arg-type]

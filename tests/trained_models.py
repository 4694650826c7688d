"""Fixtures: photos of three colours, and models trained on them and exported, made once for all workers."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from commands import batchland
from made_once import made_once
from PIL import Image
from toys import COLOURS

if TYPE_CHECKING:  # importing torch takes seconds
    from batchland.models.card import ModelCard
    from batchland.training.export import ExportReport
    from batchland.training.models import ServedModel
    from batchland.training.train import TrainedModel

Exported = tuple[Path, tuple[int, str, str]]
"""A file; the exit code, stdout and stderr of the command that wrote it."""


@pytest.fixture(scope="session")
def colour_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set: in `train`, ten noisy photos a class, 48 x 40, which differ in their colour."""
    return made_once(tmp_path_factory, "colour-photos", _draw_photos)


def _draw_photos(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, colour in COLOURS.items():
        (root / "train" / folder).mkdir(parents=True)
        for number in range(10):
            muted = 40 + np.array(colour) * 160 / 255
            pixels = np.clip(muted + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="session")
def trained(colour_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> "dict[str, TrainedModel]":
    """Both models after eight epochs, the transfer model with a small random ResNet. Read-only."""
    from batchland.training.train import TrainOptions, train

    options = TrainOptions(
        size=32,
        num_workers=0,
        batch_size=8,
        weights="none",
        backbone="timm/test_resnet",
        views=1,
        epochs=8,
        device="cpu",
    )
    models = made_once(tmp_path_factory, "trained", lambda runs: train(colour_photos, runs, options))
    return {model.card.name: model for model in models}


@pytest.fixture(scope="session")
def exported(trained: "dict[str, TrainedModel]", tmp_path_factory: pytest.TempPathFactory) -> "dict[str, ExportReport]":
    """Both models in float32. Read-only."""
    from batchland.training import export as export_module

    write = export_module.write_onnx

    def make(folder: Path) -> "dict[str, ExportReport]":
        for name in ("models", "written"):
            (folder / name).mkdir()

        def kept(model: "ServedModel", card: "ModelCard", path: Path) -> None:
            write(model, card, path)
            shutil.copyfile(path, folder / "written" / f"{card.name}.onnx")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_module, "write_onnx", kept)
            return {
                name: export_module.export(model.checkpoint.parent, folder / "models" / f"{name}.onnx")
                for name, model in trained.items()
            }

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="session")
def written(exported: "dict[str, ExportReport]") -> Path:
    """The folder of the models of `exported` as torch's exporter writes them, before outputs are added. Read-only."""
    return exported["scratch"].path.parent.with_name("written")


@pytest.fixture(scope="session")
def fp16(trained: "dict[str, TrainedModel]", tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The scratch model in fp16. Read-only."""

    def make(folder: Path) -> Exported:
        out, run = folder / "fp16.onnx", trained["scratch"].checkpoint.parent
        result = batchland("export", run, "--out", out, "--precision", "fp16", "--max-drop", "0")
        return out, (result.exit_code, result.stdout, result.stderr)

    return made_once(tmp_path_factory, "fp16", make)

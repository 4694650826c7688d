"""Fixtures of the training tests: small photos of three colours, and models trained on them once."""

from pathlib import Path

import numpy as np
import pytest
from made_once import made_once
from PIL import Image
from toys import COLOURS

from batchland.training.train import TrainedModel, TrainOptions, train


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
def trained(colour_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedModel]:
    """Both models after eight epochs, the transfer model with a small random ResNet. Read-only."""
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

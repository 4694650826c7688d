"""Accuracy without labels: from the confidence and the figures of pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from observed import Random, observed
from photo_like import as_jpeg, photo
from toys import COLOURS

from batchland.errors import UsageError
from batchland.models.session import open_session
from batchland.monitoring.estimate import Labelled, estimate_accuracy, estimator_path, fit_estimator, read_estimator
from batchland.monitoring.fit_estimator import make_estimator
from batchland.monitoring.observations import MEASURES


def labelled(rng: Random, count: int = 600, blur: float = 0.0) -> Labelled:
    """Answers whose true probability to be right falls with sharpness, and is in part their confidence."""
    images = observed(rng, count, shift={"sharpness": -blur}, night=0.0)
    true = 1 / (1 + np.exp(-1.2 - 0.8 * images.values[:, MEASURES.index("sharpness")] / 1.5 - rng.normal(0, 1, count)))
    images.values[:, MEASURES.index("probability")] = np.clip(0.5 * true + 0.5, 0.01, 0.99)  # too sure
    return Labelled(images, rng.random(count) < true)


@pytest.fixture(scope="module")
def estimator():
    rng = np.random.default_rng(0)
    copies = {name: [labelled(rng, blur=blur), labelled(rng, blur=2 * blur)] for name, blur in (("a", 0.5), ("b", 1.0))}
    return fit_estimator(labelled(rng, 1000), copies, "0" * 64, 3)


@pytest.mark.parametrize("blur", [0.0, 0.4, 1.0, 1.8])
def test_estimate_follows_the_accuracy(estimator, blur) -> None:
    """Far below the confidence, on photos as they are and on worse ones."""
    night = labelled(np.random.default_rng(5), 4000, blur=blur)
    found = estimate_accuracy(estimator, night.observed)
    assert found.value == pytest.approx(night.right.mean(), abs=0.04)
    assert found.low < night.right.mean() < found.high
    assert night.observed.values[:, MEASURES.index("probability")].mean() > night.right.mean() + 0.1


def test_intervals_hold_and_shrink_with_more_images(estimator) -> None:
    rng = np.random.default_rng(6)
    nights = [labelled(rng, 200) for _ in range(200)]
    found = [estimate_accuracy(estimator, night.observed) for night in nights]
    inside = [each.low <= night.right.mean() <= each.high for each, night in zip(found, nights, strict=True)]
    assert 0.85 <= np.mean(inside) <= 1.0
    many = estimate_accuracy(estimator, labelled(rng, 5000).observed)
    assert many.high - many.low < found[0].high - found[0].low


def test_the_interval_is_wider_below_if_the_known_kinds_of_corruption_were_easy(estimator) -> None:
    night = labelled(np.random.default_rng(6), 200).observed
    easy, hard = (estimate_accuracy(estimator.model_copy(update={"error": error}), night) for error in (0.01, 0.05))
    assert easy.value - easy.low > 1.3 * (easy.high - easy.value)
    assert hard.value - hard.low == pytest.approx(hard.high - hard.value)


def test_too_few_images_and_missing_figures_are_not_estimable(estimator) -> None:
    night = labelled(np.random.default_rng(7), 29)
    assert estimate_accuracy(estimator, night.observed).model_dump() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "29 images are too few; an estimate needs 30",
    }
    night = labelled(np.random.default_rng(7), 40)
    night.observed.values[:, MEASURES.index("sharpness")] = np.nan
    assert estimate_accuracy(estimator, night.observed).reason == "figures of the pictures are missing"


def test_estimator_of_a_model_from_photos(tmp_path: Path, toy_model: Path) -> None:
    """The toy's answer is the dominant colour, so nearly all are right; the file is beside the model and reads back."""
    rng = np.random.default_rng(8)
    for folder, colour in COLOURS.items():
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(40):
            mixed = photo(rng, 32) * 0.5 + np.array(colour) * 0.5
            (tmp_path / "photos" / folder / f"{number}.jpg").write_bytes(as_jpeg(mixed.astype(np.uint8)))
    (tmp_path / "photos" / folder / "broken.jpg").write_bytes(b"no picture")
    made = make_estimator(toy_model, tmp_path / "photos", open_session(toy_model), copies=20)
    assert (made.labelled, made.accuracy > 0.9) == (120, True)
    assert read_estimator(toy_model) == made
    assert json.loads(estimator_path(toy_model).read_text())["kind"] == "batchland.estimator"


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "does not exist"),
        ("few", "2 readable photos; an estimate needs at least 100"),
        ("other", "1 class name that the model does not have: 'cats'"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, toy_model: Path, folder: str, message: str) -> None:
    pixels = as_jpeg(photo(np.random.default_rng(9)))
    for name in ("few/" + next(iter(COLOURS)), "other/cats"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(pixels)
        (tmp_path / name / "2.jpg").write_bytes(pixels)
    with pytest.raises(UsageError) as caught:
        make_estimator(toy_model, tmp_path / folder, open_session(toy_model))
    assert str(caught.value).startswith(f"{tmp_path / folder}: {message}")


def test_broken_estimator_is_an_error(toy_model: Path) -> None:
    assert read_estimator(toy_model) is None
    estimator_path(toy_model).write_text("{}")
    with pytest.raises(UsageError, match="is not an estimator of this version of batchland; make it again"):
        read_estimator(toy_model)

"""Suspected label errors: planted ones are found, real models do not blame labels for their own mistakes."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import random_case, write_arrays
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.label_errors import LabelledChoices, fit_label_noise
from batchland.models.card import class_names

MODELS = {
    "good": (LogisticRegression(max_iter=400, C=10), 300),
    "weak": (LogisticRegression(max_iter=400, C=100), 40),
    "overconfident": (GaussianNB(), 400),
    "neighbours": (KNeighborsClassifier(5), 100),
    "nearest neighbour": (KNeighborsClassifier(1), 400),
    "network": (MLPClassifier((30,), max_iter=3000, alpha=0, random_state=0), 300),
}


def suspected(folder: Path, probabilities: np.ndarray, given: np.ndarray, top_k: int = 5) -> tuple[np.ndarray, float]:
    """Indices of the images with a suspected label, and the estimated share of them that is wrong."""
    folder.mkdir(exist_ok=True)
    names = [f"{index:05d}.jpg" for index in range(len(given))]
    folders = [f"class {index}" for index in range(probabilities.shape[1])]
    predictions = write_arrays(folder / "p.parquet", class_names(folders), names, probabilities, top_k=top_k)
    labels = folder / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{n},{folders[g]}\n" for n, g in zip(names, given, strict=True)))
    table = evaluate(predictions, labels).mistakes
    table = table.filter(table["suspected_label_error"])
    probability = table["label_error_probability"].to_numpy()
    images = np.array([int(name[:5]) for name in table["image"].to_pylist()], int)
    return images, float(probability.mean()) if len(images) else 0.0


def plant(truth: np.ndarray, share: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, which of them are wrong): that share of them are a random other class."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(truth)) < share
    return np.where(wrong, (truth + rng.integers(1, classes, len(truth))) % classes, truth), wrong


@pytest.fixture(scope="module", params=MODELS)
def digits(request: pytest.FixtureRequest) -> tuple[str, np.ndarray, np.ndarray]:
    """(model, true classes, probabilities) of 1,200 handwritten digits."""
    pixels, digit = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digit))
    model, images = MODELS[request.param]
    train, test = order[:images], order[-1200:]
    model.fit(pixels[train] / 16, digit[train])
    return request.param, digit[test], model.predict_proba(pixels[test] / 16).astype(np.float32)


@pytest.mark.parametrize("top_k", [2, 5, 10])
def test_no_label_is_suspected_if_all_are_right(digits, top_k: int, tmp_path: Path) -> None:
    _, truth, probabilities = digits
    found, _ = suspected(tmp_path, probabilities, truth, top_k)
    assert found.tolist() == []


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_planted_label_errors_of_real_models(digits, share: float, tmp_path: Path) -> None:
    name, truth, probabilities = digits
    given, wrong = plant(truth, share, 10, seed=1)
    found, precision = suspected(tmp_path, probabilities, given)
    if name in ("good", "network"):
        assert wrong[found].sum() >= 0.6 * wrong.sum()
    if len(found):
        assert wrong[found].mean() >= max(0.6, precision - 0.15)


@pytest.mark.parametrize(("accuracy", "share"), [(0.4, 0.0), (0.95, 0.0), (0.95, 0.05)])
def test_a_model_that_is_more_overconfident_on_half_of_the_images(accuracy: float, share: float) -> None:
    """Ten classes; the logits of half of the images are multiplied by 4, and 3% point surely to a wrong class."""
    truth, probabilities = random_case(10, 6000, accuracy=accuracy, seed=6)
    logits = np.log(probabilities)
    logits[::2] *= 4
    rng = np.random.default_rng(0)
    hard = rng.random(6000) < 0.03
    logits[hard, (truth[hard] + rng.integers(1, 10, hard.sum())) % 10] += 60
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    given, wrong = plant(truth, share, 10, seed=3)
    order = np.argsort(-logits, axis=1)[:, :5]
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    is_label = order == given[:, None]
    rank = np.where(is_label.any(axis=1), is_label.argmax(axis=1) + 1, 0)
    best = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
    of_label = probabilities[np.arange(6000), given].astype(np.float32)
    images = LabelledChoices(best, rank, of_label, given, order[:, 0])
    noise = fit_label_noise(images, 10)
    found = noise.error_probabilities(images)
    suspected = (rank != 1) & (found >= noise.suspected_from)
    if not share:
        assert not suspected.any()
    else:
        assert wrong[suspected].sum() >= 0.5 * wrong.sum()
        assert suspected.sum() <= noise.noise * 6000 + 1
        assert 0.75 <= found[suspected].mean() <= wrong[suspected].mean() + 0.01


def simulated(logits: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Which labels are suspected."""
    rows = np.arange(len(given))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    order = np.argsort(-probabilities, axis=1)
    rank = (order == given[:, None]).argmax(axis=1) + 1
    best = np.take_along_axis(probabilities, order, axis=1)[:, :5]
    images = LabelledChoices(best, np.where(rank > 5, 0, rank), probabilities[rows, given], given, order[:, 0])
    noise = fit_label_noise(images, logits.shape[1])
    return (rank != 1) & (noise.error_probabilities(images) >= noise.suspected_from)


def logits_of(looks_like: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    logits = rng.normal(size=(len(looks_like), 10))
    logits[np.arange(len(looks_like)), looks_like] += 5
    return logits * scale


@pytest.mark.parametrize(("share", "classes", "images"), [(0.3, 1, 1000), (0.1, 10, 300), (0.1, 10, 5000)])
def test_a_confusion_of_two_classes_is_not_suspected(share: float, classes: int, images: int) -> None:
    """A share of the first classes looks like the next one. In a large set, other labels that are wrong are found."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, images)
    confused = (truth < classes) & (rng.random(images) < share)
    logits = logits_of(np.where(confused, (truth + 1) % 10, truth), 4, rng)
    assert not simulated(logits, truth).any()
    if images == 5000:
        given, wrong = plant(truth, 0.03, 10, seed=1)
        found = simulated(logits, given)
        assert (found & wrong).sum() >= 0.5 * wrong.sum()
        assert (found & ~wrong).sum() <= 0.05 * found.sum()


@pytest.mark.parametrize("seed", range(6))
def test_the_wrong_labels_of_a_model_without_mistakes(seed: int) -> None:
    """A tenth of 300 labels is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 10, 300)
    logits = logits_of(truth, 3, rng)
    given, wrong = plant(truth, 0.1, 10, seed=seed)
    found = simulated(logits, given)
    assert (found & wrong).sum() >= 0.5 * wrong.sum()
    assert not (found & ~wrong).any()


@pytest.mark.parametrize("classes", [6, 100])
def test_planted_label_errors_of_an_overconfident_model(classes: int, tmp_path: Path) -> None:
    truth, probabilities = random_case(classes, 2000, accuracy=0.95, seed=5)
    given, wrong = plant(truth, 0.04, classes, seed=2)
    found, precision = suspected(tmp_path, probabilities, given)
    assert wrong[found].sum() >= 0.6 * wrong.sum()
    assert wrong[found].mean() >= precision - 0.05
    assert suspected(tmp_path / "clean", probabilities, truth)[0].tolist() == []

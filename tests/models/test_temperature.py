"""Temperature scaling."""

import numpy as np
import pytest

from batchland.models.temperature import fit_temperature, mean_loss


def draws(images: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 3, (images, 5)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_true_temperature_is_recovered(temperature: float) -> None:
    logits, labels = draws(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_temperature_lowers_the_loss_and_keeps_the_order() -> None:
    logits, labels = draws(500, 2.5)
    temperature = fit_temperature(logits, labels)
    assert mean_loss(logits / temperature, labels) < mean_loss(logits, labels) - 0.2
    assert np.array_equal((logits / temperature).argmax(1), logits.argmax(1))


def test_few_images_move_the_temperature_little() -> None:
    """Without the prior, six right answers give 0 and six wrong ones infinity."""
    logits = np.tile(np.array([[2.0, 0.0, 0.0]], np.float32), (6, 1))
    assert 0.5 < fit_temperature(logits, np.zeros(6, int)) < 0.8
    assert 1.3 < fit_temperature(logits, np.ones(6, int)) < 4


def test_the_loss_is_the_mean_cross_entropy() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    assert mean_loss(logits, np.array([0, 2])) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    assert mean_loss(np.array([[1e4, 0.0]], np.float32), np.array([1])) == pytest.approx(1e4)

"""Reliability and coverage, compared with scikit-learn, with hand-computed values and with counts on float32 data."""

import numpy as np
import pytest
from evaluation_data import cells, curve_of, points_of, sums
from sklearn.calibration import calibration_curve

from batchland.evaluation.calibration import (
    ROUND_THRESHOLDS,
    bins_of,
    calibration_error,
    equal_counts,
)
from batchland.evaluation.schema import Figure, ReliabilityBin


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of an overconfident model, rounded to float32 as in files, and whether each answer is right."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(4, 1.5, count).astype(np.float32).astype(np.float64)
    return probability, rng.uniform(size=count) < probability - 0.1


def test_bins_equal_scikit_learn() -> None:
    probability, right = answers(5000)
    curve = curve_of(probability, right, 10)
    accuracy, confidence = calibration_curve(right, probability, n_bins=10, strategy="uniform")
    filled = [part for part in curve if part.images]
    assert [part.accuracy.value for part in filled if part.accuracy] == pytest.approx(accuracy.tolist())
    assert [part.confidence for part in filled] == pytest.approx(confidence.tolist())
    assert sum(part.images for part in curve) == 5000


def test_bins_include_their_upper_end_and_the_first_also_includes_zero() -> None:
    curve = curve_of(np.array([0.0, 0.5, 0.625, 1.0]), np.array([False, True, True, True]), 2)
    assert curve == (
        ReliabilityBin(lower=0, upper=0.5, images=2, confidence=0.25, accuracy=curve[0].accuracy),
        ReliabilityBin(lower=0.5, upper=1, images=2, confidence=0.8125, accuracy=curve[1].accuracy),
    )
    assert [part.accuracy.value for part in curve if part.accuracy] == [0.5, 1.0]


def error(group: np.ndarray, probability: np.ndarray, right: np.ndarray) -> Figure:
    return calibration_error(sums(group, probability, right), confidence=0.95, resamples=400, seed=0)


def test_calibration_error_of_two_bins() -> None:
    """Three images at 0.9, two of them right; one at 0.3, right: distances 0.2333 and 0.7."""
    probability = np.array([0.9, 0.9, 0.9, 0.3])
    found = error(bins_of(probability, 10), probability, np.array([True, True, False, True]))
    assert found.value == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.7)
    assert found.low == 0
    assert found.value < found.high < 0.8


def test_bins_of_equal_counts() -> None:
    assert equal_counts(cells(np.array([0.5, 0.1, 0.2, 0.9, 0.4, 0.8])), 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert equal_counts(cells(np.array([0.5, 0.5, 0.5, 0.9])), 4).tolist() == [1, 2]
    assert equal_counts(cells(np.array([0.5])), 15).tolist() == [1]


@pytest.mark.parametrize("images", [60, 2000])
@pytest.mark.parametrize("gap", [0.0, 0.03, 0.1])
def test_calibration_error_interval_covers_the_true_error(images: int, gap: float) -> None:
    """95% intervals in 60 test sets; with gap 0, the model is calibrated, but its observed error is above 0."""
    rng = np.random.default_rng(images)
    probability = gap + (1 - gap) * rng.beta(4, 1.2, (60, images))
    right = rng.uniform(size=probability.shape) < probability - gap
    found = [error(bins_of(p, 15), p, r) for p, r in zip(probability, right, strict=True)]
    assert all(figure.low <= figure.value <= figure.high for figure in found)
    assert sum(figure.low <= gap <= figure.high for figure in found) >= 51


def test_an_empty_bin_has_no_accuracy() -> None:
    curve = curve_of(np.array([0.9]), np.array([True]), 3)
    assert [(part.images, part.confidence, part.accuracy is None) for part in curve] == [
        (0, None, True),
        (0, None, True),
        (1, 0.9, False),
    ]


def test_coverage_equals_a_query_on_float32_probabilities() -> None:
    probability, right = answers(3000)
    in_file = probability.astype(np.float32)
    points = points_of(probability, right)
    assert [point.threshold for point in points] == sorted(point.threshold for point in points)
    assert set(ROUND_THRESHOLDS) <= {point.threshold for point in points}
    for point in points:
        taken = in_file >= np.float32(point.threshold)
        assert (point.taken, point.to_human) == (taken.sum(), (~taken).sum())
        assert point.coverage == pytest.approx(taken.mean())
        assert point.accuracy is None or point.accuracy.value == pytest.approx(right[taken].mean())


def test_coverage_of_three_answers() -> None:
    points = points_of(np.array([0.4, 0.75, 0.75]), np.array([False, True, False]))
    by_threshold = {point.threshold: point for point in points}
    assert sorted(by_threshold) == [0.0, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99]
    assert by_threshold[0.7].model_dump() == {
        "threshold": 0.7, "taken": 2, "to_human": 1, "coverage": pytest.approx(2 / 3),
        "accuracy": {"value": 0.5, "low": pytest.approx(0.0945, abs=1e-4), "high": pytest.approx(0.9055, abs=1e-4)},
    }  # fmt: skip
    assert (by_threshold[0.8].taken, by_threshold[0.8].accuracy) == (0, None)
    assert points_of(np.array([]), np.array([], bool)) == ()

"""Reliability and coverage: checked against scikit-learn, by hand and as a query would count."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from batchland.evaluation.calibration import ROUND_THRESHOLDS, calibration_errors, coverage, reliability
from batchland.evaluation.schema import ReliabilityBin


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in float32, as files hold them, and whether each answer is right: an overconfident model."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(4, 1.5, count).astype(np.float32).astype(np.float64)
    return probability, rng.uniform(size=count) < probability - 0.1


def test_bins_equal_scikit_learn() -> None:
    probability, right = answers(5000)
    curve = reliability(probability, right, 10, 0.95)
    accuracy, confidence = calibration_curve(right, probability, n_bins=10, strategy="uniform")
    filled = [part for part in curve if part.images]
    assert [part.accuracy.value for part in filled if part.accuracy] == pytest.approx(accuracy.tolist())
    assert [part.confidence for part in filled] == pytest.approx(confidence.tolist())
    assert sum(part.images for part in curve) == 5000


def test_a_bin_includes_its_upper_end_and_the_first_bin_0() -> None:
    curve = reliability(np.array([0.0, 0.5, 0.625, 1.0]), np.array([False, True, True, True]), 2, 0.95)
    assert curve == (
        ReliabilityBin(lower=0, upper=0.5, images=2, confidence=0.25, accuracy=curve[0].accuracy),
        ReliabilityBin(lower=0.5, upper=1, images=2, confidence=0.8125, accuracy=curve[1].accuracy),
    )
    assert [part.accuracy.value for part in curve if part.accuracy] == [0.5, 1.0]


def test_calibration_errors_of_two_bins() -> None:
    """Three images at 0.9, two of them right; one at 0.3, right: distances 0.2333 and 0.7."""
    curve = reliability(np.array([0.9, 0.9, 0.9, 0.3]), np.array([True, True, False, True]), 10, 0.95)
    assert calibration_errors(curve) == pytest.approx((0.75 * (0.9 - 2 / 3) + 0.25 * 0.7, 0.7))
    assert calibration_errors(reliability(np.array([]), np.array([], bool), 10, 0.95)) == (0.0, 0.0)


def test_an_empty_bin_has_no_accuracy() -> None:
    curve = reliability(np.array([0.9]), np.array([True]), 3, 0.95)
    assert [(part.images, part.confidence, part.accuracy is None) for part in curve] == [
        (0, None, True),
        (0, None, True),
        (1, 0.9, False),
    ]


def test_coverage_equals_a_query_on_float32_probabilities() -> None:
    probability, right = answers(3000)
    in_file = probability.astype(np.float32)
    points = coverage(probability, right, 0.95)
    assert [point.threshold for point in points] == sorted(point.threshold for point in points)
    assert set(ROUND_THRESHOLDS) <= {point.threshold for point in points}
    for point in points:
        taken = in_file >= np.float32(point.threshold)
        assert (point.taken, point.to_human) == (taken.sum(), (~taken).sum())
        assert point.coverage == pytest.approx(taken.mean())
        assert point.accuracy is None or point.accuracy.value == pytest.approx(right[taken].mean())


def test_coverage_of_three_answers() -> None:
    points = coverage(np.array([0.4, 0.75, 0.75]), np.array([False, True, False]), 0.95)
    by_threshold = {point.threshold: point for point in points}
    assert sorted(by_threshold) == [0.0, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99]
    assert by_threshold[0.7].model_dump() == {
        "threshold": 0.7, "taken": 2, "to_human": 1, "coverage": pytest.approx(2 / 3),
        "accuracy": {"value": 0.5, "low": pytest.approx(0.0945, abs=1e-4), "high": pytest.approx(0.9055, abs=1e-4)},
    }  # fmt: skip
    assert (by_threshold[0.8].taken, by_threshold[0.8].accuracy) == (0, None)
    assert coverage(np.array([]), np.array([], bool), 0.95) == ()

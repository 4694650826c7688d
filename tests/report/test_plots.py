"""Where the marks and ticks of the report's plots go."""

import numpy as np
import pytest
from evaluation_data import curve_of, points_of

from batchland.evaluation.calibration import ROUND_THRESHOLDS
from batchland.report.plots import coverage_plot, reliability_plot


@pytest.mark.parametrize(
    ("right", "ticks"),
    [
        (0.99, ["95%", "96%", "97%", "98%", "99%", "100%"]),
        (0.85, ["80%", "85%", "90%", "95%", "100%"]),
        (0.75, ["70%", "80%", "90%", "100%"]),
        (0.45, ["40%", "60%", "80%", "100%"]),
        (0.1, ["0%", "20%", "40%", "60%", "80%", "100%"]),
    ],
)
def test_the_axis_of_accuracy_has_round_ticks(right: float, ticks: list[str]) -> None:
    """Answers with the same confidence, of which the share `right` is correct."""
    curve = points_of(np.full(100, 0.9, np.float32), np.arange(100) < 100 * right)
    assert [tick.text for tick in coverage_plot(curve, ()).ticks_y] == ticks


def test_overlapping_threshold_marks_are_left_out() -> None:
    """5% of the images have a confidence above 0.9, so the marks of 0.95 and 0.99 would overlap that of 0.9."""
    probability = np.r_[np.linspace(0.3, 0.9, 190), np.linspace(0.91, 1, 10)].astype(np.float32)
    plot = coverage_plot(points_of(probability, np.ones(200, bool)), ROUND_THRESHOLDS)
    assert [mark.text for mark in plot.marks] == ["0.5", "0.6", "0.7", "0.8", "0.9"]


def test_bins_say_the_ends_that_their_images_have() -> None:
    """0.4 is a little more than 0.4 as a 32-bit number, so it is in the next bin."""
    curve = curve_of(np.array([0.4, 0.35, 0.99999, 0.02], np.float32), np.array([True, False, True, False]), 15)
    assert [(bar.lower, bar.upper, bar.images) for bar in reliability_plot(curve).bars] == [
        (0.0, 6.666666, 1), (33.333334, 39.999998, 1), (40.0, 46.666664, 1), (93.333334, 100.0, 1),
    ]  # fmt: skip


def test_nearly_all_is_not_100_percent() -> None:
    curve = curve_of(np.full(3000, 0.99996), np.arange(3000) > 0, 15)
    assert [bar.title for bar in reliability_plot(curve).bars] == [
        "3,000 images at 93% to 100%: mean confidence >99.9%, accuracy >99.9%"
    ]


def test_texts_of_one_image() -> None:
    curve = curve_of(np.array([0.85, 0.3, 0.31]), np.array([True, False, True]), 10)
    assert [bar.title.partition(":")[0] for bar in reliability_plot(curve).bars] == [
        "1 image at 20% to 30%",
        "1 image at 30% to 40%",
        "1 image at 80% to 90%",
    ]

"""Averages over classes, compared with scikit-learn; their intervals, with resampling and simulations."""

import numpy as np
import pytest
from evaluation_data import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from batchland.evaluation.averages import average, average_figure, confusion_cells, difference_bounds
from benchmarks.intervals import CASES, coverage

SCORES = {"recall": sk.recall_score, "precision": sk.precision_score, "f1": sk.f1_score}
answers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(images=answers, kind=st.sampled_from(list(SCORES)), weighting=st.sampled_from(["macro", "weighted"]))
def test_averages_equal_scikit_learn_and_lie_in_their_intervals(images, kind, weighting) -> None:
    truth, predicted = np.array(images).T
    cells, _ = confusion_cells(truth, predicted, 5)
    figure = average_figure(kind, weighting, cells, 0.95)
    expected = SCORES[kind](truth, predicted, labels=np.unique(truth), average=weighting, zero_division=0)
    assert figure.value == pytest.approx(expected)
    assert (figure.low is None) == (kind != "recall" and len(truth) < 10 * len(np.unique(truth)))
    if figure.low is not None:
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_intervals_of_many_images_equal_the_bootstrap() -> None:
    truth, probabilities = random_case(5, 2000, accuracy=0.4, seed=1)
    predicted = probabilities.argmax(axis=1)
    support = np.bincount(truth)
    matrix = np.bincount(truth * 5 + predicted, minlength=25).reshape(5, 5)
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.multinomial(row.sum(), row / row.sum(), 4000) for row in matrix], axis=1)  # [4000, 5, 5]
    correct, given = np.diagonal(drawn, axis1=1, axis2=2), drawn.sum(axis=1)
    scores = {"recall": correct / support, "precision": correct / given, "f1": 2 * correct / (support + given)}
    for kind, values in scores.items():
        for weighting, weights in (("macro", np.full(5, 0.2)), ("weighted", support / support.sum())):
            figure = average_figure(kind, weighting, confusion_cells(truth, predicted, 5)[0], 0.95)
            expected = np.quantile(values @ weights, [0.025, 0.975]).tolist()
            assert (figure.low, figure.high) == pytest.approx(expected, abs=0.003)


def test_the_bias_of_small_classes() -> None:
    """Ten images a class, 0.7 of them right, the others spread over 300 classes."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(300), 10)
    found = []
    for _ in range(20):
        predicted = np.where(rng.random(3000) < 0.7, truth, rng.integers(0, 300, 3000))
        found.append(average("precision", "macro", confusion_cells(truth, predicted, 300)[0]))
    excess = np.mean([each.value for each in found]) - (0.7 + 0.3 / 300)
    assert excess == pytest.approx(np.mean([each.bias for each in found]), abs=0.003)


def test_difference_intervals_have_the_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(8), 25)
    covered = 0
    for _ in range(300):
        a = np.where(rng.random(200) < 0.6, truth, rng.integers(0, 8, 200))
        b = np.where(rng.random(200) < 0.3, rng.integers(0, 8, 200), a)
        sides, influence = [], 0.0
        for sign, predicted in ((-1, a), (1, b)):
            cells, cell = confusion_cells(truth, predicted, 8)
            sides.append(average("f1", "macro", cells))
            influence = influence + sign * sides[-1].influence[cell]
        low, high = difference_bounds(*sides, truth, influence, 0.95)
        covered += low <= (0.7 * 0.65 + 0.3 / 8) - 0.65 <= high  # by symmetry, F1 is the accuracy
    assert covered >= 275


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_coverage_by_simulation(case) -> None:
    """At 95%: at least 87% in every case, of the true figure; the figure itself always lies in its interval."""
    for name, result in coverage(case, repeats=200, seed=1).items():
        assert result.contains_figure == 1, name
        assert result.covered is None or result.covered >= 0.87, name

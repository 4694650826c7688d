"""Promises about accepted answers: how they are read, when one is given, and how often it is broken."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import cells, write_arrays

from batchland.errors import UsageError
from batchland.evaluation.counts import ScoreCounts
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.promises import accept_rule, fewest_images, guarantee, parse_promise
from batchland.models.card import class_names
from batchland.report.findings import promise_lines
from batchland.report.write import write_report


@pytest.mark.parametrize("text", ["error <= 2%", "error<=0.02", " error < 2 % "])
def test_promises_are_read(text: str) -> None:
    assert parse_promise(text).limit == pytest.approx(0.02)


@pytest.mark.parametrize(
    "text", ["error", "error >= 2%", "accuracy <= 2%", "error <= 0", "error <= 100%", "error <= ."]
)
def test_other_promises_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="must be error <= NUMBER"):
        parse_promise(text)


def test_too_few_images_promise_nothing() -> None:
    assert fewest_images(0.02, 0.05) == 149  # 0.98**149 < 0.05
    probability = np.linspace(0.5, 1, 148)
    assert accept_rule(cells(probability, np.ones(148, bool)), 0.02, 0.05) is None


def test_images_without_a_mistake_are_all_accepted() -> None:
    probability = np.linspace(0.5, 1, 400)
    rule = accept_rule(cells(probability, np.ones(400, bool)), 0.02, 0.05)
    assert rule is not None
    assert (rule.threshold, rule.accepted, rule.wrong, rule.coverage) == (0.5, 400, 0, 1.0)


def test_mistakes_below_a_probability_are_not_accepted() -> None:
    probability = np.linspace(0, 1, 2001)
    rule = accept_rule(cells(probability, probability > 0.5), 0.02, 0.05)
    assert rule is not None
    assert 0.49 < rule.threshold < 0.5
    assert rule.wrong / rule.accepted < 0.02


def test_each_class_has_its_own_rule() -> None:
    counts = ScoreCounts()
    rng = np.random.default_rng(0)
    for number, images, good in ((0, 2000, True), (1, 2000, False), (2, 50, True)):
        scores = rng.uniform(0.5, 1, images).astype(np.float32)
        counts.add(np.full(images, number), scores, np.full(images, good))
    found = guarantee(counts.cells, parse_promise("error <= 5%"), class_names(["a", "b", "c"]), 0.95)
    assert found.rule is None  # every second answer is wrong, at any threshold
    assert [(rule.label, rule.accepted) for rule in found.per_class] == [("a", 2000)]


@pytest.mark.parametrize("images", [300, 2000])
def test_promises_are_kept(images: int) -> None:
    """300 test sets of a calibrated model; the error rate above t is the mean of 1 - p there."""
    rng = np.random.default_rng(images)
    population = np.sort(rng.beta(4, 1, 200_000))[::-1]
    risk = np.cumsum(1 - population) / np.arange(1, len(population) + 1)
    broken = given = 0
    for _ in range(300):
        probability = rng.beta(4, 1, images)
        rule = accept_rule(cells(probability, rng.random(images) < probability), 0.1, 0.05)
        if rule:
            given += 1
            broken += risk[np.searchsorted(-population, -rule.threshold) - 1] > 0.1
    assert broken <= 15
    assert given >= 100


def test_printed_thresholds_accept_the_printed_number_of_answers(tmp_path: Path) -> None:
    """With six digits, 0.900268, none of the first 100 would be accepted."""
    sure = np.array([0.9002678] * 100 + [0.95] * 100, np.float32)
    names = [f"{number}.jpg" for number in range(200)]
    predictions = write_arrays(tmp_path / "p.parquet", class_names(["a", "b"]), names, np.c_[sure, 1 - sure])
    (tmp_path / "l.csv").write_text("image,label\n" + "".join(f"{name},a\n" for name in names))
    evaluation = evaluate(predictions, tmp_path / "l.csv", EvaluateOptions(promise=("error <= 5%",)))
    assert [line.partition(":")[2].partition(";")[0] for line in promise_lines(evaluation.summary)] == [
        " accept answers of at least 0.9002678: 100.0% of the labelled images, 0 of 200 wrong"
    ]
    page = write_report(evaluation, tmp_path / "report").html.read_text()
    assert '<td>all</td><td class="number">0.9002678</td><td class="number">200 (100.0%)</td>' in page

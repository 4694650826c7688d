"""How often the intervals of class averages cover the true figure, by simulation. Prints a Markdown table.

python -m benchmarks.intervals --repeats 1000
"""

import argparse
import itertools
import time
from typing import NamedTuple

import numpy as np

from batchland.evaluation.averages import Cells, average_figure

FIGURES = tuple(itertools.product(("macro", "weighted"), ("recall", "precision", "f1")))
CONFUSED_WITH = 6
"""Classes that a class is confused with."""


class Case(NamedTuple):
    """A made-up model and test set."""

    classes: int
    images: int
    """Per class; the mean where sizes are uneven."""
    accuracy: float
    """Mean of the classes' accuracies, which differ by a beta distribution."""
    uneven: bool
    """Whether class sizes have a geometric distribution."""

    def __str__(self) -> str:
        return f"{self.classes}x{self.images}-{self.accuracy}{'-uneven' * self.uneven}"


class Coverage(NamedTuple):
    """What became of the intervals of one figure."""

    true: float
    mean: float
    """Of the figure over the test sets."""
    covered: float | None
    """Share of the test sets with an interval that contains the true figure; None if there are no intervals."""
    contains_figure: float
    """Share of the intervals that hold their own figure."""
    width: float | None


CASES = tuple(
    Case(classes, images, accuracy, uneven)
    for accuracy, uneven in ((0.75, False), (0.95, False), (0.75, True))
    for classes in (5, 20, 100, 1000)
    for images in (1, 2, 5, 10, 30, 100)
)


def coverage(case: Case, repeats: int, seed: int = 0) -> dict[str, Coverage]:
    """Draw test sets from one model and count, by figure."""
    rng = np.random.default_rng(seed)
    classes = case.classes
    others = min(classes - 1, CONFUSED_WITH)
    certainty = 6 if case.accuracy < 0.9 else 20
    accuracy = rng.beta(case.accuracy * certainty, (1 - case.accuracy) * certainty, classes).clip(0.01, 0.995)
    spread = rng.dirichlet(np.full(others, 0.7), classes) * (1 - accuracy)[:, None]
    shares = np.column_stack([accuracy, spread])  # [classes, itself and others]
    steps = np.stack([rng.choice(np.arange(1, classes), others, replace=False) for _ in range(classes)])
    predicted = np.column_stack([np.zeros(classes, int), steps]) + np.arange(classes)[:, None]
    predicted %= classes
    support = rng.geometric(1 / case.images, classes) if case.uneven else np.full(classes, case.images)
    truth = np.repeat(np.arange(classes), others + 1)
    true = _figures(Cells(truth, predicted.ravel(), (support[:, None] * shares).ravel(), classes))
    found: dict[str, list] = {name: [] for name in true}
    for _ in range(repeats):
        images = rng.multinomial(support, shares).ravel()
        some = images > 0
        cells = Cells(truth[some], predicted.ravel()[some], images[some], classes)
        for weighting, kind in FIGURES:
            found[f"{weighting}_{kind}"].append(average_figure(kind, weighting, cells, 0.95))
    return {name: _summary(true[name], figures) for name, figures in found.items()}


def _figures(cells: Cells) -> dict[str, float]:
    """The figures of expected counts, which need not be whole."""
    support = np.bincount(cells.truth, cells.images, cells.classes)
    given = np.bincount(cells.predicted, cells.images, cells.classes)
    hit = cells.truth == cells.predicted
    correct = np.bincount(cells.truth[hit], cells.images[hit], cells.classes)
    values = {"recall": correct / support, "precision": correct / given, "f1": 2 * correct / (support + given)}
    weights = {"macro": np.full(cells.classes, 1 / cells.classes), "weighted": support / support.sum()}
    return {f"{weighting}_{kind}": float(weights[weighting] @ values[kind]) for weighting, kind in FIGURES}


def _summary(true: float, figures: list) -> Coverage:
    mean = float(np.mean([figure.value for figure in figures]))
    bounds = np.array([(each.low, each.value, each.high) for each in figures if each.low is not None])
    if not len(bounds):
        return Coverage(true, mean, None, 1.0, None)
    low, value, high = bounds.T
    return Coverage(
        true,
        mean,
        float(((low <= true) & (true <= high)).mean()),
        float(((low <= value) & (value <= high)).mean()),
        float((high - low).mean()),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    started = time.perf_counter()
    names = [f"{weighting} {kind}" for weighting, kind in FIGURES if (weighting, kind) != ("weighted", "recall")]
    print(f"| classes | images a class | accuracy | {' | '.join(names)} |")
    print(f"| ---: | ---: | ---: |{' ---: |' * len(names)}")
    low, outside = 1.0, 0
    for case in CASES:
        found = coverage(case, repeats)
        cells = []
        for name in names:
            result = found[name.replace(" ", "_")]
            outside += result.contains_figure < 1
            low = min(low, 1.0 if result.covered is None else result.covered)
            text = "none" if result.covered is None else f"{result.covered:.1%} (±{result.width / 2:.1%})"
            cells.append(text)
        images = f"{case.images}{', uneven' * case.uneven}"
        print(f"| {case.classes:,} | {images} | {case.accuracy:.0%} | {' | '.join(cells)} |", flush=True)
    print(f"\nLowest coverage: {low:.1%}. Cases with an interval that does not contain its own figure: {outside}.")
    print(f"{repeats} test sets a case, {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()

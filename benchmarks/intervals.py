"""How often the intervals of class averages, areas under curves and calibration errors cover the true figure.

By simulation. Prints one of three Markdown tables.

python -m benchmarks.intervals averages --repeats 1000
python -m benchmarks.intervals areas --repeats 300
python -m benchmarks.intervals calibration --repeats 300
"""

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from batchland.evaluation.averages import Cells, average_figure
from batchland.evaluation.calibration import bins_of, calibration_error, equal_counts
from batchland.evaluation.counts import ScoreCells, Sums
from batchland.evaluation.curves import ClassCurve, class_curve, macro_figures
from batchland.evaluation.intervals import Floats, Ints
from batchland.evaluation.schema import Figure

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


class Covered:
    """Counts intervals of one figure that hold the true value."""

    def __init__(self) -> None:
        self.sets = self.hits = 0
        self.widths = 0.0

    def add(self, figure: Figure | None, true: float) -> None:
        """Count the interval, if the figure has one."""
        if figure is None or figure.low is None or figure.high is None:
            return
        assert figure.low <= figure.value <= figure.high
        self.sets += 1
        self.hits += figure.low - 1e-3 * (figure.high - figure.low) <= true <= figure.high
        self.widths += figure.high - figure.low

    @property
    def share(self) -> float:
        """Share of the intervals that hold the true value; 1 without intervals."""
        return self.hits / self.sets if self.sets else 1.0

    def __str__(self) -> str:
        return f"{self.share:.1%} (±{self.widths / self.sets / 2:.1%})" if self.sets else "none"


AREAS = ("macro average precision", "macro AUROC", "average precision", "AUROC")
AREA_CASES = tuple(itertools.product((False, True), (2, 3, 5, 20, 50, 200), (3, 10, 50, 400)))
"""Hard images, classes, images per class."""
CELLS = 2e7
"""Probabilities of all test sets of a large case together; at least 20 test sets."""


def area_coverage(*, hard: bool, classes: int, images: int, repeats: int, seed: int = 0) -> dict[str, Covered]:
    """Draw test sets of normal scores from one model; by figure.

    The classes are unequally difficult. hard: images are, too, and each class is confused with the next one.
    """
    rng = np.random.default_rng(seed)
    distance = rng.normal(1.5 + 0.4 * np.log(classes), 0.5, classes).clip(0.5)

    def draw(size: int) -> dict[int, ClassCurve]:
        truth = np.repeat(np.arange(classes), size)
        rows = np.arange(len(truth))
        scores = rng.standard_normal((len(truth), classes), np.float32)
        clear = np.exp(rng.normal(-0.18, 0.6, len(truth))) if hard else np.ones(len(truth))
        scores[rows, truth] += distance[truth] * clear
        scores[rows, (truth + 1) % classes] += 1.5 * hard
        scores *= 2 * clear[:, None]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        return {number: _curve(scores[:, number], truth == number) for number in range(classes)}

    true = draw(max(5 * images, 40_000 // classes))
    areas = {name: {n: getattr(c, name).value for n, c in true.items()} for name in ("average_precision", "auroc")}
    found: dict[str, Covered] = defaultdict(Covered)
    for _ in range(round(min(max(CELLS / (classes**2 * images), 20), repeats))):
        curves = draw(images)
        macro = macro_figures(curves, 0.95)
        for title, name in zip(AREAS[2:], areas, strict=True):
            found[f"macro {title}"].add(macro[f"macro_{name}"], float(np.mean([*areas[name].values()])))
            for number, curve in curves.items():
                found[title].add(getattr(curve, name).figure(0.95), areas[name][number])
    return found


def _curve(scores: Floats, hits: Ints) -> ClassCurve:
    low, cell = np.unique(scores, return_inverse=True)
    images, right = (np.bincount(cell, weights, len(low)).astype(np.int64) for weights in (None, hits))
    cells = ScoreCells(np.zeros(len(low), np.int64), low, low.astype(np.float64), images, right)
    curve = class_curve(cells, int(hits.sum()), int((~hits).sum()))
    assert curve is not None
    return curve


MODELS: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda p: p,
    "5 points too high": lambda p: np.clip(p - 0.05, 0, 1),
    "15% too high": lambda p: 0.85 * p,
    "too high or too low by 10 points": lambda p: np.clip(p + 0.1 * np.sign(np.sin(47 * p)), 0, 1),
}
"""Accuracy of images by their confidence."""
SPREADS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "spread out": lambda rng, size: 0.1 + 0.9 * rng.beta(4, 1, size),
    "near 1": lambda rng, size: 1 - rng.beta(0.5, 12, size),
}
"""Confidences."""
GROUPS = ("15 bins", "15 bins of equal counts", "2 classes", "50 classes", "200 classes")
CALIBRATION_CASES = tuple(itertools.product(MODELS, SPREADS, (30, 200, 1000, 10000)))


def calibration_coverage(model: str, spread: str, images: int, repeats: int) -> dict[str, Covered]:
    """Draw test sets; by the groups of the calibration error."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[Floats, Floats, dict[str, Ints]]:
        confidence = SPREADS[spread](rng, size).astype(np.float32).astype(np.float64)
        groups = {"15 bins": bins_of(confidence, 15)}
        low, cell, counts = np.unique(confidence, return_inverse=True, return_counts=True)
        zeros = np.zeros(len(low), np.int64)
        groups[GROUPS[1]] = equal_counts(ScoreCells(zeros, low.astype(np.float32), low, counts, zeros), 15)[cell]
        for name in GROUPS[2:]:
            groups[name] = rng.integers(int(name.split()[0]), size=size)
        return confidence, MODELS[model](confidence), groups

    def sums(confidence: Floats, right: Floats, group: Ints) -> tuple[Ints, Floats, Floats]:
        return np.bincount(group), np.bincount(group, confidence), np.bincount(group, right)

    confidence, accuracy, groups = draw(500_000)
    true = {}
    for name, group in groups.items():
        _, stated, right = sums(confidence, accuracy, group)
        gap = right - stated
        true[name] = float(abs(gap.sum()) if "classes" in name else np.abs(gap).sum()) / len(confidence)
    found: dict[str, Covered] = defaultdict(Covered)
    for _ in range(repeats):
        confidence, accuracy, groups = draw(images)
        right = rng.random(images) < accuracy
        for name, group in groups.items():
            total = Sums(int(group.max()) + 1)
            total.add(group, confidence, right)
            found[name].add(calibration_error(total, confidence=0.95, resamples=200, seed=0), true[name])
    return found


def areas_table(repeats: int) -> float:
    """Print it. Returns the lowest coverage."""
    print(f"| images | classes | images a class | {' | '.join(AREAS)} |\n| --- | ---: | ---: |{' ---: |' * len(AREAS)}")
    low = 1.0
    for hard, classes, images in AREA_CASES:
        found = area_coverage(hard=hard, classes=classes, images=images, repeats=repeats)
        low = min(low, *(each.share for each in found.values()))
        sets = found["macro AUROC"].sets
        text = " | ".join(str(found[name]) for name in AREAS)
        print(f"| {'hard' if hard else 'easy'}, {sets} test sets | {classes} | {images} | {text} |", flush=True)
    return low


def calibration_table(repeats: int) -> float:
    """Print it. Returns the lowest coverage."""
    print(f"| confidence is | and | images | {' | '.join(GROUPS)} |\n| --- | --- | ---: |{' ---: |' * len(GROUPS)}")
    low = 1.0
    for model, spread, images in CALIBRATION_CASES:
        found = calibration_coverage(model, spread, images, repeats)
        low = min(low, *(each.share for each in found.values()))
        text = " | ".join(str(found[name]) for name in GROUPS)
        print(f"| {model} | {spread} | {images:,} | {text} |", flush=True)
    return low


def averages_table(repeats: int) -> float:
    """Print it. Returns the lowest coverage."""
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
    print(f"\nCases with an interval that does not contain its own figure: {outside}.")
    return low


def main() -> None:
    """Print a table."""
    tables = {"averages": averages_table, "areas": areas_table, "calibration": calibration_table}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=tables)
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    started = time.process_time()
    low = tables[options.table](options.repeats)
    print(
        f"\nLowest coverage: {low:.1%}. {options.repeats} test sets a case, {time.process_time() - started:.0f} CPU s."
    )


if __name__ == "__main__":
    main()

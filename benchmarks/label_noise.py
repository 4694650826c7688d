"""How many right labels the model of label noise suspects, for models whose probabilities it does not describe.

    python -m benchmarks.label_noise [FIRST_SEED]

Simulated: images of which the first 5 choices are kept; a class's logits are normal and shifted for the true class.
`sharper`: the logits of all images, or of half of them, are multiplied, so the model is too confident there. `hard`:
for this share of the images, the model gives the logits of another class, although the label is right. OTHERS are
models of other kinds. FIRST_SEED: of the simulations, 1000 by default; the settings of the model of label noise were
chosen on 0 to 9. Writes benchmarks/results/label_noise.md.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.label_errors import LabelledChoices, fit_label_noise
from benchmarks.machine import RESULTS, describe_machine

REPEATS: Final = {1500: 10, 20_000: 2}
"""Number of images -> simulations."""
TOP_K: Final = 5


class Case(NamedTuple):
    """A kind of model, and the share of wrong labels."""

    classes: int
    shift: float
    sharper: float
    half: bool
    hard: float
    planted: float


CASES: Final = (
    Case(10, 2.5, 1, False, 0, 0), Case(10, 2.5, 1, False, 0, 0.02), Case(10, 2.5, 2, False, 0, 0),
    Case(10, 2.5, 2, False, 0, 0.02), Case(10, 2.5, 3, True, 0, 0), Case(10, 2.5, 3, True, 0, 0.02),
    Case(50, 3, 1, False, 0, 0), Case(50, 3, 1, False, 0, 0.02), Case(50, 3, 2, True, 0, 0),
    Case(50, 3, 2, True, 0, 0.02), Case(50, 3, 1, False, 0.01, 0), Case(50, 3, 1, False, 0.03, 0),
    Case(50, 3, 1, False, 0.03, 0.02), Case(50, 2, 1, False, 0, 0), Case(50, 2, 1, False, 0, 0.05),
    Case(50, 2, 3, True, 0, 0), Case(50, 2, 3, True, 0.03, 0), Case(50, 2, 3, True, 0, 0.05),
    Case(10, 2.5, 12, True, 0, 0), Case(10, 4, 1, False, 0.03, 0), Case(10, 4, 1, False, 0.03, 0.02),
    Case(10, 4, 3, True, 0, 0.02), Case(10, 4, 3, True, 0.03, 0.02), Case(4, 3, 3, True, 0.03, 0),
    Case(4, 3, 3, True, 0.03, 0.03), Case(200, 3, 3, True, 0.03, 0), Case(200, 4, 3, True, 0.03, 0.02),
)  # fmt: skip


Array = npt.NDArray[Any]
Found = tuple[float, int, int, int, int, float]
"""Accuracy, mistakes, suspects, those with a wrong label, wrong labels, and expected wrong ones among suspects."""


def one_confusion(rng: np.random.Generator, images: int, classes: int) -> tuple[Array, Array]:
    true = rng.integers(0, classes, images)
    return true, _logits(rng, np.where((true == 0) & (rng.random(images) < 0.3), 1, true), classes, 5, 4)


def next_class(rng: np.random.Generator, images: int, classes: int) -> tuple[Array, Array]:
    true = rng.integers(0, classes, images)
    return true, _logits(rng, np.where(rng.random(images) < 0.1, (true + 1) % classes, true), classes, 5, 4)


def heavy_tails(rng: np.random.Generator, images: int, classes: int) -> tuple[Array, Array]:
    true = rng.integers(0, classes, images)
    logits = rng.standard_t(2, (images, classes))
    logits[np.arange(images), true] += 4
    return true, logits * 2


def something_else(rng: np.random.Generator, images: int, classes: int) -> tuple[Array, Array]:
    true = rng.integers(0, classes, images)
    logits = _logits(rng, true, classes, 4, 4)
    other = rng.random(images) < 0.03
    logits[other] = _logits(rng, rng.integers(0, classes, images), classes, 5, 3)[other]
    return true, logits


def almost_always_right(rng: np.random.Generator, images: int, classes: int) -> tuple[Array, Array]:
    true = rng.integers(0, classes, images)
    return true, _logits(rng, true, classes, 5, 3)


OTHERS: Final[tuple[tuple[str, Callable[[np.random.Generator, int, int], tuple[Array, Array]], float], ...]] = (
    ("30% of one class look like another", one_confusion, 0),
    ("30% of one class look like another", one_confusion, 0.02),
    ("10% of each class look like the next", next_class, 0),
    ("10% of each class look like the next", next_class, 0.02),
    ("heavy-tailed logits (Student's t, 2 degrees of freedom)", heavy_tails, 0),
    ("heavy-tailed logits (Student's t, 2 degrees of freedom)", heavy_tails, 0.02),
    ("3% of the images are something else, confidently classified", something_else, 0),
    ("3% of the images are something else, confidently classified", something_else, 0.02),
    ("almost always right", almost_always_right, 0),
    ("almost always right", almost_always_right, 0.02),
    ("almost always right", almost_always_right, 0.1),
)
"""Description, function that gives true classes and logits, and share of wrong labels."""
OTHERS_REPEATS: Final = {300: 10, 1000: 10, 5000: 4}
"""Number of images -> simulations."""


def _logits(rng: np.random.Generator, looks_like: Array, classes: int, shift: float, scale: float) -> Array:
    logits = rng.normal(0, 1, (len(looks_like), classes))
    logits[np.arange(len(looks_like)), looks_like] += shift
    return logits * scale


def simulate(case: Case, images: int, seed: int) -> Found:
    """One simulation of a case."""
    rng = np.random.default_rng(seed)
    rows = np.arange(images)
    true = rng.integers(0, case.classes, images)
    logits = rng.normal(0, 1, (images, case.classes))
    logits[rows, true] += case.shift
    logits *= case.shift
    logits[: images // 2 if case.half else images] *= case.sharper
    hard = rng.random(images) < case.hard
    other = (true + rng.integers(1, case.classes, images)) % case.classes
    logits[hard, other[hard]] += case.shift**2 * 2
    return plant_and_find(rng, true, logits, case.planted)


def plant_and_find(rng: np.random.Generator, true: Array, logits: Array, planted: float) -> Found:
    """Plant wrong labels, fit the model of label noise and count."""
    images, classes = logits.shape
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    wrong = rng.random(images) < planted
    label = np.where(wrong, (true + rng.integers(1, classes, images)) % classes, true)
    order = np.argsort(-probabilities, axis=1)[:, :TOP_K]
    choices = np.take_along_axis(probabilities, order, axis=1).astype(np.float32)
    is_label = order == label[:, None]
    rank = np.where(is_label.any(axis=1), is_label.argmax(axis=1) + 1, 0)
    of_label = probabilities[np.arange(images), label].astype(np.float32)
    sample = LabelledChoices(choices, rank, of_label, label, order[:, 0])
    noise = fit_label_noise(sample, classes)
    mistake = rank != 1
    found = noise.error_probabilities(sample.where(mistake))
    suspect = found >= noise.suspected_from
    right = int((wrong[mistake] & suspect).sum())
    expected = float(found[suspect].sum())
    return float((rank == 1).mean()), int(mistake.sum()), int(suspect.sum()), right, int(wrong.sum()), expected


def main() -> None:
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    lines = [
        f"# Suspected label errors of models with other mistakes than assumed, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.label_noise {first}`: {describe_machine()}.",
        "",
        "Means of the simulations; benchmarks/label_noise.py explains the columns. `expected`: the report's estimate",
        "of the wrong labels among the suspects.",
    ]
    for images, repeats in REPEATS.items():
        lines += [
            "",
            f"## {images:,} images, {repeats} simulations",
            "",
            "| classes | accuracy | sharper | hard | wrong labels | mistakes | suspects | of them wrong | expected |",
            "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for case in CASES:
            accuracy, mistakes, suspects, right, wrong, expected = np.mean(
                [simulate(case, images, first + number) for number in range(repeats)], axis=0
            )
            sharper = "no" if case.sharper == 1 else f"{'half' if case.half else 'all'}, {case.sharper:g} times"
            lines.append(
                f"| {case.classes} | {accuracy:.0%} | {sharper} | {case.hard:.0%} | {wrong:.1f} | {mistakes:.0f} | "
                f"{suspects:.1f} | {right:.1f} | {expected:.1f} |"
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        "## Models of other kinds",
        "",
        "`lists`: simulations with a suspect. The other figures are means of all simulations.",
        "",
        "| model | classes | images | wrong labels | mistakes | lists | suspects | of them wrong | expected |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, make, planted in OTHERS:
        for classes in (3, 10):
            for images, repeats in OTHERS_REPEATS.items():
                generators = map(np.random.default_rng, range(first, first + repeats))
                rows = np.array([plant_and_find(rng, *make(rng, images, classes), planted) for rng in generators])
                _, mistakes, suspected, right, wrong, expected = rows.mean(axis=0)
                lines.append(
                    f"| {name} | {classes} | {images:,} | {wrong:.1f} | {mistakes:.1f} | "
                    f"{np.count_nonzero(rows[:, 2])} of {repeats} | {suspected:.1f} | {right:.1f} | {expected:.1f} |"
                )
                print(lines[-1], flush=True)
    (RESULTS / "label_noise.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

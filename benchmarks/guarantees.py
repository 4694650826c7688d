"""How often guarantees are broken: `python -m benchmarks.guarantees promises|classes|sets|slices|power|plans`.

promises: thresholds that promise an error rate, from 1,000 labelled sets of each kind and size. classes: the same for
the thresholds of single classes, all together. sets: prediction sets
of 90%, from 1,000 splits of each kind and size. slices: weak slices of two columns among a million images, planted and
not. power: the same by drawing only the counts of the slices, 60 times with planted slices and 100 times without.
plans: intervals of the accuracy from 500 label plans. All are simulated; the true values are known.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from batchland.evaluation import label_plan as plans
from batchland.evaluation.calibrate import conformal_threshold
from batchland.evaluation.counts import ScoreCells, ScoreCounts
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.pair_slices import (
    ANY_LEVEL,
    SLICE_LEVEL,
    PairTally,
    benjamini_hochberg,
    p_values,
    size_weights,
)
from batchland.evaluation.promises import Promise, accept_rule, guarantee
from batchland.models.card import class_names
from batchland.models.decisions import PredictionSets

Draw = Callable[[np.random.Generator, int], np.ndarray]
Rate = Callable[[np.ndarray], np.ndarray]

PROMISES: dict[str, tuple[Draw, Rate]] = {
    "calibrated": (lambda rng, n: rng.beta(4, 1, n), lambda p: 1 - p),
    "overconfident": (lambda rng, n: rng.beta(8, 0.6, n), lambda p: np.minimum(1, (1 - p) * 1.5 + 0.012)),
    "flat at limit": (lambda rng, n: rng.random(n), lambda p: np.full(len(p), 0.0205)),
    "step": (lambda rng, n: rng.random(n), lambda p: np.where(p > 0.6, 0.015, 0.3)),
    "top is bad": (lambda rng, n: rng.beta(4, 1, n), lambda p: np.where(p > 0.98, 0.2, (1 - p) * 0.3)),
    "weak": (lambda rng, n: rng.beta(2, 2, n), lambda p: 1 - p),
}
"""Distribution of the probabilities, and error rate by probability."""
PLANS: dict[str, tuple[Draw, Rate]] = {
    "calibrated, sure": (lambda rng, n: np.clip(rng.beta(1.2, 0.12, n), 0.02, 0.999), lambda p: p),
    "calibrated, 80%": (lambda rng, n: rng.beta(4, 1, n), lambda p: p),
    "bimodal": (
        lambda rng, n: np.where(rng.random(n) < 0.75, rng.uniform(0.97, 1, n), rng.uniform(0.3, 0.8, n)),
        lambda p: p,
    ),
    "overconfident": (lambda rng, n: np.clip(rng.beta(1.2, 0.15, n), 0.02, 0.9999), lambda p: 0.75 * p + 0.1),
    "useless": (lambda rng, n: rng.beta(4, 1, n), lambda p: np.full(len(p), 0.8)),
    "99% right": (lambda rng, n: 1 - rng.beta(1, 99, n), lambda p: p),
}
"""Distribution of the probabilities, and accuracy by probability."""


def promises(runs: int) -> Iterator[str]:
    yield "| model | images | limit | given | broken | images accepted | of the best threshold |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, (draw, rate) in PROMISES.items():
        population = np.sort(draw(np.random.default_rng(9), 400_000))
        risk = (np.cumsum(rate(population)[::-1]) / np.arange(1, len(population) + 1))[::-1]
        for images in (200, 1000, 5000, 20_000):
            for limit in (0.02, 0.05, 0.1):
                rng, broken, shares = np.random.default_rng(1), 0, []
                for _ in range(runs):
                    probability = np.sort(draw(rng, images))
                    rule = accept_rule(_cells(probability, rng.random(images) >= rate(probability)), limit, 0.05)
                    if rule:
                        at = min(int(np.searchsorted(population, rule.threshold)), len(population) - 1)
                        broken += risk[at] > limit
                        shares.append(1 - at / len(population))
                good = risk <= limit
                best = 1 - int(np.argmax(good)) / len(population) if good.any() else 0.0
                accepted = f"{np.mean(shares):.1%}" if shares else ""
                yield f"| {name} | {images} | {limit:.0%} | {len(shares)} | {broken} | {accepted} | {best:.1%} |"


CLASSES = {"calibrated": 0.4, "overconfident": 0.3, "step": 0.15, "flat at limit": 0.1, "weak": 0.049, "rare": 0.001}
"""Share of the images of each predicted class. `rare` is calibrated."""


def class_promises(runs: int) -> Iterator[str]:
    """Classes whose answers are those of PROMISES. A set is broken if any of its classes has too many errors."""
    names = class_names(list(CLASSES))
    models = [PROMISES.get(name, PROMISES["calibrated"]) for name in CLASSES]
    populations = [np.sort(draw(np.random.default_rng(9), 200_000)) for draw, _ in models]
    risks = [
        (np.cumsum(rate(some)[::-1]) / np.arange(1, len(some) + 1))[::-1]
        for some, (_, rate) in zip(populations, models, strict=True)
    ]
    yield "| images | limit | sets with a threshold | broken | thresholds given, by class | classes too small |"
    yield "| ---: | ---: | ---: | ---: | --- | --- |"
    for images in (1000, 5000, 20_000):
        for limit in (0.02, 0.05, 0.1):
            rng, broken, given, small = (
                np.random.default_rng(1),
                0,
                np.zeros(len(names), int),
                np.zeros(len(names), int),
            )
            some = 0
            promise = Promise(f"error <= {limit:.0%}", limit)
            for _ in range(runs):
                sizes = rng.multinomial(images, list(CLASSES.values()))
                counts = ScoreCounts()
                for number, ((draw, rate), size) in enumerate(zip(models, sizes.tolist(), strict=True)):
                    probability = draw(rng, size)
                    hits = rng.random(size) >= rate(probability)
                    counts.add(np.full(size, number), probability.astype(np.float32), hits)
                found = guarantee(counts.cells, promise, names, 0.95)
                small += sizes < found.fewest_images
                at = {name.label: number for number, name in enumerate(names)}
                bad = False
                for rule in found.per_class:
                    number = at[rule.label]
                    given[number] += 1
                    place = int(np.searchsorted(populations[number], rule.threshold))
                    bad |= bool(risks[number][min(place, len(risks[number]) - 1)] > limit)
                some += bool(found.per_class)
                broken += bad
            by_class = ", ".join(
                f"{name} {count}" for name, count in zip(CLASSES, given.tolist(), strict=True) if count
            )
            few = ", ".join(f"{name} {count}" for name, count in zip(CLASSES, small.tolist(), strict=True) if count)
            yield f"| {images} | {limit:.0%} | {some} | {broken} | {by_class or 'none'} | {few or 'none'} |"


def sets(splits: int, coverage: float = 0.9) -> Iterator[str]:
    """Of each split, the labelled images give the threshold, and 5,000 others are covered or not."""
    yield "| model | labelled images | mean coverage | splits from 5% to 95% | classes in a set |"
    yield "| --- | ---: | ---: | --- | ---: |"
    for name, skill in (("good", 2.5), ("fair", 1.5), ("bad", 0.5)):
        truth, probabilities = _answers(np.random.default_rng(2), 40_000, skill)
        true = probabilities[np.arange(len(truth)), truth]
        for images in (50, 200, 1000):
            rng, covered, sizes = np.random.default_rng(1), [], []
            for _ in range(splits):
                at = rng.choice(len(truth), images + 5000, replace=False)
                threshold = conformal_threshold(true[at[:images]], coverage)
                assert threshold is not None
                rule = PredictionSets(coverage=coverage, threshold=threshold, images=images)
                new = at[images:]
                found = probabilities[new] >= np.float32(rule.threshold)
                found[np.arange(len(new)), probabilities[new].argmax(axis=1)] = True  # as prediction_sets does
                covered.append(found[np.arange(len(new)), truth[new]].mean())
                sizes.append(found.sum(axis=1).mean())
            low, high = np.quantile(covered, (0.05, 0.95))
            yield f"| {name} | {images} | {np.mean(covered):.2%} | {low:.1%} to {high:.1%} | {np.mean(sizes):.2f} |"


def _answers(rng: np.random.Generator, images: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """True classes and probabilities of ten classes; overconfident."""
    truth = rng.integers(0, 10, images)
    logits = rng.normal(0, 1, (images, 10))
    logits[np.arange(images), truth] += skill
    exponentials = np.exp(1.5 * logits)
    return truth, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _cells(probability: np.ndarray, hits: np.ndarray) -> ScoreCells:
    low, ones = probability.astype(np.float32), np.ones(len(hits), np.int64)
    return ScoreCells(np.zeros(len(hits), np.int64), low, probability, ones, hits.astype(np.int64))


def slices(images: int = 1_000_000, planted: int = 50, size: int = 500) -> Iterator[str]:
    yield "| accuracy | columns x values | tests | planted, found | others found | in 20 runs without | seconds |"
    yield "| ---: | --- | ---: | --- | --- | ---: | ---: |"
    for accuracy in (0.8, 0.9, 0.95):
        for columns, values in ((2, 50), (2, 100), (4, 30)):
            found, others, seconds, null = [], [], [], 0
            for run in range(23):
                rng = np.random.default_rng(run)
                codes = rng.integers(0, values, (columns, images))
                right = rng.random(images) < accuracy
                weak: set[tuple[str, str]] = set()
                if run < 3:
                    weak = _plant(rng, codes, right, accuracy - 0.1, planted, size)
                start = time.perf_counter()
                result = _tally(codes, right).weak(0.95)
                seconds.append(time.perf_counter() - start)
                if run < 3:
                    pairs = [part.values for part in result.weakest if part.columns == ("c0", "c1")]
                    found.append(len(weak & set(pairs)))
                    others.append(result.found - found[-1])
                else:
                    null += result.found > 0
            hits, false = (", ".join(map(str, each)) for each in (found, others))
            yield (
                f"| {accuracy:.0%} | {columns} x {values} | {result.tested} | {hits} of {planted} | {false} | {null} | "
                f"{np.median(seconds):.2f} |"
            )


def _plant(
    rng: np.random.Generator, codes: np.ndarray, right: np.ndarray, accuracy: float, planted: int, size: int
) -> set[tuple[str, str]]:
    """Give `planted` pairs of values of the first two columns exactly `size` images, of that accuracy."""
    values = int(codes.max()) + 1
    free = np.flatnonzero(rng.random(codes.shape[1]) < 0.5)
    at = iter(rng.permutation(free))
    chosen = [divmod(int(cell), values) for cell in rng.choice(values**2, planted, replace=False)]
    cell = codes[0] * values + codes[1]
    inside = np.isin(cell, [a * values + b for a, b in chosen])
    codes[0, inside] = values  # their images move to a further value
    for a, b in chosen:
        rows = np.array([next(at) for _ in range(size)])
        codes[0, rows], codes[1, rows], right[rows] = a, b, rng.random(size) < accuracy
    return {(str(a), str(b)) for a, b in chosen}


def _tally(codes: np.ndarray, right: np.ndarray) -> PairTally:
    names = [f"c{number}" for number in range(len(codes))]
    tally = PairTally(tuple(names))
    texts = pa.array([str(value) for value in range(int(codes.max()) + 1)])
    for start in range(0, len(right), 65_536):
        part = slice(start, start + 65_536)
        count = len(right[part])
        columns = {name: texts.take(pa.array(row[part])) for name, row in zip(names, codes, strict=True)}
        own = pa.RecordBatch.from_pydict(columns)
        nothing, zeros = np.full(count, np.nan, np.float32), np.zeros(count, np.int64)
        tally.add(
            Outcomes(
                rows=zeros, images=own[names[0]], error_codes=own[names[0]], facts=own, own=own,
                ok=np.ones(count, bool), truth=zeros, predicted=np.where(right[part], 0, 1),
                probability=nothing, margin=nothing, true_rank=zeros, true_probability=nothing,
                squares=nothing.astype(float), complete=np.zeros(count, bool), choices=nothing[:, None],
                chosen=zeros[:, None], has_all=np.zeros(count, bool), log_probabilities=np.zeros((0, 2), np.float16),
            )
        )  # fmt: skip
    return tally


def power(runs: int, null_runs: int, images: int = 1_000_000, planted: int = 50, size: int = 500) -> Iterator[str]:
    """As `slices`, for two columns, with and without the weights of `PairTally`."""
    yield "| accuracy | tests | p-values | all found in | found, mean | least | others, mean | listed without any |"
    yield "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    for accuracy in (0.8, 0.85, 0.9, 0.95):
        for tests in (2500, 10_000):
            rng = np.random.default_rng(1)
            found: dict[str, list[tuple[int, int]]] = {"plain": [], "weighted": []}
            listed = dict.fromkeys(found, 0)
            for run in range(runs + null_runs):
                weak = planted if run < runs else 0
                sizes = rng.multinomial(images - weak * size, np.full(tests, 1 / tests))
                sizes[:weak] = size
                right = rng.binomial(sizes, np.where(np.arange(tests) < weak, accuracy - 0.1, accuracy))
                raw = p_values(sizes, right, int(sizes.sum()), int(right.sum()))
                weights = size_weights(sizes, right.sum() / sizes.sum())
                for name, used in (("plain", raw), ("weighted", raw / weights)):
                    adjusted = benjamini_hochberg(used)
                    reported = (adjusted < SLICE_LEVEL) & (adjusted.min() < ANY_LEVEL)
                    if weak:
                        found[name].append((int(reported[:weak].sum()), int(reported[weak:].sum())))
                    else:
                        listed[name] += bool(reported.any())
            for name, counts in found.items():
                hits, others = np.array(counts).T
                yield (
                    f"| {accuracy:.0%} | {tests:,} | {name} | {np.mean(hits == planted):.0%} | {hits.mean():.1f} | "
                    f"{hits.min()} | {others.mean():.1f} | {listed[name]} of {null_runs} |"
                )


def label_plans(runs: int, images: int = 20_000) -> Iterator[str]:
    yield "| model | labels | accuracy | intervals that hold it | half width | random choice needs | plan says | pays |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for name, (draw, rate) in PLANS.items():
        for budget in (100, 200, 400):
            rng, covered, widths, errors = np.random.default_rng(0), 0, [], []
            for _ in range(runs):
                probability = draw(rng, images).astype(np.float32)
                right = rng.random(images) < rate(probability)
                stratum, labels, plan = plans.allot(probability, budget)
                chosen = np.concatenate(
                    [rng.choice(np.flatnonzero(stratum == i), n, replace=False) for i, n in enumerate(labels)]
                )
                found = plans.estimated_accuracy(stratum[chosen], right[chosen], np.bincount(stratum))
                truth = right.mean()
                covered += (found.low or 0) <= truth <= (found.high or 1)
                widths.append(((found.high or 1) - (found.low or 0)) / 2)
                errors.append(found.value - truth)
            need = truth * (1 - truth) / np.mean(np.square(errors))
            yield (
                f"| {name} | {budget} | {truth:.1%} | {covered / runs:.1%} | {100 * np.mean(widths):.1f} | "
                f"{need:.0f} | {plan.random_labels} | {'yes' if plan.pays else 'no'} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("promises", "classes", "sets", "slices", "power", "plans"))
    given = parser.parse_args()
    found = {
        "promises": lambda: promises(1000),
        "classes": lambda: class_promises(1000),
        "sets": lambda: sets(1000),
        "slices": slices,
        "power": lambda: power(60, 100),
        "plans": lambda: label_plans(500),
    }[given.what]()
    for line in found:
        print(line, flush=True)


if __name__ == "__main__":
    main()

"""How well strangers are detected: methods on the answers and on the features, on the same photos.

python -m benchmarks.strangers --model flowers.onnx --known data/flowers/test --strangers landmarks=data/landmarks \
    --strangers drawn=demo/sample

The known photos are divided in halves, three times: a method knows one half, and must distinguish the other half from
the strangers. For the last columns, each class is left out in turn, and its photos are the strangers. There, and with
--other-head, the answers are those of a logistic regression on the features of the first half.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from batchland import ScoreOptions, score
from batchland.models.decisions import STRANGER, KnownPhotos
from batchland.models.known import different_pictures, distances_within
from batchland.predictions.reader import StoredPredictions
from benchmarks.machine import describe_machine

SPLITS = 3
NEIGHBOURS = (5, 10, 50)
Floats = npt.NDArray[np.floating[Any]]


class Photos(NamedTuple):
    """Scored photos."""

    features: Floats
    """[n, features], of length 1."""
    logs: Floats
    """Logarithms of the probabilities, [n, classes]."""
    labels: npt.NDArray[np.str_]
    """Names of their folders."""

    def take(self, rows: npt.NDArray[Any]) -> "Photos":
        return Photos(*(each[rows] for each in self))


def scored(folder: Path, model: Path) -> Photos:
    """The photos below a folder that can be read."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "p.parquet")
        score(folder, out, ScoreOptions(model=model, features=True, signals=False))
        table = StoredPredictions(out).table(out.name, ["image", "features", "log_probabilities"]).drop_null()
    vectors, logs = (np.stack(table[name].to_numpy()).astype(np.float32) for name in ("features", "log_probabilities"))
    labels = [Path(name).parent.name for name in table["image"].to_pylist()]
    return Photos(vectors, logs, np.array(labels))


# Each method returns how well known each photo is, [n]. Logits are those less their mean, as in predictions.


def probability(_: Photos, photos: Photos) -> Floats:
    return photos.logs.max(axis=1)


def energy(_: Photos, photos: Photos) -> Floats:
    return -photos.logs.mean(axis=1)


def max_logit(_: Photos, photos: Photos) -> Floats:
    return photos.logs.max(axis=1) - photos.logs.mean(axis=1)


def nearest(count: int, *, mean: bool) -> Callable[[Photos, Photos], Floats]:
    """The cosine to the count-th nearest known photo, or the mean of the cosines up to that one."""

    def method(known: Photos, photos: Photos) -> Floats:
        most = min(count, len(known.features))
        cosines = -np.sort(-(photos.features @ known.features.T), axis=1)[:, :most]
        return cosines.mean(axis=1) if mean else cosines[:, -1]

    return method


def mahalanobis(known: Photos, photos: Photos) -> Floats:
    """The distance to the nearest mean of a class, with one covariance, shrunk as scikit-learn's LedoitWolf does."""
    labels, places = np.unique(known.labels, return_inverse=True)
    means = np.stack([known.features[places == place].mean(axis=0) for place in range(len(labels))])
    within = known.features - means[places]
    shrinkage = ledoit_wolf_shrinkage(within, assume_centered=True)
    floor = shrinkage * np.square(within).sum() / within.size  # the variance in every direction
    _, lengths, directions = np.linalg.svd(within, full_matrices=False)
    variances = (1 - shrinkage) * lengths**2 / len(within) + floor
    apart = photos.features[:, None] - means
    along = apart @ directions.T
    rest = np.square(apart).sum(axis=2) - np.square(along).sum(axis=2)
    distances = (np.square(along) / variances).sum(axis=2) + rest / floor
    return -distances.min(axis=1)


def vim(known: Photos, photos: Photos) -> Floats:
    """Virtual-logit matching: energy against the length of what the main components do not explain."""
    middle = known.features.mean(axis=0)
    components = np.linalg.svd(known.features - middle, full_matrices=False)[2]
    main = components[: max(1, min(len(components) // 2, 256))]

    def rest(features: Floats) -> Floats:
        centred = features - middle
        return np.linalg.norm(centred - centred @ main.T @ main, axis=1)

    logits = known.logs - known.logs.mean(axis=1, keepdims=True)
    # The photos that the components were fitted on leave a smaller rest, which only the scale depends on.
    scale = logits.max(axis=1).mean() / max(rest(known.features).mean(), 1e-6)
    return energy(known, photos) - scale * rest(photos.features)


METHODS: dict[str, Callable[[Photos, Photos], Floats]] = {
    "largest probability": probability,
    "MaxLogit": max_logit,
    "energy": energy,
    "kNN, nearest": nearest(1, mean=False),
    **{f"kNN, {k}th": nearest(k, mean=False) for k in NEIGHBOURS},
    **{f"kNN, mean of {k}": nearest(k, mean=True) for k in NEIGHBOURS},
    "Mahalanobis": mahalanobis,
    "ViM": vim,
}


class Found(NamedTuple):
    """How well known photos and strangers were distinguished."""

    auroc: float
    fpr95: float
    """Share of the strangers that pass where 95% of the known photos do."""


def told_apart(known: Floats, strangers: Floats) -> Found:
    truth = np.repeat([1, 0], [len(known), len(strangers)])
    limit = np.quantile(known, 0.05)
    return Found(float(roc_auc_score(truth, np.concatenate([known, strangers]))), float((strangers >= limit).mean()))


def halves(photos: Photos, splits: int = SPLITS) -> Iterator[tuple[Photos, Photos]]:
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(photos.labels))
        yield photos.take(order[::2]), photos.take(order[1::2])


def of_set(known: Photos, strangers: Photos, *, other_head: bool = False) -> dict[str, Found]:
    """The mean over the splits, by method."""
    found: dict[str, list[Found]] = {name: [] for name in METHODS}
    for split in halves(known):
        sets = [*split, strangers]
        if other_head:
            head = LogisticRegression(max_iter=300, C=100).fit(split[0].features, split[0].labels)
            sets = [photos._replace(logs=head.predict_log_proba(photos.features)) for photos in sets]
        for name, method in METHODS.items():
            found[name].append(told_apart(*(method(sets[0], photos) for photos in sets[1:])))
    return {name: Found(*np.mean(each, axis=0)) for name, each in found.items()}


def flagged(known: Photos) -> npt.NDArray[np.floating[Any]]:
    """Shares of known photos that are called strangers: of each half, with a model that knows the other. Ten times."""
    found = []
    for part, held_out in halves(known, 10):
        photos = different_pictures(part.features)
        rule = KnownPhotos(
            images=len(photos), labels_fingerprint="", distances=tuple(distances_within(photos).tolist())
        )
        distance = 1 - nearest(NEIGHBOURS[0], mean=True)(part._replace(features=photos), held_out)
        found.append((rule.share_as_far(distance) < STRANGER).mean())
    return np.array(found)


def of_left_out_classes(known: Photos) -> dict[str, Found]:
    """The mean over the classes, each of them left out in turn."""
    masks = [known.labels == label for label in np.unique(known.labels)]
    found = [of_set(known.take(~mask), known.take(mask), other_head=True) for mask in masks]
    return {name: Found(*np.mean([each[name] for each in found], axis=0)) for name in METHODS}


def table(results: dict[str, dict[str, Found]]) -> str:
    lines = ["| method | " + " | ".join(f"{name}: AUROC | FPR95" for name in results) + " |"]
    lines.append("| --- |" + " ---: |" * 2 * len(results))
    for method in METHODS:
        cells = (f"{each[method].auroc:.1%} | {each[method].fpr95:.1%}" for each in results.values())
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--known", type=Path, required=True, help="class folders of known photos")
    parser.add_argument("--strangers", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--other-head", action="store_true", help="of a model of other classes than the known photos")
    given = parser.parse_args()
    known = scored(given.known, given.model)
    results = {}
    for text in given.strangers:
        name, _, folder = text.partition("=")
        strangers = scored(Path(folder), given.model)
        results[f"{name} ({len(strangers.labels)})"] = of_set(known, strangers, other_head=given.other_head)
    results["a class left out"] = of_left_out_classes(known)
    print(describe_machine())
    print(f"\n{len(known.labels)} known photos of {given.known}\n\n{table(results)}")
    shares = flagged(known)
    mean, least, most = (f"{share:.1%}" for share in (shares.mean(), shares.min(), shares.max()))
    print(f"\nKnown photos called strangers: {mean} on average, {least} to {most} in single halves")


if __name__ == "__main__":
    main()

"""Store thresholds with a guarantee on a model's card, from its predictions and labels."""

from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.promises import parse_promise
from batchland.evaluation.schema import Guarantee
from batchland.models.card import ModelCard
from batchland.models.contract import Features, require_features
from batchland.models.decisions import AcceptThresholds, KnownPhotos, PredictionSets
from batchland.models.known import MAX_PHOTOS, MIN_PHOTOS, add_distance, different_pictures, distances_within
from batchland.models.recard import check_model, write_with_card
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import output_location
from batchland.system.options import Options
from batchland.system.text import counted

_MAX_DISTANCES: Final = 1000
"""Largest number of distances on a card."""


class CalibrateOptions(Options):
    """What to store on the card. Give at least one of a promise, a coverage of prediction sets, and known."""

    promise: str = ""
    """Accept answers so that few accepted ones are wrong, e.g. "error <= 2%"."""
    each_class: bool = False
    """Keep the promise in each class, with one threshold per class; classes with too few images are never accepted."""
    sets: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """Also write for each image a set of classes that contains the true one with this probability, e.g. 0.9."""
    known: bool = False
    """Also write how similar an image is to the labelled images; needs predictions with features."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Probability that the promise is kept, over the choice of the labelled images."""
    strip_prefix: str = ""
    """Remove this from the start of the predictions' image names before matching. `*` matches all except `/`."""
    ignore_unknown_classes: bool = False
    """Leave out images of classes that the model does not know, instead of stopping."""


class Calibrated(NamedTuple):
    """Result of `calibrate`."""

    card: ModelCard
    guarantee: Guarantee | None
    """The data behind the thresholds; None without a promise."""


def calibrate(predictions: str | Path, labels: Path, model: Path, out: Path, options: CalibrateOptions) -> Calibrated:
    """Write `model` to `out` with the thresholds on its card, so that `score` writes decisions.

    The labelled images must be like those that will be scored, and the model must not have seen them in training.
    Raises UsageError if there are too few images for the promise, or the predictions are of another model.
    """
    if not options.promise and options.sets is None and not options.known:
        raise UsageError("nothing to calibrate: no promise, no prediction sets, no known", advice="calibrate_what")
    found = check_model(model, out)
    if options.known:
        require_features(model, found.card)
    evaluation = evaluate(
        predictions,
        labels,
        EvaluateOptions(
            promise=(options.promise,) if options.promise else (),
            confidence=options.confidence,
            strip_prefix=options.strip_prefix,
            ignore_unknown_classes=options.ignore_unknown_classes,
            brightness_sample=0,
        ),
    )
    if evaluation.summary.model.sha256 != found.sha256:
        raise UsageError(f"{predictions}: was not scored with {model}; score the labelled images with it")
    card = found.card
    updates: dict[str, AcceptThresholds | PredictionSets | KnownPhotos] = {}
    change = None
    if options.promise:
        updates["decision"] = _thresholds(evaluation, options)
    if options.sets is not None:
        updates["prediction_sets"] = _sets(evaluation, options.sets)
    if options.known:
        photos = _features(predictions, evaluation)
        updates["known"] = _known(photos, evaluation)
        change = partial(add_distance, photos=photos)
    card = card.model_copy(update=updates | {"features_of": found.features_sha256})
    write_with_card(model, card, out, change)
    return Calibrated(card, next(iter(evaluation.summary.guarantees), None))


def _thresholds(evaluation: Evaluation, options: CalibrateOptions) -> AcceptThresholds:
    (guarantee,) = evaluation.summary.guarantees
    given = guarantee.per_class if options.each_class else guarantee.rule
    if not given:
        raise UsageError(
            f"{guarantee.promise}: with {counted(guarantee.images, 'labelled image')}, no threshold is sure to keep "
            f"this promise; at least {guarantee.fewest_images} confident answers without a mistake are needed: label "
            f"more images, or promise less"
        )
    return AcceptThresholds(
        promise=parse_promise(options.promise).text,
        confidence=options.confidence,
        images=guarantee.images,
        labels_fingerprint=evaluation.summary.labels.fingerprint,
        threshold=None if options.each_class or guarantee.rule is None else guarantee.rule.threshold,
        per_class={rule.label: rule.threshold for rule in guarantee.per_class} if options.each_class else {},
    )


def _sets(evaluation: Evaluation, coverage: float) -> PredictionSets:
    """The conformal quantile of the true class's probability."""
    parts = [
        batch["true_probability"].filter(batch["correct"].is_valid()).fill_null(0).to_numpy()
        for batch in evaluation.outcomes_file.batches(["true_probability", "correct"])
    ]
    true = np.concatenate(parts)
    threshold = conformal_threshold(true, coverage)
    if threshold is None or threshold <= 0:
        why = "have true classes beyond the choices kept; score with more choices"
        if threshold is None:
            why = "are too few; label more"
        raise UsageError(f"prediction sets of {coverage:.0%}: {len(true)} labelled images {why}")
    return PredictionSets(coverage=coverage, threshold=threshold, images=len(true))


def conformal_threshold(true: npt.NDArray[np.float32], coverage: float) -> float | None:
    """The threshold that the true class's probability of a new image reaches with probability `coverage` or more.

    true: the true class's probability of each labelled image. None if there are too few images. (Split conformal
    prediction: Vovk, Gammerman and Shafer 2005.)
    """
    place = int((len(true) + 1) * (1 - coverage))
    return float(str(np.partition(true, place - 1)[place - 1])) if place else None


def _features(predictions: str | Path, evaluation: Evaluation) -> Features:
    """The features of at most MAX_PHOTOS of the labelled images, evenly spaced, without copies: float32 [n, features].

    Raises UsageError if there are none, or too few different pictures.
    """
    images = [
        name
        for batch in evaluation.outcomes_file.batches(["image", "status"])
        for name, status in zip(batch["image"].to_pylist(), batch["status"].to_pylist(), strict=True)
        if status == "ok"
    ]
    chosen = {images[place] for place in np.linspace(0, len(images) - 1, min(len(images), MAX_PHOTOS)).astype(int)}
    stored = StoredPredictions(output_location(predictions))
    if "features" not in stored.schema(stored.parts()[0]).names:
        raise UsageError(f"{predictions}: has no features; score the labelled images with them", advice="features")
    found = []
    for batch in stored.rows(["image", "features"]):
        names, features = batch["image"].to_pylist(), batch["features"]
        found += [
            features[row].values.to_numpy()
            for row, name in enumerate(names)
            if name in chosen and features[row].is_valid
        ]
    photos = different_pictures(np.stack(found).astype(np.float32)) if found else np.empty((0, 0), np.float32)
    if len(photos) < MIN_PHOTOS:
        number = counted(len(photos), "different picture")
        raise UsageError(f"{predictions}: {number} with a label; known needs at least {MIN_PHOTOS}")
    return photos


def _known(photos: Features, evaluation: Evaluation) -> KnownPhotos:
    distances = distances_within(photos)
    places = np.linspace(0, len(distances) - 1, min(len(distances), _MAX_DISTANCES)).astype(int)
    return KnownPhotos(
        images=len(photos),
        labels_fingerprint=evaluation.summary.labels.fingerprint,
        distances=tuple(float(f"{distance:.6g}") for distance in distances[places]),
    )

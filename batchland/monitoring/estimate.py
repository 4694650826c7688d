"""Estimate the accuracy of a night without labels.

A logistic regression gives the probability that an answer is right, from the confidence, the predicted class and the
figures of the picture. It is fitted on labelled photos and on degraded copies of them. The estimate of a night is the
mean; its interval accounts for chance, for the number of labelled photos, and for the errors on kinds of corruption
that were left out of the fit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.monitoring.normal import normal_quantile
from batchland.monitoring.observations import MEASURES, Floats, Observations
from batchland.monitoring.schema import AccuracyEstimate, Estimator
from batchland.system.cores import one_blas_thread

CONFIDENCE: Final = 0.9
"""Confidence level of the intervals."""
MIN_IMAGES: Final = 30
"""With fewer images there is no estimate."""
MIN_ERROR_DOWN: Final = 0.04
"""Least distance of the lower end from the estimate: an unknown fault may lower the accuracy more than known ones."""
_QUANTILES: Final = 101
_MAX_SCORE: Final = 3.0
_MAX_CLASSES: Final = 100
"""Models with more classes have no term for each class."""
_RIDGE: Final = 20.0
"""Penalty on squared weights, in images."""
_CORRUPTED_WEIGHT: Final = 1.0
"""Weight of all corrupted copies together, as a multiple of that of the photos."""
_NEAR: Final = 0.03
"""Corruptions that lower the accuracy by at most this give the error of the estimate of a normal night."""
_ROUNDS: Final = 12

Right = npt.NDArray[np.bool_]


class Labelled(NamedTuple):
    """Scored images, and whether each first choice is right."""

    observed: Observations
    right: Right


def estimator_path(model: Path) -> Path:
    """`NAME.estimator.json` beside `NAME.onnx`."""
    return model.with_name(f"{model.name.removesuffix('.onnx')}.estimator.json")


def read_estimator(model: Path) -> Estimator | None:
    """The estimator of a model; None if it has none. Raises UsageError if it cannot be read."""
    path = estimator_path(model)
    try:
        return Estimator.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); make it again") from error
    except ValidationError as error:
        raise UsageError(f"{path}: is not an estimator of this version of batchland; make it again") from error


@one_blas_thread()
def fit_estimator(
    photos: Labelled, copies: Mapping[str, Sequence[Labelled]], model_sha256: str, classes: int
) -> Estimator:
    """Fit the estimator. copies: by family of corruption, for each strength."""
    values = photos.observed.values.astype(np.float64)
    usable: npt.NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=0))
    quantiles = np.quantile(values[:, usable], np.linspace(0, 1, _QUANTILES), axis=0)
    empty = Estimator(
        model_sha256=model_sha256,
        labelled=len(photos.right),
        accuracy=float(photos.right.mean()),
        measures=tuple(measure for measure, each in zip(MEASURES, usable, strict=True) if each),
        quantiles=tuple(map(tuple, quantiles.T.round(6).tolist())),
        classes=classes if classes <= _MAX_CLASSES else 0,
        weights=(),
        error=0.0,
    )
    everything = [each for levels in copies.values() for each in levels]
    errors = []
    for levels in copies.values():
        weights = _fit(empty, photos, [each for each in everything if not any(each is own for own in levels)])
        for each in levels:
            if each.right.mean() >= photos.right.mean() - _NEAR:
                chances = _logistic(_features(empty, each.observed) @ weights)
                chance = float((chances * (1 - chances)).mean()) / len(chances)
                errors.append(max((float(chances.mean()) - float(each.right.mean())) ** 2 - chance, 0.0))
    weights = _fit(empty, photos, everything)
    error = float(np.sqrt(np.mean(errors))) if errors else _NEAR
    return empty.model_copy(update={"weights": tuple(weights.round(6).tolist()), "error": error})


def estimate_accuracy(estimator: Estimator, observed: Observations) -> AccuracyEstimate:
    """The estimate for the images of a night, which should be like those of the reference."""
    if len(observed) < MIN_IMAGES:
        return AccuracyEstimate(reason=f"{len(observed)} images are too few; an estimate needs {MIN_IMAGES}")
    features = _features(estimator, observed)
    if not np.isfinite(features).all():
        return AccuracyEstimate(reason="figures of the pictures are missing")
    chances = _logistic(features @ np.array(estimator.weights))
    value = float(chances.mean())
    chance = float((chances * (1 - chances)).mean()) / len(chances)
    labelled = estimator.accuracy * (1 - estimator.accuracy) / estimator.labelled
    down, up = (
        float(normal_quantile((1 + CONFIDENCE) / 2)) * float(np.sqrt(chance + labelled + error**2))
        for error in (max(estimator.error, MIN_ERROR_DOWN), estimator.error)
    )
    return AccuracyEstimate(value=value, low=max(value - down, 0.0), high=min(value + up, 1.0))


def _features(estimator: Estimator, observed: Observations) -> Floats:
    """A column of ones, a normal score for each measure, the logit of the confidence, and a column for each class."""
    columns = [MEASURES.index(measure) for measure in estimator.measures]
    grid = np.linspace(0, 1, len(estimator.quantiles[0]))
    scores = [
        np.clip(normal_quantile(_ranks(observed.values[:, column], quantiles, grid)), -_MAX_SCORE, _MAX_SCORE)
        for column, quantiles in zip(columns, np.array(estimator.quantiles), strict=True)
    ]
    confidence = np.clip(observed.values[:, MEASURES.index("probability")].astype(np.float64), 1e-4, 1 - 1e-4)
    logit = np.log(confidence / (1 - confidence)) / 2
    parts = [np.ones(len(observed)), logit, *scores]
    if estimator.classes:
        parts += list(np.eye(estimator.classes)[observed.classes].T)
    return np.column_stack(parts)


def _logistic(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


def _ranks(values: Floats, quantiles: Floats, grid: Floats) -> Floats:
    """Mid-ranks between 0 and 1 in the distribution with these quantiles."""
    low, high = np.interp(values, quantiles, grid), 1 - np.interp(-values, -quantiles[::-1], grid)
    return np.clip((low + high) / 2, 0.0005, 0.9995)


def _fit(estimator: Estimator, photos: Labelled, copies: Sequence[Labelled]) -> Floats:
    """Weights of a ridge logistic regression, by Newton's method."""
    features = np.concatenate([_features(estimator, each.observed) for each in (photos, *copies)])
    right = np.concatenate([each.right for each in (photos, *copies)]).astype(np.float64)
    number = len(photos.right)
    importance = np.full(len(right), _CORRUPTED_WEIGHT * number / max(len(right) - number, 1))
    importance[:number] = 1.0
    penalty = np.full(features.shape[1], _RIDGE)
    penalty[0] = 1e-6
    weights = np.zeros(features.shape[1])
    for _ in range(_ROUNDS):
        chances = _logistic(features @ weights)
        gradient = features.T @ (importance * (right - chances)) - penalty * weights
        curvature = (features * (importance * chances * (1 - chances))[:, None]).T @ features + np.diag(penalty)
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights

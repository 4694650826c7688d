"""Add a class to a model without training, from a few photos: a prototype of their features.

Its accuracy is measured on photos that its prototype was not made from, and on labelled photos of the old classes.
"""

import unicodedata
from bisect import bisect_left
from datetime import UTC, datetime
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import expit

from batchland._version import __version__
from batchland.embeddings.photos import read_photos
from batchland.errors import ModelError, UsageError
from batchland.images.loader import BatchLoader
from batchland.images.sources.folder import list_images
from batchland.models.added_class import Prototype, add_class, with_added
from batchland.models.card import AddedClass, ClassName, ModelCard
from batchland.models.contract import Features, Probabilities, check_new_model
from batchland.models.labelled_photos import read_labelled
from batchland.models.recard import write_with_card
from batchland.models.session import Session, open_session
from batchland.system.names import composed
from batchland.system.options import Options
from batchland.system.text import counted, percent

MIN_SCENES: Final = 5
"""Photos of different scenes that a class needs."""
_MAX_LABELLED: Final = 5000
"""Photos of a labelled set that are used, evenly spaced."""
_RECOGNISED: Final = 0.95
"""Without a labelled set: share of the held-out photos that are at least as similar as the threshold."""
_AT_MEDIAN: Final = 0.95
"""Without a labelled set: probability of the new class for the median held-out photo."""
_MAX_SHARPNESS: Final = 200.0
_FOLDS: Final = 10
"""Parts of the labelled set in the cross-validation."""
_MARGIN: Final = 1e-4
"""Least difference of logits by which a photo of an old class stays in it; more than the rounding of float32."""
_TOLERANCE: Final = 1e-3
"""Largest difference of a probability between the file and what was computed here."""

Floats = npt.NDArray[np.float32]


class AddClassOptions(Options):
    """Limits of the new class."""

    most_taken: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the labelled photos of the old classes that may be classified as the new one."""
    overwrite: bool = False
    """Replace any file, not only an earlier model with this class added."""


class OldClasses(NamedTuple):
    """What the new class does to labelled photos of the old classes; see AddedClass."""

    labelled: int
    right_before: int
    right_after: int
    taken: int


class Added(NamedTuple):
    """Result of `add_new_class`."""

    card: ModelCard
    old: OldClasses | None
    """None without labelled photos."""
    skipped: tuple[str, ...]
    """Photos that could not be read."""
    dropped: tuple[str, ...]
    """Parts of the card that were removed, because they are valid only for the old classes."""


class _Photos(NamedTuple):
    features: Features
    probabilities: Probabilities
    scenes: npt.NDArray[np.int64]
    """Photos with the same number are copies of each other."""
    skipped: tuple[str, ...]


def add_new_class(
    label: str, photos: Path, model: Path, out: Path, labels: Path | None = None, options: AddClassOptions | None = None
) -> Added:
    """Write `model` with one more class, made from the photos below a folder, to `out`, with canaries beside it.

    labels: labelled photos of the old classes, which `model` was not trained on, as CLASS/*.jpg. They determine the
    threshold and the change of the old classes' accuracy. Without them, the threshold is the one that 95% of the
    held-out photos pass.

    Raises UsageError if there are too few photos, none is recognised, or the model has the class; ModelError if
    it has no features.
    """
    options = options or AddClassOptions()
    check_new_model(
        out,
        (model,),
        what="an earlier model with this class added",
        replaces=lambda card: [each.label for each in card.added[-1:]] == [label.strip()],
        overwrite=options.overwrite,
    )
    session = open_session(model, "cpu", features=True)
    name = ClassName(folder=_folder_name(label), label=label.strip())
    _require_new(name, session)
    new = _read(photos, session)
    most_taken = options.most_taken
    old = _read_labelled(labels, session, most_taken) if labels else None
    limit, cost = _limit_of_fit(new, old, most_taken) if old else (most_taken, None)
    prototype, held_out = _fit(new, old, limit)
    recognised = int(_chosen(prototype, held_out, new.probabilities).sum())
    if not recognised:
        raise UsageError(
            f"{photos}: none of {counted(len(held_out), 'photo')} is recognised when held out, because the old classes "
            "look like them; give other photos, or train again",
            advice="most_taken",
        )
    added = AddedClass(
        label=name.label,
        photos=len(new.features),
        scenes=len(set(new.scenes.tolist())),
        recognised=recognised,
        **(cost._asdict() if cost else {}),
    )
    card = session.card
    dropped = tuple(field for field in ("decision", "prediction_sets", "known") if getattr(card, field, None))
    card = card.model_copy(
        update={
            "classes": (*card.classes, name),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": card.versions | {"batchland": __version__},
            "added": (*card.added, added),
            "features_of": session.features_sha256,
            **dict.fromkeys(dropped),
        }
    )
    card = ModelCard.model_validate(card.model_dump())
    write_with_card(model, card, out, partial(add_class, prototype=prototype, number=len(session.card.classes)))
    _check(out, new, prototype, photos, session)
    return Added(card, cost, new.skipped, dropped)


def _folder_name(label: str) -> str:
    name = label.strip().replace(" ", "_").replace("/", "_")
    if not name.strip("._"):
        raise UsageError(f"class {label!r}: give it a name")
    if any(unicodedata.category(sign) == "Cc" for sign in label):
        raise UsageError(f"class {label!r}: has control characters; give it a name without them")
    return name


def _require_new(name: ClassName, session: Session) -> None:
    known = set(map(_compared, (*session.card.labels, *session.card.folders)))
    if {_compared(name.label), _compared(name.folder)} & known:
        raise UsageError(f"class {name.label!r}: {session.path} already has this class; give another name")


def _compared(name: str) -> str:
    """The form by which names are compared: composed characters, lower case."""
    return composed(name).casefold()


def _read(folder: Path, session: Session) -> _Photos:
    """Features and answers for the photos below a folder, and which are copies of each other."""
    read = read_photos(list_images(folder), session.card.preprocess, session)
    scenes = np.arange(len(read.names))
    for group in read.copies():
        scenes[group] = group[0]
    different = len(set(scenes.tolist()))
    if different < MIN_SCENES or read.features is None or read.probabilities is None:
        raise UsageError(
            f"{folder}: has {counted(different, 'readable photo')} of different scenes; a class needs {MIN_SCENES}, "
            f"and better has 20"
        )
    return _Photos(read.features, read.probabilities, scenes, read.skipped)


class _Labelled(NamedTuple):
    """Labelled photos of the old classes."""

    features: Features
    probabilities: Probabilities
    truth: npt.NDArray[np.intp]

    def take(self, which: npt.NDArray[np.bool_]) -> "_Labelled":
        return _Labelled(self.features[which], self.probabilities[which], self.truth[which])


def _read_labelled(folder: Path, session: Session, most_taken: float) -> _Labelled:
    photos = read_labelled(folder, session.card.classes, session.card.preprocess, _MAX_LABELLED)
    if len(photos.labels) < 1 / most_taken:
        number = counted(len(photos.labels), "labelled photo")
        raise UsageError(
            f"{folder}: has {number}; a limit of {percent(most_taken)} needs at least {ceil(1 / most_taken)}",
            advice="most_taken",
        )

    def both(pixels: Any) -> Floats:
        answer = session.answer(pixels)
        assert answer.features is not None
        return np.concatenate([answer.probabilities, answer.features], axis=1)

    found = photos.scores(both)
    classes = len(session.card.classes)
    return _Labelled(found[:, classes:], found[:, :classes], photos.labels)


def _fit(new: _Photos, old: _Labelled | None, most_taken: float) -> tuple[Prototype, Floats]:
    """The prototype, and the similarity of each new photo to one of all other scenes."""
    centre = old.features.mean(axis=0) if old else np.zeros(new.features.shape[1], np.float32)
    vector = _direction(new.features, centre)
    others = {scene: _direction(new.features[new.scenes != scene], centre) for scene in set(new.scenes.tolist())}
    rows = zip(new.features, new.scenes.tolist(), strict=True)
    held_out = np.array([features @ others[scene] for features, scene in rows], np.float32)
    if old is None:
        return Prototype(vector, *_threshold_alone(held_out)), held_out
    similarity = old.features @ vector
    threshold, sharpness = _logistic(
        np.concatenate([held_out, similarity]), np.repeat([1.0, 0.0], [len(held_out), len(similarity)])
    )

    def within_limit(threshold: float) -> bool:
        """Whether the expected share of other photos is within the limit: one more photo is taken of one more."""
        taken = _chosen(Prototype(vector, threshold, sharpness), similarity, old.probabilities)
        return bool(taken.sum() + 1 <= most_taken * (len(taken) + 1))

    thresholds = [threshold, *np.sort(similarity[similarity > threshold]).tolist()]
    lost = np.sort(similarity - (np.log(old.probabilities.max(axis=1)) - _MARGIN) / sharpness)
    thresholds += lost[lost > thresholds[-1]].tolist()  # from the last of these on, no old photo is taken
    place = min(bisect_left(thresholds, True, key=within_limit), len(thresholds) - 1)
    return Prototype(vector, thresholds[place], sharpness), held_out


def _direction(features: Features, centre: Floats) -> Floats:
    """From the centre of the old classes to the mean of the new photos, of length 1."""
    mean = features.mean(axis=0) - centre
    vector: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return vector


def _threshold_alone(held_out: Floats) -> tuple[float, float]:
    """Threshold and sharpness from the similarities of held-out photos alone."""
    low, middle = np.quantile(held_out, 1 - _RECOGNISED), np.median(held_out)
    sharpness = np.log(_AT_MEDIAN / (1 - _AT_MEDIAN)) / max(float(middle - low), 1e-6)
    return float(low), float(min(sharpness, _MAX_SHARPNESS))


def _logistic(similarity: Floats, is_new: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Threshold and sharpness of a logistic regression in which both sides have the same weight."""
    from scipy.optimize import minimize

    weight = np.where(is_new > 0, 0.5 / is_new.sum(), 0.5 / (1 - is_new).sum())
    scale = max(float(similarity.std()), 1e-6)
    start = (np.median(similarity[is_new > 0]) + np.median(similarity[is_new == 0])) / 2

    def loss(values: npt.NDArray[np.float64]) -> float:
        logit = np.exp(values[1]) / scale * (similarity - values[0])
        return float(weight @ np.logaddexp(0, np.where(is_new > 0, -logit, logit)) + 0.005 * values[1] ** 2)

    found = minimize(loss, [start, 1.0], method="Nelder-Mead").x
    return float(found[0]), float(min(np.exp(found[1]) / scale, _MAX_SHARPNESS))


def _chosen(prototype: Prototype, similarity: Floats, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
    """Whether the first choice is the new class."""
    added = expit(prototype.sharpness * (similarity - prototype.threshold)).astype(np.float32)
    found: npt.NDArray[np.bool_] = with_added(probabilities, added).argmax(axis=1) == probabilities.shape[1]
    return found


def _limit_of_fit(new: _Photos, old: _Labelled, most_taken: float) -> tuple[float, OldClasses]:
    """The largest limit, up to `most_taken`, with which at most this share is taken in the cross-validation; its cost.

    It may be 0, and more may be taken nevertheless.
    """
    limit = most_taken
    while (cost := _cost(new, old, limit)).taken > most_taken * cost.labelled and limit > 0:
        limit = max(limit - 1 / cost.labelled, 0)
    return limit, cost


def _cost(new: _Photos, old: _Labelled, most_taken: float) -> OldClasses:
    """The answers for labelled photos, without and with the new class.

    Each tenth of the photos is tested with a prototype that was fitted with the others.
    """
    taken = np.zeros(len(old.truth), bool)
    for number in range(_FOLDS):
        judged = np.arange(len(old.truth)) % _FOLDS == number
        prototype, _ = _fit(new, old.take(~judged), most_taken)
        taken[judged] = _chosen(prototype, old.features[judged] @ prototype.vector, old.probabilities[judged])
    right = old.probabilities.argmax(axis=1) == old.truth
    return OldClasses(len(right), int(right.sum()), int((right & ~taken).sum()), int(taken.sum()))


def _check(out: Path, new: _Photos, prototype: Prototype, photos: Path, before: Session) -> None:
    """Raise ModelError unless the file gives the probabilities that were computed here."""
    session = open_session(out, "cpu")
    ref = next(each for each in list_images(photos) if each.name not in new.skipped)
    pixels = next(iter(BatchLoader([ref], session.card.preprocess, 1))).pixels
    answer = before.answer(pixels)
    assert answer.features is not None
    expected = with_added(answer.probabilities, prototype.probabilities(answer.features))
    if not np.abs(session.predict(pixels) - expected).max() <= _TOLERANCE:
        raise ModelError(f"{out}: does not give the probabilities of the prototype", advice="report_disagreement")

"""Judge a night of one model without labels: by exact rules, and by a reference if there are enough good nights.

verdict = judge(night, earlier, labels, usual=150, before=last_verdict)
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from batchland.monitoring.budget import DEFAULT, limit_of
from batchland.monitoring.drift_sums import cumulate, drifts
from batchland.monitoring.estimate import estimate_accuracy
from batchland.monitoring.findings import by_strength, describe, usual_values
from batchland.monitoring.lasting import is_same_change
from batchland.monitoring.observations import ANSWER, MEASURES, Observations
from batchland.monitoring.reference import Reference, labelled_reference
from batchland.monitoring.rules import MIN_IMAGES, Found, Night, check_rules, share_of_strangers
from batchland.monitoring.schema import AccuracyEstimate, DriftSum, Estimator, Finding, NightVerdict
from batchland.system.cores import one_blas_thread
from batchland.system.text import images as images_text

MIN_NIGHTS: Final = 5
"""A reference needs at least this many nights."""
SURE_NIGHTS: Final = 14
"""With fewer nights, a night with damage in half of its pictures may pass."""
MAX_NIGHTS: Final = 60
"""The reference grows to this many nights and then stays the same, so that slow drift does not become usual."""
MAX_REFERENCE_IMAGES: Final = 24_000
"""Images of all nights of the reference together. More images take time and hardly change a verdict."""
_FEW_FINDINGS: Final = 5
_PICTURES: Final = 6
_USABLE_SHARE: Final = 0.9
"""A figure is used if at least this share of every night's images has it."""

Mask = npt.NDArray[np.bool_]
"""Which of MEASURES, [MEASURES]."""
_NO_ANSWERS: Final = np.array([measure not in ANSWER for measure in MEASURES])


class ReferenceCache(Protocol):
    """Keeps fitted references."""

    def read(self, nights: Sequence[Night], *, answers: bool) -> Reference | None:
        """The reference of these nights, if it was kept. answers: whether their answers are compared."""

    def write(self, nights: Sequence[Night], reference: Reference, *, answers: bool) -> None:
        """Keep the reference of these nights."""


@one_blas_thread()
def judge(
    night: Night,
    reference: Sequence[Night],
    recent: Sequence[Night],
    labels: Sequence[str],
    *,
    usual: float | None = None,
    before: tuple[Night, NightVerdict] | None = None,
    start: date | None = None,
    photos: Observations | None = None,
    budget: float = DEFAULT,
    same_model: bool = True,
    new_images: bool = True,
    estimator: Estimator | None = None,
    cache: ReferenceCache | None = None,
    other_model: Sequence[Night] = (),
    delivered: Sequence[Night] | None = None,
) -> NightVerdict:
    """The verdict on a night. Its findings: those by exact rules, then those of `describe`.

    reference: good nights to compare with, oldest first; the first MAX_NIGHTS count.
    recent: the last good nights, oldest first, for numbers and usual shares.
    labels: of the model's classes. usual: number of images.
    before: the last judged night, and its verdict.
    start: first night of the accepted change with which the reference begins; None if it begins with the job.
    photos: labelled photos that are the reference instead of the nights; at least MIN_PHOTOS.
    budget: false alarms a year, see budget.py.
    same_model: whether the same model scored the reference; if not, only pictures are compared.
    new_images: whether a night has other images than the nights before. estimator: of the model's accuracy.
    cache: of fitted references. other_model: more good nights, some scored by another model; pictures are
    compared with them, too, until the reference has SURE_NIGHTS. delivered: the last nights, also bad ones, for copies;
    the default is `recent`.
    """
    rules = by_strength(check_rules(night, recent, usual, new_images=new_images, start=start, delivered=delivered))
    observed = night.observed
    found: list[Found] = rules
    strength = None
    sums: dict[str, DriftSum] = dict(before[1].drift) if before else {}
    nights: Sequence[Night] = [each for each in reference[:MAX_NIGHTS] if each.images >= MIN_IMAGES]
    known = None
    if len(observed) >= MIN_IMAGES:
        wanted = _usable([observed], answers=same_model)
        if photos is not None:
            known = _labelled(photos, wanted)
        elif len(nights) >= MIN_NIGHTS:
            known, nights = _reference(nights, wanted, cache, answers=same_model)
    if known is not None:
        limit = limit_of(budget, len(observed), labelled=photos is not None)
        known = replace(known, limit=limit)
        filled = observed.filled(known.pool.columns)
        longer = None
        if len(nights) < SURE_NIGHTS and len(other_model) > len(nights):
            longer, _ = _reference(other_model, wanted & _NO_ANSWERS, cache, answers=False)
        unusual, strength = _described(known, longer and replace(longer, limit=limit), filled, labels)
        found = [*rules, *unusual]
        if not found:  # a bad night is not added to the sums
            if photos is None and len(nights) < SURE_NIGHTS:
                sums = {}
            else:
                sums, slow = _drift(known, night.date, filled, sums, limit)
                found = [(finding, np.zeros(0, np.intp)) for finding in slow]
    found = found[:_FEW_FINDINGS]
    findings = tuple(finding for finding, _ in found)
    dates = [each.since for each in findings if each.since]  # of drift
    if before and is_same_change(known, night, findings, before[0], before[1].findings):
        findings = tuple(_dated(each, *before) for each in findings)
        dates.append(before[1].since or before[0].date)
    shown, pictures = _pictures(found, night)
    return NightVerdict(
        verdict="suspicious" if findings else "ok",
        judged_by="reference" if known else "rules",
        images=len(observed),
        reference=tuple(each.date for each in nights) if known and photos is None else (),
        reference_photos=len(photos) if known and photos is not None else 0,
        reference_start=start,
        strength=strength,
        findings=findings,
        since=min(dates, default=None),
        pictures=pictures,
        pictures_show=shown,
        accuracy=_accuracy(estimator, observed, findings),
        strangers=share_of_strangers(observed),
        drift=sums,
        notes=tuple(_limitations(known, len(observed), len(nights), photos, same_model=same_model)),
    )


def _limitations(
    known: Reference | None, images: int, nights: int, photos: Observations | None, *, same_model: bool
) -> Iterator[str]:
    """What the verdict cannot show. images: of the night. nights: of the reference."""
    if known is not None:
        if photos is None and nights < SURE_NIGHTS:
            yield (
                f"the reference has {nights} nights; with fewer than {SURE_NIGHTS}, damage in half of a night may not "
                f"be found"
            )
        if not same_model:
            yield "the reference was scored by another model; only pictures are compared"
    elif images < MIN_IMAGES:
        yield f"{images_text(images)}, fewer than {MIN_IMAGES}; only gross faults are found"
    elif photos is None and nights < MIN_NIGHTS:
        yield f"{nights} of {MIN_NIGHTS} nights for a reference; until then only gross faults are found"


def _described(
    known: Reference, longer: Reference | None, observed: Observations, labels: Sequence[str]
) -> tuple[list[Found], float]:
    """The findings of both references, each kind once, and the larger strength."""
    unusual, strength = describe(known, observed, labels)
    if longer is None:
        return unusual, strength
    more, stronger = describe(longer, observed, labels)
    named = {(finding.kind, finding.what) for finding, _ in unusual}
    return [*unusual, *(each for each in more if (each[0].kind, each[0].what) not in named)], max(strength, stronger)


def _accuracy(
    estimator: Estimator | None, observed: Observations, findings: Sequence[Finding]
) -> AccuracyEstimate | None:
    if estimator is None:
        return None
    if findings:
        return AccuracyEstimate(reason="the night is suspicious")
    return estimate_accuracy(estimator, observed)


def _labelled(photos: Observations, wanted: Mask) -> Reference | None:
    usable = wanted & _usable([photos])
    return labelled_reference(photos.filled(usable), usable) if usable.any() else None


def _reference(
    nights: Sequence[Night], wanted: Mask, cache: ReferenceCache | None, *, answers: bool
) -> tuple[Reference | None, Sequence[Night]]:
    """A reference of the wanted measures, and its nights; None if they are too few, or have none of these measures.

    The kept reference has all measures of its nights, also those that tonight lacks.
    """
    whole = cache.read(nights, answers=answers) if cache else None
    if whole is None:
        nights = [each for each in nights if len(each.observed) >= MIN_IMAGES]  # a damaged file gives none
        if len(nights) < MIN_NIGHTS:
            return None, nights
        whole = _fitted(nights, _NO_ANSWERS | answers)
        if whole and cache:
            cache.write(nights, whole, answers=answers)
    if whole is None or wanted[whole.pool.columns].all():
        return whole, nights
    return _fitted(nights, wanted), nights


def _fitted(nights: Sequence[Night], wanted: Mask) -> Reference | None:
    compared = [_some(each.observed, len(nights)) for each in nights]
    usable = wanted & _usable(compared)
    return Reference.of([each.filled(usable) for each in compared], usable) if usable.any() else None


def _some(images: Observations, nights: int) -> Observations:
    """Evenly chosen images of a night of a reference of this many nights."""
    most = MAX_REFERENCE_IMAGES // nights
    return images if len(images) <= most else images.take(np.linspace(0, len(images) - 1, most).astype(np.intp))


def _usable(groups: Sequence[Observations], *, answers: bool = True) -> Mask:
    """Whether every group of images has each of MEASURES."""
    usable = np.ones(len(MEASURES), bool)
    for images in groups:
        if len(images):
            usable &= np.isfinite(images.values).mean(axis=0) >= _USABLE_SHARE
    return usable if answers else usable & _NO_ANSWERS


def _drift(
    reference: Reference, night: date, observed: Observations, before: dict[str, DriftSum], limit: float
) -> tuple[dict[str, DriftSum], list[Finding]]:
    deviations = reference.deviations(reference.pool.figures(observed))
    means = {
        statistic.measure: float(z)
        for statistic, z in zip(reference.pool.statistics, deviations, strict=True)
        if (statistic.score, statistic.kind) == ("value", "mean")
    }
    sums = cumulate(before, means, night)
    return sums, list(drifts(sums, usual_values(reference, observed), limit))


def _dated(finding: Finding, before: Night, earlier: NightVerdict) -> Finding:
    """The finding, with the first night in a row that had it."""
    same = (each for each in earlier.findings if (each.kind, each.what) == (finding.kind, finding.what))
    since = finding.since or next((each.since or before.date for each in same), None)
    return finding.model_copy(update={"since": since})


def _pictures(found: Sequence[Found], night: Night) -> tuple[str | None, tuple[str, ...]]:
    """`what` of the first finding that has pictures, and their names."""
    for finding, rows in found:
        if len(rows):
            return finding.what, tuple(str(name) for name in night.observed.names[rows[:_PICTURES]])
    return None, ()

"""Judge a night of one model without labels: by exact rules, and by a reference if there are enough good nights.

verdict = judge(night, earlier, labels, usual=150, before=last_verdict)
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.monitoring.drift_sums import cumulate, drifts
from batchland.monitoring.estimate import estimate_accuracy
from batchland.monitoring.findings import by_strength, describe, usual_values
from batchland.monitoring.observations import ANSWER, MEASURES, Observations
from batchland.monitoring.reference import Reference
from batchland.monitoring.rules import MIN_IMAGES, Found, Night, check_rules, share_of_strangers
from batchland.monitoring.schema import AccuracyEstimate, DriftSum, Estimator, Finding, NightVerdict

MIN_NIGHTS: Final = 5
"""A reference needs at least this many nights."""
SURE_NIGHTS: Final = 14
"""With fewer nights, a night with damage in half of its pictures may pass."""
MAX_NIGHTS: Final = 60
"""The reference grows to this many nights and then stays the same, so that slow drift does not become usual."""
_FEW_FINDINGS: Final = 5
_PICTURES: Final = 6
_USABLE_SHARE: Final = 0.9
"""A figure is used if at least this share of every night's images has it."""


def judge(
    night: Night,
    reference: Sequence[Night],
    recent: Sequence[Night],
    labels: Sequence[str],
    *,
    usual: float | None = None,
    before: tuple[date, NightVerdict] | None = None,
    start: date | None = None,
    same_model: bool = True,
    new_images: bool = True,
    estimator: Estimator | None = None,
) -> NightVerdict:
    """The verdict on a night. Its findings: those by exact rules, then those of `describe`.

    reference: good nights to compare with, oldest first; the first MAX_NIGHTS count.
    recent: the last good nights, oldest first, for numbers and copies.
    labels: of the model's classes. usual: number of images.
    before: the last judged night, and its verdict.
    start: first night of the accepted change with which the reference begins; None if it begins with the job.
    same_model: whether the same model scored the reference; if not, only pictures are compared.
    new_images: whether a night has other images than the nights before. estimator: of the model's accuracy.
    """
    rules = by_strength(check_rules(night, recent, usual, new_images=new_images, start=start))
    observed = night.observed
    notes: list[str] = []
    found: list[Found] = rules
    strength = None
    sums: dict[str, DriftSum] = dict(before[1].drift) if before else {}
    nights = [each for each in reference[:MAX_NIGHTS] if len(each.observed) >= MIN_IMAGES]
    usable = _usable([night, *nights], answers=same_model)
    by_reference = len(nights) >= MIN_NIGHTS and len(observed) >= MIN_IMAGES and bool(usable.any())
    if by_reference:
        known = Reference([_filled(each, usable) for each in nights], usable)
        filled = _filled(night, usable)
        unusual, strength = describe(known, filled, labels)
        found = [*rules, *unusual]
        if not found:  # a bad night is not added to the sums
            sums, slow = _drift(known, night, filled, sums)
            found = [(finding, np.zeros(0, np.intp)) for finding in slow]
        if len(nights) < SURE_NIGHTS:
            notes.append(
                f"the reference has {len(nights)} nights; with fewer than {SURE_NIGHTS}, damage in half of a night may "
                f"not be found"
            )
        if not same_model:
            notes.append("the reference was scored by another model; only pictures are compared")
    elif len(nights) < MIN_NIGHTS:
        notes.append(f"{len(nights)} of {MIN_NIGHTS} nights for a reference; until then only gross faults are found")
    found = found[:_FEW_FINDINGS]
    findings = tuple(_dated(finding, before) for finding, _ in found)
    shown, pictures = _pictures(found, night)
    return NightVerdict(
        verdict="suspicious" if findings else "ok",
        judged_by="reference" if by_reference else "rules",
        images=len(observed),
        reference=tuple(each.date for each in nights) if by_reference else (),
        reference_start=start,
        strength=strength,
        findings=findings,
        since=min((each.since for each in findings if each.since), default=None),
        pictures=pictures,
        pictures_show=shown,
        accuracy=_accuracy(estimator, observed, findings),
        strangers=share_of_strangers(observed),
        drift=sums,
        notes=tuple(notes),
    )


def _accuracy(
    estimator: Estimator | None, observed: Observations, findings: Sequence[Finding]
) -> AccuracyEstimate | None:
    if estimator is None:
        return None
    if findings:
        return AccuracyEstimate(reason="the night is suspicious")
    return estimate_accuracy(estimator, observed)


def _usable(nights: Sequence[Night], *, answers: bool) -> npt.NDArray[np.bool_]:
    """Whether every night has each of MEASURES."""
    usable = np.ones(len(MEASURES), bool)
    for night in nights:
        if len(night.observed):
            usable &= np.isfinite(night.observed.values).mean(axis=0) >= _USABLE_SHARE
    if not answers:
        usable &= [measure not in ANSWER for measure in MEASURES]
    return usable


def _filled(night: Night, usable: npt.NDArray[np.bool_]) -> Observations:
    """The images of a night, with the median of its others where a figure is missing."""
    observed = night.observed
    values = observed.values
    if np.isfinite(values[:, usable]).all():
        return observed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of measures without a figure, which are not used
        medians = np.nanmedian(values, axis=0)
    return replace(observed, values=np.where(np.isfinite(values), values, medians))


def _drift(
    reference: Reference, night: Night, observed: Observations, before: dict[str, DriftSum]
) -> tuple[dict[str, DriftSum], list[Finding]]:
    if reference.nights < SURE_NIGHTS:
        return {}, []
    deviations = reference.deviations(reference.pool.figures(observed))
    means = {
        statistic.measure: float(z)
        for statistic, z in zip(reference.pool.statistics, deviations, strict=True)
        if (statistic.score, statistic.kind) == ("value", "mean")
    }
    sums = cumulate(before, means, night.date)
    return sums, list(drifts(sums, usual_values(reference, observed)))


def _dated(finding: Finding, before: tuple[date, NightVerdict] | None) -> Finding:
    """The finding, with the first night in a row that had it, if the night before had it, too."""
    if finding.since is None and before is not None and before[1].verdict == "suspicious":
        for earlier in before[1].findings:
            if (earlier.kind, earlier.what) == (finding.kind, finding.what):
                return finding.model_copy(update={"since": earlier.since or before[0]})
    return finding


def _pictures(found: Sequence[Found], night: Night) -> tuple[str | None, tuple[str, ...]]:
    """`what` of the first finding that has pictures, and their names."""
    for finding, rows in found:
        if len(rows):
            return finding.what, tuple(str(name) for name in night.observed.names[rows[:_PICTURES]])
    return None, ()

"""Describe a night's deviations from its reference in words, and choose the images that show them."""

from collections.abc import Callable, Container, Iterable, Sequence, Set
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.images.signals import SIGNALS
from batchland.monitoring.observations import ANSWER, MEASURES, Floats, Observations
from batchland.monitoring.orientation import COLOUR_CHANGES, structured, with_usual_tones
from batchland.monitoring.reference import Reference
from batchland.monitoring.rules import MIN_IMAGES, Found
from batchland.monitoring.schema import Finding, FindingKind
from batchland.monitoring.statistics import Statistic, readable
from batchland.system.text import percent

TITLES: Final = {signal.name: signal.name.replace("_", " ") for signal in SIGNALS} | {
    "tone_p01": "tone of the darkest 1%",
    "tone_p50": "median tone",
    "tone_p99": "tone of the lightest 1%",
    "tone_gaps": "share of unused tones",
    "red_green": "red less green",
    "blue_green": "blue less green",
    "gradient_x": "difference of horizontal neighbours",
    "gradient_y": "difference of vertical neighbours",
    "fineness_x": "fineness of horizontal detail",
    "fineness_y": "fineness of vertical detail",
    "flat_share": "share of even squares",
    "top_bottom": "tone of the upper half less that of the lower",
    "left_right": "tone of the left half less that of the right",
    "centre_border": "tone of the centre less that of the border",
    "sky": "blue less red of the upper half less that of the lower",
    "aspect": "width by height",
    "pixels": "number of pixels",
    "bytes_per_pixel": "bytes per pixel",
    "probability": "probability of the first choice",
    "margin": "margin between the first two choices",
    "entropy": "uncertainty of the answers (entropy)",
    "logsumexp": "raw scores of all classes together (logsumexp)",
    "top_logit": "raw score of the first choice (largest logit)",
    "all": "difference from usual pictures in all figures together",
}
"""Title of each measure, for people."""
_LOG2: Final = ("aspect", "pixels", "bytes_per_pixel")
"""Measures of which the base 2 logarithm is stored."""

_PLAIN: Final = ("brightness", "contrast", "saturation", "sharpness", "noise", "pixels", "aspect", "probability")
"""Measures that are easy to understand. They are listed before the others."""
_TONE: Final = {("measure", "brightness"), ("measure", "contrast")}
"""Findings that may explain why pictures look changed."""
_MOST_LEFT: Final = 0.5
"""Largest strength that may be left without a change, if there are other findings."""
_NEARLY_ALL: Final = 0.8
"""If a larger share of the pictures looks changed, the message gives no share."""


def describe(reference: Reference, night: Observations, labels: Sequence[str]) -> tuple[list[Found], float]:
    """The findings of a night, one for each measure, class and change; and the largest strength.

    Changes of all pictures come first, because they explain the others, but after a stronger brightness or contrast;
    then findings that are easy to understand (classes, unusual values of common measures); then the others. In each
    group the strongest is first. A measure has several statistics: the message is about the one that is easiest to
    understand, and the strength is the largest.

    labels: of the classes, by index.
    """
    scores = reference.pool.scores(night)
    figures = reference.pool.figures(night, scores)
    strengths = reference.strengths(reference.deviations(figures))
    found: dict[tuple[str, str], Found] = {}
    related: set[str] = set()
    unusual = [index for index in np.argsort(-strengths) if strengths[index] > 1]
    for index in sorted(unusual, key=lambda index: _rank(reference.pool.statistics[index])):
        statistic = reference.pool.statistics[index]
        key = ("class" if statistic.score == "class" else "measure", statistic.measure)
        if key not in found:
            found[key] = _finding(reference, night, scores, int(index), float(strengths[index]), labels)
            if statistic.score == "rest":
                related.add(statistic.measure)
        elif strengths[index] > found[key][0].strength:
            finding, rows = found[key]
            found[key] = finding.model_copy(update={"strength": float(strengths[index])}), rows
    change = _change(reference, night, found.keys())
    if ("measure", "saturation") in found:  # grey pictures
        change = [each for each in change if each[0].what not in COLOUR_CHANGES]
    ordered = by_strength([*change, *found.values()])
    strength = max((finding.strength for finding, _ in change), default=float("inf"))
    ordered.sort(key=lambda each: _group(each[0], strength, related))
    return ordered, float(max([strengths.max(), *(finding.strength for finding, _ in change)]))


def by_strength(found: Iterable[Found]) -> list[Found]:
    """The findings, strongest first, without weaker ones of the same text."""
    ordered = sorted(found, key=lambda each: -each[0].strength)
    strongest = {finding.message: (finding, rows) for finding, rows in reversed(ordered)}
    return [each for each in ordered if strongest[each[0].message][0] is each[0]]


def _change(reference: Reference, night: Observations, others: Set[tuple[str, str]]) -> list[Found]:
    """A finding if the pictures look turned or recoloured. Copies count once: one picture is no evidence.

    others: the other findings. If there are any, the pictures must look usual without the change. If brightness or
    contrast is among them, the pictures must also look changed with usual tones.
    """
    different = np.isin(np.arange(len(night)), np.unique(night.hashes, return_index=True)[1])
    shaped = np.flatnonzero(structured(night.thumbnails) & different)
    if len(shaped) < MIN_IMAGES:
        return []
    seen = night.take(shaped)
    strength = reference.changes(seen).max()
    if strength > 1 and _TONE & others:
        usual = reference.thumbnails
        seen = replace(seen, thumbnails=with_usual_tones(seen.thumbnails, usual[structured(usual)]))
        strength = min(strength, reference.changes(seen).max())
    if strength <= 1:
        return []
    likeliest = reference.likeliest_change(seen)
    if others and likeliest.left > _MOST_LEFT:
        return []
    change, share = likeliest.change, likeliest.share
    pictures = "the pictures look" if share > _NEARLY_ALL else f"about {round(share, 1):.0%} of the pictures look"
    message = f"{pictures} as if they were changed: {change}"
    return [(Finding(kind="change", what=change, message=message, strength=float(strength)), shaped[likeliest.rows])]


def _group(finding: Finding, change: float, related: Container[str]) -> int:
    """change: strength of the change of all pictures, infinite without one.

    related: measures that are unusual only in relation to the others. Their values may be usual.
    """
    if finding.kind == "change":
        return 0
    if ("measure", finding.what) in _TONE and finding.strength > change:
        return -1
    return 1 if finding.kind == "classes" or (finding.what in _PLAIN and finding.what not in related) else 2


def _rank(statistic: Statistic) -> int:
    """Statistics of a lower rank are easier to understand."""
    if statistic.score == "class":
        return 0
    if (statistic.score, statistic.kind) == ("value", "mean"):
        return 1 if statistic.measure in _PLAIN else 2
    return {"value": 3, "rest": 4, "distance": 5}[statistic.score]


def usual_values(reference: Reference, night: Observations) -> dict[str, str]:
    """Text for each measure: its value tonight, and its range on the nights of the reference."""
    values = np.vstack([reference.night_means, np.nanmean(night.values, axis=0)])
    texts = {}
    for measure, column in zip(reference.pool.measures, reference.pool.columns, strict=True):
        *before, now = (2 ** values[:, column] if measure in _LOG2 else values[:, column]).tolist()
        texts[measure] = f"{TITLES[measure]}: mean {_number(now)}, usually {_range(before, _number)}"
    return texts


def _finding(
    reference: Reference, night: Observations, scores: Floats, index: int, strength: float, labels: Sequence[str]
) -> Found:
    statistic = reference.pool.statistics[index]
    if statistic.score == "class":
        return _class_finding(reference, night, statistic, strength, labels)
    own = scores[:, index % scores.shape[1]]
    now = reference.pool.figures(night, scores)
    change = float(now.values[index] - reference.usual[index])
    before = readable(statistic.kind, reference.night_figures[:, index], reference.night_classes.sum(axis=1))
    text = _figure_text(statistic.kind, float(readable(statistic.kind, now.values[index], now.images)), before)
    title = TITLES[statistic.measure]
    if statistic.score == "rest":
        message = f"{title}, relative to the other figures of the pictures: {text}"
    elif (statistic.score, statistic.kind) != ("value", "mean"):
        message = f"{title}: {text}"
    else:
        column = MEASURES.index(statistic.measure)
        means, mean = reference.night_means[:, column], float(night.values[:, column].mean())
        message = usual_values(reference, night)[statistic.measure]
        if means.min() <= mean <= means.max():  # a few extreme pictures hide the change
            message = f"{title}, by rank among usual pictures: {text}"
    kind: FindingKind = "answers" if statistic.measure in ANSWER else "pictures"
    finding = Finding(kind=kind, what=statistic.measure, message=message, strength=strength)
    return finding, _order(statistic.kind, own, change)


def _figure_text(kind: str, now: float, before: Floats) -> str:
    """A figure tonight, and its range on the nights of the reference."""
    if kind == "mean":
        return f"mean {_number(now)}, usually {_range(before, _number)}"
    if kind == "spread":
        alike = "are more alike" if now < before.mean() else "differ more"
        return f"the pictures {alike} than usual (spread {_number(now)}, usually {_range(before, _number)})"
    return f"{kind} in {percent(now)} of the pictures, usually in {_range(before, percent)}"


def _class_finding(
    reference: Reference, night: Observations, statistic: Statistic, strength: float, labels: Sequence[str]
) -> Found:
    counts = np.bincount(night.classes, minlength=len(labels)) / len(night)
    images = np.zeros((reference.nights, len(labels)))
    images[:, : reference.night_classes.shape[1]] = reference.night_classes
    before = images / images.sum(axis=1, keepdims=True)
    if statistic.measure:
        chosen = int(statistic.measure)
    elif statistic.kind == "top":
        chosen = int(counts.argmax())
    else:
        chosen = int(np.abs(counts - before.mean(axis=0)).argmax())
    usual = _range(before[:, chosen], percent)
    message = f"{percent(float(counts[chosen]))} of the images are {labels[chosen]!r}, usually {usual}"
    if before[:, chosen].min() <= counts[chosen] <= before[:, chosen].max():
        message = f"the shares of all classes together are unusual, e.g. {message}"
    finding = Finding(kind="classes", what=labels[chosen], message=message, strength=strength)
    return finding, np.flatnonzero(night.classes == chosen)


def _order(kind: str, scores: Floats, change: float) -> npt.NDArray[np.intp]:
    """Indices of the images that show a deviation, the clearest first."""
    if kind == "spread":
        return np.argsort(-np.abs(scores - np.median(scores)) * np.sign(change), kind="stable")
    lower = "low" in kind or (kind == "mean" and change < 0)
    return np.argsort(scores if lower else -scores, kind="stable")


def _range(values: npt.ArrayLike, text: Callable[[float], str]) -> str:
    low, high = text(float(np.min(values))), text(float(np.max(values)))
    return low if low == high else f"{low} to {high}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

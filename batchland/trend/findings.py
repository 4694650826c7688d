"""Findings of a trend as sentences: the last night compared with the reference, and nights with problems."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import chain, groupby, pairwise
from operator import itemgetter
from statistics import median
from typing import Final

from batchland.evaluation.intervals import rate
from batchland.report.findings import Finding
from batchland.system.text import count, counted, first_few, images, percent, visible
from batchland.trend.model_view import MEASURES, drift_of, failed_figure, has_answers, replacements, shares
from batchland.trend.plots import Row

SLOWER: Final = 0.7
"""A last night below this share of the median speed is a finding."""
CONFIDENCE: Final = 0.95
"""Confidence level of the intervals that are compared."""


def headline(rows: Sequence[Row]) -> str:
    """The nights in two sentences. An image that several models scored in a night counts once."""
    outcomes = {row["date"]: row["good"] for row in rows}
    good = sum(outcomes.values())
    listed, failed = (
        sum(max(row[name] or 0 for row in of_night) for _, of_night in groupby(rows, itemgetter("date")))
        for name in ("images", "failed")
    )
    nights = counted(len(outcomes), "night")
    models = max(Counter(row["date"] for row in rows).values())
    most = "up to " if models < len({row["model"] for row in rows} - {None}) else ""
    by = f" by {most}{models} models" if models > 1 else ""
    return f"{count(good)} of {nights} ended well. {images(listed)} scored{by}, {count(failed)} of them failed."


def findings(rows: Sequence[Row], found_lanes: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """The findings, those about nights first. rows: of the page, oldest first. found_lanes: the same rows, by lane."""
    found = list(_nights(rows))
    for number, (name, of_model) in enumerate(found_lanes.items(), 1):
        prefix = f"{visible(name)}: " if len(found_lanes) > 1 else ""
        found += [
            finding._replace(text=prefix + finding.text, anchor=f"model-{number}")
            for finding in chain(_replaced(of_model), _last_night_finding(of_model))
        ]
    return found


def _nights(rows: Sequence[Row]) -> Iterator[Finding]:
    outcomes: dict[date, str] = {row["date"]: row["outcome"] for row in rows}
    bad = {row["date"]: row["ended"] for row in rows if not row["good"]}
    if bad:
        kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(bad.values()).most_common())
        yield _warning(f"Not every night ended well: {kinds}; the last one is {max(bad)}.", "nights")
    if any(has_answers(row) for row in rows) and not any(row["reference_rows"] or row["reference"] for row in rows):
        yield Finding("note", "No good night yet to compare others with.", "reading")
    steps = [(after - before).days for before, after in pairwise(outcomes)]
    if steps and median(steps) == 1:  # a daily job
        days = sorted(outcomes)
        every = (days[0] + timedelta(days=offset) for offset in range((days[-1] - days[0]).days))
        missing = [str(day) for day in every if day not in outcomes]
        if missing:
            yield _warning(f"No record of {first_few(missing)}: was the machine off, or cron?", "nights")


def _replaced(rows: Sequence[Row]) -> Iterator[Finding]:
    for before, row in replacements(rows):
        same = before["model"] == row["model"]
        what = "New version of the model" if same else f"{visible(row['model'])} instead of {visible(before['model'])}"
        text = f"{what} since {row['date']}, sha256 {row['model_sha256'][:12]}."
        yield Finding("note", text, "")


def _last_night_finding(rows: Sequence[Row]) -> Iterator[Finding]:
    """The last complete night against its reference."""
    complete = [row for row in rows if row["images"] is not None]
    if complete:
        last = complete[-1]
        yield from _accuracy(last)
        yield from _drift(last)
        yield from _failures(last)
        yield from _speed(complete[:-1], last)


def _accuracy(last: Row) -> Iterator[Finding]:
    labelled = [row for row in last["reference_rows"] if row["labelled"]]
    if not labelled or not last["labelled"]:
        return
    right = sum(round(row["accuracy"] * row["labelled"]) for row in labelled)
    usual = rate(right, sum(row["labelled"] for row in labelled), CONFIDENCE)
    if usual.low is not None and last["accuracy_high"] < usual.low:
        now = f"{percent(last['accuracy'])} on {last['date']}"
        yield _warning(f"Accuracy fell: {now}, {percent(usual.value)} in the reference.")


def _drift(last: Row) -> Iterator[Finding]:
    for what, name in MEASURES.items():
        found = drift_of(last, what)
        if found and found.moved:
            change = f"; {_largest_change(last)}" if what == "class" else ""
            yield _warning(f"The {name} of {last['date']} have {found.verdict} (PSI {found.psi:.2f}{change}).")


def _largest_change(last: Row) -> str:
    """The class that changed most."""
    before, now = shares(last["reference_rows"]), shares([last])
    changes = {label: abs(now.get(label, 0.0) - before.get(label, 0.0)) for label in sorted({*before, *now})}
    label = max(changes, key=changes.__getitem__)
    change = f"{percent(before.get(label, 0.0))} to {percent(now.get(label, 0.0))}"
    return f"most of all {visible(label)}, from {change}"


def _failures(last: Row) -> Iterator[Finding]:
    if last["images"] and last["failed"] == last["images"]:
        yield _warning(f"No image could be scored on {last['date']}: {images(last['failed'])} failed.")
        return
    now, listed = failed_figure(last), sum(row["images"] for row in last["reference_rows"])
    if now is None or not listed:
        return
    usual = rate(sum(row["failed"] for row in last["reference_rows"]), listed, CONFIDENCE)
    if now.low is not None and usual.high is not None and now.low > usual.high:
        change = f"{percent(now.value)} on {last['date']}, {percent(usual.value)} in the reference"
        yield _warning(f"More images fail: {change}.")


def _speed(before: Sequence[Row], last: Row) -> Iterator[Finding]:
    if 2 * last["failed"] > last["images"]:  # failures take less time
        return
    speeds = [
        row["images_per_second"] for row in before if row["images_per_second"] and 2 * row["failed"] <= row["images"]
    ]
    now = last["images_per_second"]
    if speeds and now and now < SLOWER * median(speeds):
        change = f"{now:,.1f} images/s on {last['date']}, {median(speeds):,.1f} in the median night before"
        yield _warning(f"Scoring has slowed down: {change}.")


def _warning(text: str, anchor: str = "") -> Finding:
    return Finding("warning", text, anchor)

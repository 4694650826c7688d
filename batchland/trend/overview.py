"""All jobs below one folder of records: how the last nights of each ended, and where their files are.

The jobs with problems come first. `write_overview` makes a page of it; see batchland/trend/write.py.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from batchland.nightly.dates import without_future
from batchland.nightly.good_nights import last_good, suspicious_since
from batchland.nightly.history import gate_state
from batchland.nightly.judge_night import explain
from batchland.nightly.record_files import LOG_FILE, RUN_FILE, job_names, read_runs
from batchland.nightly.run_record import ModelRun, RunRecord
from batchland.nightly.run_text import outcome_of
from batchland.system.text import count, counted, first_few, images, interval, percent, visible

NIGHTS: Final = 30
"""Nights of a job on the page, the latest ones."""
TREND_FILE: Final = "trend.html"
"""Name of the file in the folder of a job's records."""

Kind = Literal["failed", "warning", "open", "passed"]
"""What a person has to do: act, check, wait, nothing. Jobs are sorted in this order on the page."""

_KINDS: Final[dict[str, Kind]] = {"ok": "warning", "skipped": "open", "running": "open", "suspicious": "warning"}
"""What to do by the outcome of a night that is not good. `ok` means suspicious, in a job that only warns of that."""
_SIGNS: Final[dict[Kind, str]] = {"failed": "✕", "warning": "!", "open": "–", "passed": "✓"}
_ACCEPTED: Final = "◇"
"""Sign of a good night that was suspicious."""


class Link(NamedTuple):
    """A link to another file."""

    text: str
    href: str
    """Relative to the page."""


class StripNight(NamedTuple):
    """One night in the row of the last nights."""

    kind: Kind | None
    """None: no record of that night."""
    sign: str
    title: str
    href: str | None


class ModelLine(NamedTuple):
    """What one model did in the last night."""

    name: str
    facts: tuple[str, ...]
    report: str | None
    """Link to its report; None without labels, or if the report was deleted."""


class JobView(NamedTuple):
    """One job on the page."""

    name: str
    anchor: str
    kind: Kind
    """Outcome of the last night."""
    outcome: str
    night: date
    sentence: str
    """A sentence about the last night: its error and what to do, that it ended well, or who accepted it and why."""
    since: date | None
    """For a suspicious night: the first night of the change. None if there is nothing to check."""
    warnings: tuple[str, ...]
    models: tuple[ModelLine, ...]
    strip: tuple[StripNight, ...]
    """Oldest first."""
    last_good: date | None
    links: tuple[Link, ...]
    finished: str | None
    """When the last attempt ended, ISO 8601."""
    step: int | None
    """Usual number of days from one night to the next; None with too few nights."""


def job_views(runs: Path, today: date) -> list[JobView]:
    """All jobs with a record below `runs`, those with problems first, then by name. Nights after `today` are left out.

    A record that cannot be read is left out with a warning in the log.
    """
    names = job_names(runs)
    found = [(name, without_future(read_runs(runs / name, newest=NIGHTS), today)) for name in names]
    views = [_view(runs, name, records, number) for number, (name, records) in enumerate(found, 1) if records]
    order = list(_SIGNS)
    return sorted(views, key=lambda view: (order.index(view.kind), view.name))


def overview_headline(views: Sequence[JobView]) -> str:
    """How many jobs ended well, and which did not."""
    if not views:
        return "No job has run yet."
    parts = [f"{count(sum(view.kind == 'passed' for view in views))} of {counted(len(views), 'job')} ended well."]
    for kind, what in (("failed", "Failed"), ("warning", "Suspicious"), ("open", "Not done")):
        if names := [_job_text(view) for view in views if view.kind == kind]:
            parts.append(f"{what}: {first_few(names, 5)}.")
    return " ".join(parts)


def kind_of(record: RunRecord) -> Kind:
    """What a person has to do about a night."""
    return "passed" if record.good else _KINDS.get(record.outcome, "failed")


def _job_text(view: JobView) -> str:
    return f"{visible(view.name)} since {view.since}" if view.since else visible(view.name)


def _view(runs: Path, name: str, records: Sequence[RunRecord], number: int) -> JobView:
    last, good = records[-1], last_good(records)
    kind = kind_of(last)
    step = _step([record.date for record in records])
    return JobView(
        name=name,
        anchor=f"job-{number}",
        kind=kind,
        outcome=outcome_of(last),
        night=last.date,
        sentence=_sentence(last),
        since=suspicious_since(last) if kind == "warning" else None,
        warnings=last.warnings,
        models=tuple(_line(runs, model) for model in last.models),
        strip=tuple(_strip(runs, name, records, step)),
        last_good=good.date if good else None,
        links=tuple(_links(runs, name, last)),
        finished=last.deciding.finished_at,
        step=step,
    )


def _title(record: RunRecord) -> str:
    """The outcome, the verdict of the monitor with the first night of the change, and an acceptance."""
    since = suspicious_since(record)
    return outcome_of(record, since if record.suspicious and since < record.date else None)


def _sentence(record: RunRecord) -> str:
    if record.good and record.suspicious and record.accepted:
        reason = f": {record.accepted.reason}" if record.accepted.reason else ""
        accepted = f"Accepted by {record.accepted.by} on {record.accepted.accepted_at[:10]}{reason}"
        return f"{accepted}. What was unusual: {explain(record.models)}."
    if record.outcome == "ok" and record.doubtful:
        return f"{explain(record.models)}; the job only warns of suspicious nights."
    return record.error or _quiet_sentence(record)


def _quiet_sentence(record: RunRecord) -> str:
    if record.outcome == "running":
        return f"Runs since {record.deciding.started_at[:16].replace('T', ' ')}."
    if record.outcome == "skipped":
        return "There was nothing to score."
    tries = record.attempts.index(record.deciding) + 1
    while tries > 1 and record.attempts[tries - 2].outcome == record.deciding.outcome:
        tries -= 1  # it found the night done
    return "Ended well." if tries == 1 else f"Ended well, after {tries} attempts."


def _line(runs: Path, model: ModelRun) -> ModelLine:
    facts = [model.state.replace("_", " ")] if model.counts is None else []
    if model.counts:
        facts.append(images(model.counts.listed))
        facts.append(f"{count(model.counts.failed)} failed")
    estimate = model.monitor.accuracy if model.monitor else None
    if estimate and estimate.value is not None:
        facts.append(f"estimated accuracy {percent(estimate.value)} ({interval(estimate)})")
    report = None
    if model.evaluation:
        top1 = model.evaluation.figures.top1
        facts.append(f"accuracy {percent(top1.value)} ({interval(top1)})" if top1 else "every image failed")
        if state := gate_state(model):
            facts.append(f"gates {state.replace('_', ' ')}")
        report = _existing(runs, Path(model.evaluation.report) / "report.html")
    return ModelLine(model.name, tuple(facts), report)


def _step(days: Sequence[date]) -> int | None:
    """The usual number of days from one night to the next."""
    gaps = [(after - before).days for before, after in pairwise(days)]
    return round(median(gaps)) if len(gaps) >= 2 else None


def _strip(runs: Path, name: str, records: Sequence[RunRecord], step: int | None) -> Iterator[StripNight]:
    """The nights, and for a daily job the days without a record."""
    by_date = {record.date: record for record in records}
    days = sorted(by_date)
    if step == 1:
        days = [days[-1] - timedelta(days=back) for back in reversed(range(min(NIGHTS, (days[-1] - days[0]).days + 1)))]
    for day in days:
        record = by_date.get(day)
        if record is None:
            yield StripNight(None, "", f"{day}: no record", None)
            continue
        kind = kind_of(record)
        reports = [_line(runs, model).report for model in record.models]
        href = next((report for report in reports if report), None) or _existing(
            runs, runs / name / str(day) / RUN_FILE
        )
        sign = _ACCEPTED if record.good and record.suspicious else _SIGNS[kind]
        yield StripNight(kind, sign, f"{day}: {_title(record)}", href)


def _links(runs: Path, name: str, last: RunRecord) -> Iterator[Link]:
    folder = runs / name / str(last.date)
    others = [("comparison", Path(path) / "report.html") for path in last.comparisons]
    for text, path in (
        ("trend", runs / name / TREND_FILE),
        *others,
        ("record", folder / RUN_FILE),
        ("log", folder / LOG_FILE),
    ):
        if href := _existing(runs, path):
            yield Link(text, href)


def _existing(runs: Path, path: Path) -> str | None:
    """The link from the page to a file; None if the file is gone."""
    return quote(os.path.relpath(path, runs)) if path.is_file() else None

"""The content of a notification about a night: verdict, figures, links, pictures. Each channel formats it."""

from datetime import date
from typing import Final, Literal
from urllib.parse import quote

from batchland.nightly.run_record import Attempt, ModelRun, Outcome, RunRecord
from batchland.nightly.run_text import describe_run, outcome_of, speed
from batchland.system.documents import Document
from batchland.system.text import count, ignored_files, interval, one_line, percent

MAX_ERROR_LENGTH: Final = 2000
"""Characters of the error sentence in chats and mail; a longer one is cut in the middle. run.json has all of it."""
MAX_SUMMARY_LENGTH: Final = 20_000
"""Characters of the summary."""


class Figure(Document):
    """One line of a small table."""

    name: str
    value: str


class Link(Document):
    """A link for further reading."""

    text: str
    url: str


class Picture(Document):
    """A small picture of one image."""

    caption: str
    jpeg_base64: str
    width: int
    """Pixels."""
    height: int


class Notification(Document):
    """A notification about one night. A webhook gets this document."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.notification"] = "batchland.notification"
    job: str
    date: date
    outcome: Outcome
    """Outcome of the run. The outcome of the night, in run.json, differs from it if the run changed nothing."""
    exit_code: int | None
    """None while the night runs."""
    good: bool
    """Whether nothing needs to be done."""
    title: str
    """One line."""
    error: str | None
    """One sentence: where, what went wrong, what to do."""
    summary: str
    """What `batchland run` prints about the night."""
    figures: tuple[Figure, ...]
    links: tuple[Link, ...]
    pictures: tuple[Picture, ...] = ()
    test: bool = False
    """Whether `batchland job notify` sent it. Without a record, outcome and exit code are then those of a good
    night."""


def compose(
    record: RunRecord,
    attempt: Attempt,
    *,
    link: str | None = None,
    pictures: tuple[Picture, ...] = (),
    note: str | None = None,
) -> Notification:
    """The notification about an attempt.

    link: the address under which the folder of records, `runs`, is served. note: used in the title instead of the
    outcome.
    """
    summary = describe_run(record, attempt)
    error = record.error if attempt == record.deciding else attempt.error
    if len(summary) > MAX_SUMMARY_LENGTH:
        summary = f"{summary[:MAX_SUMMARY_LENGTH]}\n... (run.json has all of it)\n"
    good = note is None and attempt.exit_code == 0 and not record.doubtful
    return Notification(
        job=record.job,
        date=record.date,
        outcome=attempt.outcome,
        exit_code=attempt.exit_code,
        good=good,
        title=f"{record.job}, {record.date}: {note or _outcome(record, attempt)}",
        error=one_line(error, MAX_ERROR_LENGTH) if error else None,
        summary=summary,
        figures=tuple(figure for model in record.models for figure in _figures(model, several=len(record.models) > 1)),
        links=tuple(_links(record, link.rstrip("/"))) if link else (),
        pictures=pictures,
    )


def _outcome(record: RunRecord, attempt: Attempt) -> str:
    """That of the attempt; with the verdict of the monitor if the attempt gave the night its outcome."""
    return outcome_of(record) if attempt == record.deciding else attempt.outcome.replace("_", " ")


def _figures(model: ModelRun, *, several: bool) -> list[Figure]:
    if not model.counts:
        return []
    codes = ", ".join(f"{code} {count(number)}" for code, number in model.counts.failed_by_code.items())
    values = {
        "images": f"{count(model.counts.listed)}{ignored_files(model.ignored)}",
        "failed": f"{count(model.counts.failed)}{f' ({codes})' if codes else ''}",
        "speed": speed(model),
    }
    if model.monitor and model.monitor.verdict != "not_judged":
        values["monitor"] = model.monitor.verdict
    if model.evaluation and (top1 := model.evaluation.figures.top1):
        values["top-1 accuracy"] = f"{percent(top1.value)} ({interval(top1)})"
    for gate in model.evaluation.gates if model.evaluation else ():
        values[f"gate {gate.gate}"] = gate.verdict.replace("_", " ")
    return [Figure(name=f"{model.name}: {name}" if several else name, value=value) for name, value in values.items()]


def _links(record: RunRecord, base: str) -> list[Link]:
    night = f"{base}/{quote(record.job)}/{record.date}"
    reports = [
        Link(text=f"Report on {model.name}", url=f"{night}/report/{quote(model.name)}/report.html")
        for model in record.models
        if model.evaluation
    ]
    return [*reports, Link(text="Record of the night", url=f"{night}/run.json")]

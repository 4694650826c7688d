"""A night's record as text for people: terminal, cron mail, notification."""

from datetime import date

from batchland.nightly.run_record import Attempt, ModelRun, RunRecord
from batchland.system.text import accepted_and_asked, counted, files, ignored_files, images


def describe_run(record: RunRecord, attempt: Attempt | None = None, *, error: bool = True) -> str:
    """A few lines: outcome, models, gates, deletions, warnings.

    attempt: the one to describe; by default, the one that gives the night its outcome. Of one that changed nothing
    there is only its outcome and error. error: include the error message if the exit code is not 0.
    """
    if attempt not in (None, record.deciding):
        assert attempt is not None
        now = attempt.outcome.replace("_", " ")
        lines = [f"Job {record.job}, {record.date}: {now}. The night is still {outcome_of(record)}."]
        if attempt.error and (error or attempt.exit_code == 0):
            lines.append(attempt.error)
        return "\n".join(lines) + "\n"
    seconds = f" in {record.seconds:.1f} s" if record.seconds is not None else ""
    lines = [f"Job {record.job}, {record.date}: {outcome_of(record)}{seconds}."]
    if record.error and (error or record.exit_code == 0):
        lines.append(record.error)
    for model in record.models:
        lines.append(describe_model(model))
        lines += describe_verdict(model, accepted=record.accepted is not None)
        if model.evaluation:
            lines += [f"  gate {gate.verdict.replace('_', ' ')}: {gate.message}" for gate in model.evaluation.gates]
            lines.append(f"  report: {model.evaluation.report}/report.html")
    lines += [f"Models compared: {folder}/report.html" for folder in record.comparisons]
    lines += [
        f"Deleted, {night.date}: {night.path} ({files(night.files)})."
        for night in record.deleted
        if night.run_id == record.deciding.run_id
    ]
    lines += [f"Warning: {warning}." for warning in record.warnings]
    return "\n".join(lines) + "\n"


def outcome_of(record: RunRecord, since: date | None = None) -> str:
    """How a night ended, the verdict of the monitor and an acceptance, in a few words; see `outcome_text`."""
    return outcome_text(record.outcome, suspicious=record.suspicious, accepted=record.accepted is not None, since=since)


def outcome_text(outcome: str, *, suspicious: bool, accepted: bool, since: date | None = None) -> str:
    """An outcome, with the verdict of the monitor if the outcome is another one.

    suspicious: whether that is the verdict. since: first night of the change, if it is an earlier night.
    """
    text = outcome.replace("_", " ") + (" and suspicious" if suspicious and outcome != "suspicious" else "")
    return f"{text}{f' since {since}' if since else ''}{', accepted' if accepted else ''}"


def describe_verdict(model: ModelRun, *, accepted: bool) -> list[str]:
    """Lines about the findings of the monitor in a suspicious night."""
    verdict = model.monitor
    if verdict is None or not verdict.findings:
        return []
    since = f", since {verdict.since}" if verdict.since else ""
    compared = f"compared with {counted(len(verdict.reference), 'night')}" if verdict.reference else "by exact rules"
    if verdict.reference_photos:
        compared = f"compared with {counted(verdict.reference_photos, 'labelled photo')}"
    state = "suspicious, but accepted" if accepted else verdict.verdict
    lines = [f"  monitor: {state}{since}, {compared}"]
    lines += [f"  unusual: {finding.message}" for finding in verdict.findings]
    if verdict.pictures:
        shown = (verdict.pictures_show or "it").replace("_", " ")
        lines.append(f"  pictures that show {shown}: {', '.join(verdict.pictures)}")
    return [*lines, *(f"  note: {note}" for note in verdict.notes)]


def speed(model: ModelRun) -> str:
    """`12.5 images/s on cpu`; without the rate if it is not known."""
    rate = "" if model.images_per_second is None else f"{model.images_per_second:.1f} images/s "
    return f"{rate}on {model.device}"


def describe_model(model: ModelRun) -> str:
    """One line: state, images, failures, throughput, accuracy, partition."""
    if not model.counts:
        return f"{model.name}: {model.state.replace('_', ' ')}."
    counts = model.counts
    codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
    known = f", {model.already_scored} known already" if model.already_scored else ""
    text = (
        f"{model.name}: {model.state}, {images(counts.listed)}{known}, {counts.ok} ok, {counts.failed} failed"
        f"{f' ({codes})' if codes else ''}{accepted_and_asked(counts.decisions)}{ignored_files(model.ignored)}, "
        f"{speed(model)}"
    )
    if model.evaluation and (top1 := model.evaluation.figures.top1):
        text += f"; top-1 accuracy {top1.value:.1%} [{top1.low:.1%}, {top1.high:.1%}]"
    if model.monitor and (estimate := model.monitor.accuracy) and estimate.value is not None:
        text += f"; estimated accuracy {estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
    if model.monitor and model.monitor.strangers is not None:
        text += f"; strangers {model.monitor.strangers:.1%}"
    if model.version:
        text += f"; scored by version {model.version.version} of {model.version.reference}"
    return f"{text}; {model.partition}"

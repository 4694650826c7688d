"""Evaluate a night's predictions against labels: figures, comparison with the last good night, gates, report."""

import logging
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from batchland.errors import UsageError
from batchland.evaluation.comparison import compare
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.gates import GateResult, check_gates, parse_gate
from batchland.evaluation.options import CompareOptions, EvaluateOptions
from batchland.evaluation.saved import Report, read_report
from batchland.nightly.good_nights import evaluated_name, last_good
from batchland.nightly.job import Job
from batchland.nightly.job_fields import expand
from batchland.nightly.job_tables import LAST_GOOD, EvaluationTable
from batchland.nightly.run_record import GateVerdict, NightEvaluation, RunRecord
from batchland.report.changes import Baseline
from batchland.report.options import ReportOptions
from batchland.report.write import write_comparison, write_report

_log = logging.getLogger("batchland")


def evaluate_night(job: Job, model: str, night: date, records: Sequence[RunRecord]) -> NightEvaluation | None:
    """Evaluate a model's partition and write its report. None where there are no labels and the job allows that.

    records: of all nights of the job; the last good one before `night` is the baseline. Raises UsageError.
    """
    table = job.evaluation
    assert table is not None
    labels = expand(table.labels, night)
    if not labels.exists() and table.on_missing == "skip":
        _log.info("%s: no labels at %s, so there is no evaluation", model, labels)
        return None
    options = EvaluateOptions.model_validate(table.model_dump(include=set(EvaluateOptions.model_fields)))
    evaluation = evaluate(job.partition(model, night), labels, options)
    baseline, name = _baseline(job, table, model, night, records)
    gates = [parse_gate(text) for text in table.gates]
    checked = [gate for gate in gates if not gate.drop or baseline is not None]
    results = {result.gate: result for result in check_gates(checked, evaluation, baseline)}
    report = job.report(model, night)
    before = None
    if baseline is not None:
        last_good_night = table.baseline == Path(LAST_GOOD)
        before = Baseline(baseline, f"the last good night, {name}" if last_good_night else f"the report {name}")
    write_report(evaluation, report, _report_options(job, night), gates=tuple(results.values()), baseline=before)
    summary = evaluation.summary
    return NightEvaluation(
        report=str(report),
        labels=summary.labels,
        account=summary.account,
        figures=summary.figures,
        baseline=name,
        gates=tuple(_verdict(gate.text, results.get(gate)) for gate in gates),
        failed_classes={
            row["label"]: row["failed"]
            for row in evaluation.per_class.select(["label", "support", "failed"]).to_pylist()
            if row["failed"] and not row["support"]
        },
    )


def compare_models(job: Job, models: Sequence[str], night: date) -> tuple[str, ...]:
    """Compare the report of each further model with that of the first, and return the folders that were written.

    Raises UsageError, OutputError.
    """
    assert job.evaluation is not None
    settings = job.evaluation.model_dump(include=set(CompareOptions.model_fields))
    first, *others = ((model, read_report(job.report(model, night))) for model in models)
    folders = []
    for model, report in others:
        folder = job.comparison(first[0], model, night)
        write_comparison(compare(first[1], report, CompareOptions(**settings)), folder, _report_options(job, night))
        folders.append(str(folder))
    return tuple(folders)


def baseline_night(job: Job, model: str, night: date, records: Sequence[RunRecord]) -> tuple[date, str] | None:
    """The last good night before `night` in which the model was evaluated, and the model's name in it."""
    only = len(job.model_names) == 1
    names = {record.date: name for record in records if (name := evaluated_name(record, model, only=only))}
    good = last_good((record for record in records if record.date in names), before=night)
    return (good.date, names[good.date]) if good else None


def _report_options(job: Job, night: date) -> ReportOptions:
    """They overwrite: the folder is the night's own, and what people put beside the report stays."""
    return ReportOptions(command=f"batchland run {job.file}, night {night}", overwrite=True)


def _baseline(
    job: Job, table: EvaluationTable, model: str, night: date, records: Sequence[RunRecord]
) -> tuple[Report | None, str | None]:
    if table.baseline != Path(LAST_GOOD):
        return read_report(table.baseline), str(table.baseline)
    good = baseline_night(job, model, night, records)
    if good is None:
        return None, None
    day, name = good
    try:
        return read_report(job.report(name, day)), day.isoformat()
    except UsageError as error:
        deleted = not job.report(name, day).exists()
        why = f"the report of {day} was deleted" if deleted else str(error)
        _log.warning("%s: the last good night cannot be the baseline, so no drop is checked: %s", model, why)
        return None, None


def _verdict(text: str, result: GateResult | None) -> GateVerdict:
    if result is None:
        message = f"no report of an earlier good night to compare with (fails if {text})"
        return GateVerdict(gate=text, verdict="not_checked", message=message)
    verdict = "failed" if result.failed else "passed"
    return GateVerdict(gate=text, verdict=verdict, value=result.value, message=result.message)

"""JSON documents that commands print with --json but do not write to a file."""

from datetime import date
from typing import Literal

from batchland.doctor.check import State
from batchland.evaluation.schema import ComparisonSummary, EvaluationSummary
from batchland.models.registry import RegisteredModel
from batchland.nightly.history import Night
from batchland.nightly.run_record import RunRecord
from batchland.report.verdict import Verdict
from batchland.system.documents import Document


class Printed(Document):
    """A document that a command prints."""

    schema_version: Literal[1] = 1


class ErrorResult(Printed):
    """Any command with --json that ends with an error before it has a result."""

    kind: Literal["batchland.error"] = "batchland.error"
    exit_code: int
    """As in the README's table."""
    message: str
    """The sentence that would be on stderr without --json."""


class DoctorCheck(Document):
    """One check."""

    name: str
    state: State
    found: str
    advice: str
    """What to do about it; empty if there is nothing to do."""


class DoctorResult(Printed):
    """`batchland doctor --json`."""

    kind: Literal["batchland.doctor"] = "batchland.doctor"
    ok: bool
    """Whether no check failed. Warnings do not count."""
    checks: tuple[DoctorCheck, ...]


class Problem(Document):
    """An error that would end a run."""

    message: str
    exit_code: int


class JobCheck(Printed):
    """`batchland job check --json`."""

    kind: Literal["batchland.job_check"] = "batchland.job_check"
    job: str
    job_file: str
    """Absolute path."""
    date: date
    """The night that a run without a date would do now."""
    ok: bool
    """Whether there is no problem."""
    steps: tuple[str, ...]
    """What a run would do, in order."""
    problems: tuple[Problem, ...]
    """The command ends with the exit code of the first one."""


class History(Printed):
    """`batchland history --json`."""

    kind: Literal["batchland.history"] = "batchland.history"
    job: str
    nights: tuple[Night, ...]
    """One entry per night and model, the oldest night first."""


class RegistryContent(Printed):
    """`batchland models list --json`."""

    kind: Literal["batchland.registry_content"] = "batchland.registry_content"
    registry: str
    models: tuple[RegisteredModel, ...]


class RunResult(Printed):
    """`batchland run --json`."""

    kind: Literal["batchland.run_result"] = "batchland.run_result"
    exit_code: int
    """Exit code of the first night that did not end well; 0 if all did."""
    nights: tuple[RunRecord, ...]
    """The records of the nights that were run, as in their run.json."""


class GateOutcome(Document):
    """A gate and whether it failed."""

    gate: str
    failed: bool
    value: float | None
    """The value compared with the limit; None if there is none, which fails the gate."""
    message: str


class Report(Document):
    """A report that was written."""

    folder: str
    summary: EvaluationSummary
    """The summary as in its summary.json."""


class EvaluateResult(Printed):
    """`batchland evaluate --json`."""

    kind: Literal["batchland.evaluate_result"] = "batchland.evaluate_result"
    reports: tuple[Report, ...]
    """One for each predictions file, in the order given."""
    comparison: ComparisonSummary | None
    """Differences of two predictions files, as in summary.json of the output folder."""
    gates: tuple[GateOutcome, ...]
    """Results of the gates on the last report."""
    verdict: Verdict
    """Verdict on the last report, by gates, chance, and the baseline (or the first report)."""

"""The document `run.json`: the record of one date of a job, with all attempts."""

from datetime import date, datetime
from typing import Any, Final, Literal

from pydantic import Field

from batchland.errors import SuspiciousNightError
from batchland.evaluation.schema import Figures, LabelAccount, LabelSource
from batchland.monitoring.schema import Acceptance, CanaryCheck, NightVerdict, Withdrawal
from batchland.predictions.schema import Counts, ModelInfo, Seconds
from batchland.system.documents import Count, Document, Moment

CONFIDENCE_BINS: Final = 20

Outcome = Literal[
    "running",
    "ok",
    "skipped",
    "too_many_failed",
    "gate_failed",
    "suspicious",
    "wrong_delivery",
    "missing_input",
    "failed",
    "time_limit",
    "interrupted",
    "killed",
    "locked",
]
"""How an attempt ended. The outcome of a night is that of its deciding attempt.

ok: everything is written and every gate passed. skipped: there was nothing to score, and the job allows that.
too_many_failed: written, but more images failed than `max_failed`, or all. gate_failed: written and evaluated, a gate
failed. suspicious: written, but not like the good nights, see `monitor`; a person can accept it. wrong_delivery: the
delivery has too many or wrong files, so nothing was scored. missing_input: the delivery is missing, empty, still
growing or not complete. failed: another error; see the message. time_limit, interrupted: stopped after a whole batch,
a rerun resumes. killed: the process ended without a record (kill -9, power failure); a rerun resumes. locked: another
run of the job was active.
"""

ModelState = Literal["scored", "resumed", "kept", "replaced", "nothing_new", "unfinished", "extended"]
"""scored: completed in one attempt. resumed: begun by an earlier attempt, now complete. kept: was complete before this
run. replaced: scored again with `force`. nothing_new: with mode "new", every image was already scored, so there is no
partition. unfinished: not complete. extended: was complete, and images that arrived later were added."""


class Attempt(Document):
    """One attempt at the night. Each start of the job makes one, each retry one more with the same run_id."""

    run_id: str
    """Id of the process, as in the lines of the log."""
    pid: int
    host: str
    started_at: Moment
    """ISO 8601 with the zone's offset, as all times here."""
    finished_at: Moment | None = None
    """None while it runs, and if it was killed."""
    outcome: Outcome = "running"
    exit_code: int | None = None
    """Exit code of the process, or what it would have been without a retry. None while it runs; 137 if it was
    killed."""
    error: str | None = None
    """One sentence: where, what went wrong, what to do. None if the outcome is ok."""
    refused: bool = False
    """True if a usage error, a model error or the delivery ended it before it changed anything; the night stays
    as it was."""


class PredictionMix(Document):
    """Distribution of the predictions of the scored images, for measuring drift."""

    classes: dict[str, Count]
    """Number of images with each label as first choice: all classes of the model in their order, including zeros."""
    confidence_histogram: tuple[Count, ...]
    """Number of images by the first choice's probability, in CONFIDENCE_BINS equal bins of (0, 1], upper ends
    included."""
    mean_confidence: float | None
    """None without a scored image."""


class GateVerdict(Document):
    """The result of one gate."""

    gate: str
    """The condition under which the night fails, as in the job file."""
    verdict: Literal["passed", "failed", "not_checked"]
    """not_checked: the gate compares with the last good night, and there is no report of one."""
    value: float | None = None
    """The value that was compared with the limit."""
    message: str


class NightEvaluation(Document):
    """Summary of the evaluation of a model's predictions. The report has the rest."""

    report: str
    """Absolute path of the report folder."""
    labels: LabelSource
    account: LabelAccount
    figures: Figures
    """With their intervals."""
    baseline: str | None = None
    """What drops are measured against: the date of the last good night, or the path of a fixed report."""
    gates: tuple[GateVerdict, ...] = ()
    failed_classes: dict[str, Count] = Field(default_factory=dict)
    """Classes with only failed images, which no figure includes: number of images by label."""


class RegistryVersion(Document):
    """The version of a model that a registry gave for a reference."""

    registry: str
    """Its folder or URL."""
    reference: str
    """The model's name and alias as in the job file: `landmarks@production`."""
    version: str


class ModelRun(Document):
    """The work of one model in one night."""

    name: str
    """Name in the job; for a kept partition, the name when it was scored."""
    partition: str
    """Absolute path or URL of the folder that holds the predictions."""
    state: ModelState
    """With nothing_new and unfinished, the fields below are None."""
    run_id: str | None = None
    """Id of the predictions, as in their manifest: a hash of model, options and input."""
    model: ModelInfo | None = None
    version: RegistryVersion | None = None
    """None for a model that the job names by its file, and for a kept partition of another version."""
    device: str | None = None
    provider: str | None = None
    counts: Counts | None = None
    ignored: dict[str, Count] = Field(default_factory=dict)
    """Numbers of files in the delivery that were not listed, by extension or kind."""
    already_scored: Count = 0
    """With mode "new": number of images that are unchanged in an earlier partition."""
    resumed_images: Count = 0
    seconds: Seconds | None = None
    """Seconds by stage, of the process that completed the partition."""
    images_per_second: float | None = None
    """Of the process that completed the partition; None if it scored less than half of the images."""
    canaries: CanaryCheck | None = None
    """Result of the canaries; None if there are none, or nothing was scored."""
    monitor: NightVerdict | None = None
    """Verdict of the monitor. None without a complete partition, and if the night was not judged."""
    mix: PredictionMix | None = None
    evaluation: NightEvaluation | None = None


class EndEstimate(Document):
    """When a run was expected to end. With `finish_by`, it is made a minute after the start."""

    made_at: Moment
    end: Moment
    images: Count
    """Images to score by the model that was scoring."""
    images_done: Count
    images_per_second: float


class Deletion(Document):
    """What retention deleted of an old night."""

    date: date
    path: str
    """Absolute path or URL of the folder of predictions, or path of the report."""
    files: Count
    bytes: Count
    run_id: str | None = None
    """Id of the attempt that deleted it."""


class RunRecord(Document):
    """`run.json`: the record of one date of a job. Replaced by rename, so it can be read at any time."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.run"] = "batchland.run"
    job: str
    job_file: str
    """Absolute path."""
    date: date
    """Date of the delivery and of the partitions."""
    config: dict[str, Any]
    """The resolved job, without the addresses of heartbeat and webhooks, and without passwords."""
    attempts: tuple[Attempt, ...] = Field(min_length=1)
    """All attempts, in the order of their start."""
    models: tuple[ModelRun, ...] = ()
    """One entry per model, in the job's order."""
    estimate: EndEstimate | None = None
    """The first estimate of the end; None without `finish_by`, and for a run of less than a minute."""
    comparisons: tuple[str, ...] = ()
    """Absolute paths of the folders that compare each further model with the first."""
    deleted: tuple[Deletion, ...] = ()
    accepted: Acceptance | None = None
    """Set if a person accepted the suspicious night."""
    withdrawn: tuple[Withdrawal, ...] = ()
    """Acceptances of the night that a person withdrew, oldest first."""
    warnings: tuple[str, ...] = ()
    """Faults that did not end the run: a heartbeat, a notification, the metrics file."""
    versions: dict[str, str]

    @property
    def deciding(self) -> Attempt:
        """The attempt that gives the night its outcome: the last one that got the job's lock and was not refused."""
        worked = [attempt for attempt in self.attempts if attempt.outcome != "locked" and not attempt.refused]
        return (worked or self.attempts)[-1]

    @property
    def outcome(self) -> Outcome:
        """Outcome of the deciding attempt; suspicious if that is ok only by an acceptance that was withdrawn later."""
        return "suspicious" if self._ok_until_withdrawn else self.deciding.outcome

    @property
    def exit_code(self) -> int | None:
        """That of the outcome."""
        return SuspiciousNightError.exit_code if self._ok_until_withdrawn else self.deciding.exit_code

    @property
    def error(self) -> str | None:
        """Error of the deciding attempt, or a sentence about an acceptance or its withdrawal."""
        if self.accepted and self.outcome == "suspicious":
            reason = f": {self.accepted.reason}" if self.accepted.reason else ""
            return f"accepted by {self.accepted.by} on {self.accepted.accepted_at[:10]}{reason}"
        if not self._ok_until_withdrawn:
            return self.deciding.error
        last = self.withdrawn[-1]
        reason = f" ({last.reason})" if last.reason else ""
        return f"the night is suspicious: {last.by} withdrew its acceptance on {last.withdrawn_at[:10]}{reason}"

    @property
    def suspicious(self) -> bool:
        """Whether the monitor found the night suspicious, whatever the job does about that."""
        return any(model.monitor and model.monitor.verdict == "suspicious" for model in self.models)

    @property
    def doubtful(self) -> bool:
        """Whether the night is suspicious and no person has accepted it."""
        return (self.suspicious or self.outcome == "suspicious") and self.accepted is None

    @property
    def good(self) -> bool:
        """Whether the night is complete and passed every check of its job; a suspicious one only if it was accepted."""
        return self.outcome in ("ok", "suspicious") and not self.doubtful

    @property
    def _ok_until_withdrawn(self) -> bool:
        if self.accepted or not self.withdrawn or self.deciding.outcome != "ok" or not self.suspicious:
            return False
        withdrawn_at = datetime.fromisoformat(self.withdrawn[-1].withdrawn_at)
        return datetime.fromisoformat(self.deciding.started_at) < withdrawn_at

    @property
    def seconds(self) -> float | None:
        """Wall seconds of the deciding attempt; None while it runs and if it was killed."""
        begin, end = self.deciding.started_at, self.deciding.finished_at
        return None if end is None else (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()

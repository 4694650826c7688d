"""What happened in one night of a job: `runs/NAME/DATE/run.json`, one document per date, whatever was started for it.

for record in read_runs(Path("runs/nightly")): print(record.date, record.outcome)
"""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from batchland.errors import UsageError
from batchland.evaluation.schema import Figures, LabelAccount, LabelSource
from batchland.predictions.schema import Counts, ModelInfo, Seconds
from batchland.system.documents import Count, Document
from batchland.system.files import remove_leftovers, replace_file
from batchland.system.lock import holder, locked

RUN_FILE: Final = "run.json"
LOG_FILE: Final = "log.jsonl"
LATEST: Final = "latest"
"""A link beside the dates, to the newest of them."""
LOCK_FILE: Final = ".lock"
"""Beside the dates; held by the kernel while a run of the job is under way."""
CONFIDENCE_BINS: Final = 20

_log = logging.getLogger("batchland")

Outcome = Literal[
    "running",
    "ok",
    "skipped",
    "too_many_failed",
    "gate_failed",
    "missing_input",
    "failed",
    "time_limit",
    "interrupted",
    "killed",
    "locked",
]
"""How an attempt, and with its last one a night, ended:

ok: everything is written and every gate passed. skipped: there was nothing to score, and the job says that this is no
fault. too_many_failed: written, but more images failed than `max_failed`. gate_failed: written and evaluated, a gate
failed. missing_input: the delivery is missing, empty or still growing. failed: an error that the sentence tells.
time_limit, interrupted: stopped in good order, a rerun goes on there. killed: ended without a word (kill -9, power);
a rerun goes on there. locked: turned away, because another run of the job was under way.
"""

ModelState = Literal["scored", "resumed", "kept", "replaced", "nothing_new", "unfinished"]
"""scored: whole, from nothing. resumed: an earlier attempt had begun it. kept: was complete before this run. replaced:
by --force. nothing_new: with mode "new", every image was scored already, so there is no partition. unfinished: not
complete."""


class Attempt(Document):
    """One try at the night. A start of the job makes one, each retry one more with the same run_id."""

    run_id: str
    """Of the process that tried; the same as in the log's lines."""
    pid: int
    host: str
    started_at: str
    """ISO 8601 with the zone's offset, as all times here."""
    finished_at: str | None = None
    """None while it runs, and for good if it was killed."""
    outcome: Outcome = "running"
    exit_code: int | None = None
    """What the process ended with, or would have without a retry. None while it runs, and if it was killed."""
    error: str | None = None
    """One sentence, unless the outcome is ok: what, where, what next."""


class PredictionMix(Document):
    """What the model answered, over the images that were scored: what drift is measured on."""

    classes: dict[str, Count]
    """Label -> images whose first choice it is: every class of the model, in its order, zeros included."""
    confidence_histogram: tuple[Count, ...]
    """Images by the first choice's probability: CONFIDENCE_BINS equal bins of (0, 1], upper ends included."""
    mean_confidence: float | None
    """None without a scored image."""


class GateVerdict(Document):
    """A gate of the job and what it found."""

    gate: str
    """The condition under which the night fails, as the job states it."""
    verdict: Literal["passed", "failed", "not_checked"]
    """not_checked: it compares with the last good night, and there is none yet."""
    value: float | None = None
    """What was compared with the limit."""
    message: str


class NightEvaluation(Document):
    """A model's predictions against the labels; the whole of it is in the report."""

    report: str
    """Absolute path of the report folder."""
    labels: LabelSource
    account: LabelAccount
    figures: Figures
    """With their intervals."""
    baseline: str | None = None
    """What drops are measured against: the date of the last good night, or the path of a fixed report."""
    gates: tuple[GateVerdict, ...] = ()


class ModelRun(Document):
    """What one model of the job made of the night."""

    name: str
    """As the job calls it; of a partition that was kept, as it was called when it scored that."""
    partition: str
    """Absolute path of the folder that holds the predictions."""
    state: ModelState
    """With nothing_new and unfinished, the fields below are None."""
    run_id: str | None = None
    """Of the predictions, as in their manifest: derived from model, options and input."""
    model: ModelInfo | None = None
    device: str | None = None
    provider: str | None = None
    counts: Counts | None = None
    already_scored: Count = 0
    """With mode "new": images that an earlier partition holds unchanged."""
    resumed_images: Count = 0
    seconds: Seconds | None = None
    """Of the process that completed the partition."""
    images_per_second: float | None = None
    mix: PredictionMix | None = None
    evaluation: NightEvaluation | None = None


class Deletion(Document):
    """What retention deleted of an old night."""

    date: date
    path: str
    """Absolute path of the folder of predictions or of the report."""
    files: Count
    bytes: Count
    run_id: str | None = None
    """Of the attempt that deleted it."""


class RunRecord(Document):
    """`run.json`: all that happened for one date of a job. Replaced by rename, so that it can be read at any time."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.run"] = "batchland.run"
    job: str
    job_file: str
    """Absolute path."""
    date: date
    """Of the delivery, and of the partitions."""
    config: dict[str, Any]
    """The job as it was resolved, the heartbeat's address aside."""
    attempts: tuple[Attempt, ...] = Field(min_length=1)
    """In the order in which they began."""
    models: tuple[ModelRun, ...] = ()
    """In the job's order."""
    comparisons: tuple[str, ...] = ()
    """Absolute paths of the folders that compare each further model's report with the first one's."""
    deleted: tuple[Deletion, ...] = ()
    warnings: tuple[str, ...] = ()
    """What went wrong beside the work: a heartbeat, a notification, the metrics file."""
    versions: dict[str, str]

    @property
    def deciding(self) -> Attempt:
        """The attempt that says how the night stands: the last one that was not turned away."""
        tried = [attempt for attempt in self.attempts if attempt.outcome != "locked"]
        return (tried or list(self.attempts))[-1]

    @property
    def outcome(self) -> Outcome:
        """How the night stands."""
        return self.deciding.outcome

    @property
    def exit_code(self) -> int | None:
        """Of the deciding attempt."""
        return self.deciding.exit_code

    @property
    def error(self) -> str | None:
        """Of the deciding attempt."""
        return self.deciding.error

    @property
    def good(self) -> bool:
        """Whether the night is complete and passed everything; later nights are compared with the last good one."""
        return self.outcome == "ok"

    @property
    def seconds(self) -> float | None:
        """Wall seconds of the deciding attempt; None while it runs and if it was killed."""
        begin, end = self.deciding.started_at, self.deciding.finished_at
        return None if end is None else (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def read_runs(folder: str | os.PathLike[str]) -> list[RunRecord]:
    """The records of a job, `folder` being `runs/NAME`, oldest date first; none if the folder does not exist.

    An attempt that says `running` while no process holds the job's lock reads as `killed`. A record that cannot be read
    (another version's, perhaps) is passed over with a warning in the log: it must not end tonight's run.
    """
    root = Path(folder)
    records = []
    for name in sorted(name for name in _names(root) if _is_date(name) and (root / name / RUN_FILE).is_file()):
        try:
            records.append(read_run(root / name))
        except UsageError as error:
            _log.warning("%s", error)
    return records


def read_run(folder: Path) -> RunRecord:
    """The record of one night, `folder` being `runs/NAME/DATE`; see `read_runs`. Raises UsageError."""
    path = folder / RUN_FILE
    # The lock is asked first: a run that ends in between is then read as what it ended with.
    running = holder(folder.parent / LOCK_FILE)
    try:
        record = RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a folder runs/NAME/DATE") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise UsageError(f"{path}: is no record that this batchland reads ({where}); move it away") from error
    attempts = (_as_it_is(attempt, running) for attempt in record.attempts)
    return record.model_copy(update={"attempts": tuple(attempts)})


def update_run(folder: Path, record: RunRecord) -> RunRecord:
    """Write `record` into `folder` (`runs/NAME/DATE`), keeping the attempts of others there, and return it so.

    May be called by a run that was turned away while another one writes: its attempt is added and nothing else is
    touched. Raises OSError if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN_FILE
    with locked(folder / f".{RUN_FILE}.lock", str(path), wait=10):
        if path.exists():
            before = read_run(folder)
            merged = {_key(attempt): attempt for attempt in (*before.attempts, *record.attempts)}
            attempts = tuple(sorted(merged.values(), key=lambda attempt: datetime.fromisoformat(attempt.started_at)))
            turned_away = all(attempt.outcome == "locked" for attempt in record.attempts)
            record = (before if turned_away else record).model_copy(update={"attempts": attempts})
        remove_leftovers(folder)
        replace_file(path, record.model_dump_json(indent=2) + "\n")
    return record


def point_to_latest(root: Path) -> None:
    """Let `runs/NAME/latest` be a link to the newest date that has a record."""
    newest = max(name for name in _names(root) if _is_date(name) and (root / name / RUN_FILE).is_file())
    temporary = root / f".{LATEST}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(newest)
    temporary.replace(root / LATEST)


def last_good(records: Iterable[RunRecord], before: date | None = None) -> RunRecord | None:
    """The newest good night, of those before a date if that is given."""
    good = [record for record in records if record.good and (before is None or record.date < before)]
    return max(good, key=lambda record: record.date, default=None)


def _key(attempt: Attempt) -> tuple[str, str]:
    return attempt.run_id, attempt.started_at


def _as_it_is(attempt: Attempt, running: dict[str, Any] | None) -> Attempt:
    """The attempt, `killed` if it says that it runs and its process does not hold the job's lock."""
    if attempt.outcome != "running":
        return attempt
    if running and (running.get("pid"), running.get("host")) == (attempt.pid, attempt.host):
        begin, since = (datetime.fromisoformat(time) for time in (attempt.started_at, running["since"]))
        if begin >= since:  # else it is an earlier process of the same number
            return attempt
    error = "ended without a word (killed, or the machine went down); run it again, it goes on there"
    return attempt.model_copy(update={"outcome": "killed", "error": error})


def _names(root: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(root)
    return []


def _is_date(name: str) -> bool:
    with suppress(ValueError):
        return date.fromisoformat(name).isoformat() == name
    return False

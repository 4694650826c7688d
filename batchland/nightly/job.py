"""The job file: the configuration of a night's run, as TOML.

job = load_job(Path("jobs/nightly.toml"))
"""

import datetime as dt
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_serializer,
    model_validator,
)

from batchland.errors import BatchlandError, IncompleteDeliveryError, MissingInputError, UsageError
from batchland.models.devices import PATTERN as DEVICES
from batchland.models.devices import parse_device
from batchland.models.find import find_model_version
from batchland.models.registry import Found, Reference
from batchland.nightly.job_fields import (
    ClockTime,
    DatedLocation,
    Duration,
    JobLocation,
    JobModel,
    JobPath,
    Patterns,
    PositiveDuration,
    checked_by,
    expand,
)
from batchland.nightly.job_tables import (
    DeliveryTable,
    EvaluationTable,
    HeartbeatTable,
    MonitorTable,
    NotifyTable,
    RetentionTable,
    RetryTable,
    ReuseTable,
)
from batchland.nightly.placeholders import Placeholders
from batchland.nightly.run_record import RegistryVersion
from batchland.predictions.storage import Location, join_location, public_location
from batchland.scoring.options import FailureLimit, ScoreSettings
from batchland.system.files import read_error
from batchland.system.options import explain
from batchland.system.paths import resolved
from batchland.system.regular_files import read_regular
from batchland.system.text import SAFE_NAME


class Job(ScoreSettings):
    """A job: its images, its models, and the handling of the predictions."""

    model_config = ConfigDict(validate_default=True)

    name: Annotated[str, Field(pattern=rf"^{SAFE_NAME}$", max_length=100)]
    """Name of the job and of its folder of records; by default the file's name without .toml."""
    root: Path = Path()
    """Folder that relative paths start from, itself relative to the job file's folder."""
    date: Literal["today", "yesterday"] = "yesterday"
    """The night of a run that gives no date, by local time."""
    images: DatedLocation
    """Folder of the images; or a URL, or tar or Parquet files (docs/sources.md). May contain {date} or, as in strftime,
    {date:%Y/%m/%d}."""
    include: Patterns = ()
    """Score only images that match one of these patterns (as in .gitignore); none means all."""
    exclude: Patterns = ()
    """Leave out images that match one of these patterns (as in .gitignore)."""
    model: JobModel | None = None
    """ONNX file, or `NAME@ALIAS` of the registry. For several models use [models]."""
    models: dict[Annotated[str, Field(pattern=rf"^{SAFE_NAME}$")], JobModel] = Field(default_factory=dict)
    """Several models by name; each scores all images, into output/model=NAME/date=DATE."""
    registry: JobLocation = Path("models")
    """Folder of the registry (`batchland models`), or the URL of an MLflow server (extra mlflow)."""
    output: JobLocation = Path("predictions")
    """Folder or URL of the partitions; a run owns date=DATE in it."""
    mode: Literal["all", "new"] = "all"
    """all; or new: only images that are in no other partition of this output with the same path, size and time."""
    device: Annotated[
        str,
        AfterValidator(checked_by(parse_device)),
        WithJsonSchema({"type": "string", "pattern": rf"^(?:{DEVICES})$"}),
    ] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` instead of `cuda`."""
    max_failed: Annotated[
        str | None,
        BeforeValidator(lambda value: str(value) if type(value) is int else value),
        AfterValidator(checked_by(FailureLimit.parse)),
        WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": [20, "1.5%"]}),
    ] = None
    """The night fails if more images than this failed: a number or a percentage. The default allows any number, but a
    night in which every image failed always fails."""
    on_missing: Literal["fail", "skip"] = "fail"
    """fail or skip the night if the folder of images is missing, empty or still growing."""
    settle: Duration = dt.timedelta(0)
    """The folder counts as still growing until nothing in it has changed for this long. A run that waits (`[retry]`)
    looks again as soon as this can be the case."""
    time_limit: PositiveDuration | None = None
    """A run stops after this time, at the end of a batch; the next run resumes there."""
    finish_by: ClockTime | None = None
    """Local time of day, like "06:00". The run estimates its end a minute after the start; if that is later, it warns
    and sends a notification. At this time it stops as at time_limit."""
    runs: JobPath = Path("runs")
    """Folder of the records: runs/NAME/DATE/run.json, log and reports."""
    metrics: JobPath | None = None
    """File for Prometheus's node exporter (textfile collector), NAME.prom."""
    delivery: DeliveryTable | None = None
    monitor: MonitorTable = MonitorTable()
    reuse: ReuseTable | None = None
    retry: RetryTable = RetryTable()
    evaluation: EvaluationTable | None = None
    retention: RetentionTable | None = None
    heartbeat: HeartbeatTable | None = None
    notify: NotifyTable | None = None
    _file: Path = PrivateAttr(default=Path())
    _versions: dict[str, Found] = PrivateAttr(default_factory=dict)
    _placeholders: Placeholders = PrivateAttr(default=Placeholders(Path()))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, model in self.models.items():
            if name in Job.model_fields and isinstance(model, Path) and not model.suffix:
                raise ValueError(f'"{name}" in [models] is no model; the key "{name}" belongs above all tables')
        if (self.model is None) == (not self.models):
            raise ValueError("give either model or [models]")
        if self.metrics is not None and self.metrics.suffix != ".prom":
            raise ValueError("metrics must end in .prom, or the node exporter ignores it")
        if self.mode == "new" and self.retention is not None:
            raise ValueError(
                'mode = "new" finds scored images in the partitions, so with [retention] images would be scored again; '
                "leave one of them out"
            )
        if self._mixes_folders():
            raise ValueError('"output" and "runs" would mix predictions with records; give one of them another folder')
        return self

    def _mixes_folders(self) -> bool:
        """Whether partitions would lie among the records of this job, or the records among the partitions."""
        if not isinstance(self.output, Path):
            return False
        output, runs = resolved(self.output), resolved(self.runs)
        return runs.is_relative_to(output) or output.is_relative_to(runs / self.name)

    @field_serializer("heartbeat")
    def _without_address(self, heartbeat: HeartbeatTable | None) -> dict[str, Any] | None:
        """The table without its addresses, which work like passwords and must not be in records."""
        return heartbeat.model_dump(mode="json", exclude={"url", "start", "success", "failure"}) if heartbeat else None

    @field_serializer("notify")
    def _without_addresses(self, notify: NotifyTable | None) -> dict[str, Any] | None:
        """The table without the webhooks' addresses and the login, for the same reason."""
        hidden: dict[str, Any] = {"slack": True, "teams": True, "webhook": True, "mail": {"user", "password"}}
        return notify.model_dump(mode="json", exclude=hidden) if notify else None

    @property
    def file(self) -> Path:
        """Absolute path of the job file."""
        return self._file

    @property
    def placeholders(self) -> Placeholders:
        """The values from the environment and from files, to hide them in everything that is written."""
        return self._placeholders

    @property
    def folder(self) -> Path:
        """`runs/NAME`."""
        return self.runs / self.name

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models in the order of the job file. A single model is named after its file or registry."""
        return tuple(self._models)

    def model_file(self, name: str) -> Path:
        """The ONNX file of a model. Raises ModelError if the registry does not have it."""
        model = self._models[name]
        return model if isinstance(model, Path) else self._find_version(name, model).file

    def skips_night(self, error: BatchlandError) -> bool:
        """Whether a night that ends with this error is skipped: nothing was delivered, and `on_missing` allows that."""
        missing = isinstance(error, MissingInputError) and not isinstance(error, IncompleteDeliveryError)
        return missing and self.on_missing == "skip"

    @property
    def checks_canaries(self) -> bool:
        """Whether a night scores the canaries of its models. A cluster does not see this machine's files."""
        return self.monitor.canaries and self.engine == "local"

    def model_version(self, name: str) -> RegistryVersion | None:
        """The version of a model in the registry; None for a file. Read once, so that a run uses one version."""
        model = self._models[name]
        if isinstance(model, Path):
            return None
        registry, found = str(public_location(self.registry)), self._find_version(name, model)
        return RegistryVersion(registry=registry, reference=str(model), version=found.version)

    @property
    def _models(self) -> dict[str, Path | Reference]:
        if self.models or self.model is None:
            return self.models
        return {self.model.stem if isinstance(self.model, Path) else self.model.name: self.model}

    def _find_version(self, name: str, reference: Reference) -> Found:
        if name not in self._versions:
            self._versions[name] = find_model_version(self.registry, reference)
        return self._versions[name]

    def images_of(self, night: dt.date) -> Location:
        """The folder or the URL to score."""
        return expand(self.images, night)

    def partition(self, model: str, night: dt.date) -> Location:
        """The folder of a model's predictions for a night."""
        output = join_location(self.output, f"model={model}") if self.models else self.output
        return join_location(output, f"date={night}")

    def report(self, model: str, night: dt.date) -> Path:
        """The folder of the report on a model for a night."""
        return self.folder / str(night) / "report" / model

    def comparison(self, first: str, second: str, night: dt.date) -> Path:
        """The folder that compares the second model with the first."""
        return self.folder / str(night) / "comparison" / f"{first}-{second}"

    def night(self, today: dt.date) -> dt.date:
        """The night of a run that gives no date."""
        return today if self.date == "today" else today - dt.timedelta(days=1)


def load_job(path: Path, settings: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> Job:
    """Read and validate a job file; `${NAME}` and `${file:PATH}` in its strings are filled in.

    settings: `key=value` pairs that take precedence, values as in TOML. variables: for `${NAME}`, besides those of the
    environment.

    Raises UsageError, which names the file and every wrong key.
    """
    try:
        content = tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except OSError as error:
        raise read_error(error, str(path), expected="a job file") from error
    except RecursionError as error:
        raise UsageError(f"{path}: is not a TOML file: its lists are nested too deeply") from error
    except ValueError as error:  # also numbers of thousands of digits
        raise UsageError(f"{path}: is not a TOML file: {str(error).partition(';')[0]}") from error
    for setting in settings:
        _set(content, setting)
    placeholders = Placeholders(path.parent, variables)
    try:
        content = placeholders.fill(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if "\\u0000" in json.dumps(content, default=str):
        raise UsageError(f"{path}: a value holds a zero byte; remove it")
    content.setdefault("name", path.stem)
    root = path.parent / str(content.get("root", "."))
    try:
        job = Job.model_validate(content, context={"root": resolved(root)})
        job._file = path.absolute()
        job._placeholders = placeholders
    except ValidationError as error:
        message = placeholders.hide(explain(error, Job, "key", placeholders.hide))
        dated = any(each["loc"] == ("date",) for each in error.errors())
        # the cause would show secrets
        raise UsageError(f"{path}: {message}", advice="one_night" if dated else None) from None
    return job


def _set(content: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UsageError(f"setting {setting!r}: is not KEY=VALUE; write it like batch_size=8")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # a bare word
        value = text
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise UsageError(f"setting {setting!r}: {table} is not a table")
    content[last] = value

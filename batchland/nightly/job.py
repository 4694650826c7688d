"""The job file: what a night's run does, as TOML, validated at the door. Knows nothing of how it is done.

job = load_job(Path("jobs/nightly.toml"))
"""

import datetime as dt
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from batchland.errors import BatchlandError, UsageError
from batchland.evaluation.evaluate import EvaluateOptions
from batchland.evaluation.gates import parse_gate
from batchland.images.sources.patterns_filter import matcher
from batchland.models.devices import PATTERN as DEVICES
from batchland.models.devices import parse_device
from batchland.scoring.options import FailureLimit, ScoreSettings
from batchland.system.options import Options, explain
from batchland.system.urls import is_url

LAST_GOOD: Final = "last-good"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_DATE: Final = re.compile(r"date(?::(.+))?")
_DURATION: Final = r"\s*\d+(\.\d+)?\s*[smhd]\s*"


def _duration(value: object) -> dt.timedelta:
    if isinstance(value, dt.timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
        raise ValueError('is no duration; write it like "90s", "10m", "3h" or "2d"')
    number, unit = value.strip()[:-1], value.strip()[-1]
    return dt.timedelta(seconds=float(number) * _UNITS[unit])


def _seconds(value: dt.timedelta) -> str:
    return f"{value.total_seconds():g}s"


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_duration),
    PlainSerializer(_seconds, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["90s", "10m", "3h", "2d"]}),
]


def _below_root(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["root"], path.expanduser()) if info.context else path


def _baseline(path: Path, info: ValidationInfo) -> Path:
    return path if path == Path(LAST_GOOD) else _below_root(path, info)


def _undated(path: Path) -> Path:
    if _PLACE.search(str(path)):
        raise ValueError("only images and labels may say {date}")
    return path


def _template(path: Path) -> Path:
    expand(path, dt.date(2000, 1, 1))
    return path


def _told_as_value_error(check: Any) -> Any:
    def checked(value: Any) -> Any:
        try:
            if value is not None:
                check(value)
        except BatchlandError as error:
            raise ValueError(str(error)) from error
        return value

    return checked


def _no_url(path: Any) -> Any:
    if isinstance(path, str) and is_url(path):
        raise ValueError("is a URL, but a job works on paths of its machine; mount the storage")
    return path


JobPath = Annotated[Path, BeforeValidator(_no_url), AfterValidator(_undated), AfterValidator(_below_root)]
"""Relative ones are below the job's `root`."""
DatedPath = Annotated[Path, BeforeValidator(_no_url), AfterValidator(_template), AfterValidator(_below_root)]
"""May say `{date}` or, as in strftime, `{date:%Y/%m/%d}`."""
Patterns = Annotated[tuple[str, ...], AfterValidator(_told_as_value_error(matcher))]


def expand(path: Path, date: dt.date) -> Path:
    """`path` with its `{date}` and `{date:%Y/%m/%d}` filled in. Raises ValueError for other braces."""

    def fill(place: re.Match[str]) -> str:
        found = _DATE.fullmatch(place[1])
        if not found:
            raise ValueError(f"{place[0]} is not known; write {{date}} or {{date:%Y/%m/%d}}")
        return date.strftime(found[1]) if found[1] else date.isoformat()

    return Path(_PLACE.sub(fill, str(path)))


class _Table(Options):
    model_config = ConfigDict(validate_default=True)


class EvaluationTable(EvaluateOptions):
    """`[evaluation]`: compare the predictions with labels, and let gates decide about the night."""

    model_config = ConfigDict(validate_default=True)

    labels: DatedPath
    """A folder of class folders, or a CSV or Parquet file with the columns image and label. May say {date}."""
    on_missing: Literal["fail", "skip"] = "fail"
    """fail, or skip the evaluation, where there are no labels."""
    gates: tuple[Annotated[str, AfterValidator(_told_as_value_error(parse_gate))], ...] = ()
    """Conditions under which the night fails, like "top1 < 0.70" or "drop(top1) > 2%"."""
    baseline: Annotated[Path, AfterValidator(_baseline)] = Path(LAST_GOOD)
    """What a drop is measured against: "last-good", the last good night before this one; or a report folder."""
    compare: bool = True
    """With two models or more: compare the others with the first."""
    images: JobPath | None = None
    """Where the images are now, for thumbnails and brightness; the default is the folder that was scored."""


class RetryTable(_Table):
    """`[retry]`: try again after a fault that may pass: no delivery yet, a full disk, a device in use."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """How often in all."""
    wait: Duration = dt.timedelta(minutes=1)
    """Before the second attempt; twice as long before each further one."""


class RetentionTable(_Table):
    """`[retention]`: which nights keep their predictions and reports. One reason to keep is enough; records stay."""

    keep_days: Annotated[int, Field(ge=1)] | None = None
    """Keep nights whose date is less than so many days before that of the run."""
    keep_nights: Annotated[int, Field(ge=1)] | None = None
    """Keep the newest so many nights, the run's included."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.keep_days is None and self.keep_nights is None:
            raise ValueError("give keep_days, keep_nights or both")
        return self


class HeartbeatTable(_Table):
    """`[heartbeat]`: tell a monitor that the job started and how it ended, by HTTP GET."""

    url: Annotated[str, AfterValidator(lambda url: str(HttpUrl(url)).rstrip("/"))]
    """Address of the check, as healthchecks.io and its kind give it."""
    start: str = "{url}/start"
    """Pinged at the start; empty for none."""
    success: str = "{url}"
    """Pinged after a night that ended with exit code 0."""
    failure: str = "{url}/{exit_code}"
    """Pinged after any other night."""
    timeout: Duration = dt.timedelta(seconds=10)
    """A ping never holds the job up for longer."""

    def address(self, template: str, exit_code: int | None = None) -> str:
        """One of the three addresses, filled in."""
        return template.replace("{url}", self.url).replace("{exit_code}", str(exit_code))

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for template in filter(None, (self.start, self.success, self.failure)):
            if not self.address(template).startswith(("http://", "https://")):
                raise ValueError(f"{template!r} is no http address; write it like '{{url}}/start'")
        return self


class NotifyTable(_Table):
    """`[notify]`: run a command at the end, with the night's summary on its standard input."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments, without a shell. BATCHLAND_JOB, _DATE, _OUTCOME, _EXIT_CODE, _ERROR and _RUN are set."""
    on: Literal["failure", "change", "always"] = "failure"
    """failure: after a night that did not end with exit code 0. change: then, and after the first good one. always."""
    timeout: Duration = dt.timedelta(seconds=30)
    """The command is ended after that."""


class Job(ScoreSettings):
    """What a night's run does: which images, which models, what becomes of the predictions."""

    model_config = ConfigDict(validate_default=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the job and of its folder of records; by default the file's name without .toml."""
    root: Path = Path()
    """Where relative paths begin, itself relative to the job file's folder."""
    date: Literal["today", "yesterday"] = "yesterday"
    """The night that a run without --date is about, by local time."""
    images: DatedPath
    """Folder of the images. May say {date} or, as in strftime, {date:%Y/%m/%d}."""
    include: Patterns = ()
    """Score only images that match one of these patterns (as in .gitignore); none means all."""
    exclude: Patterns = ()
    """Leave out images that match one of these patterns (as in .gitignore)."""
    model: JobPath | None = None
    """ONNX file; or give several as [models]."""
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], JobPath] = Field(default_factory=dict)
    """Several ONNX files by name; each scores all images, into output/model=NAME/date=DATE."""
    output: JobPath = Path("predictions")
    """Folder of the partitions; a run owns date=DATE in it."""
    mode: Literal["all", "new"] = "all"
    """all, or new: only images that no other partition of this output holds unchanged, by path, size and time."""
    device: Annotated[
        str,
        AfterValidator(_told_as_value_error(parse_device)),
        WithJsonSchema({"type": "string", "pattern": rf"^(?:{DEVICES})$"}),
    ] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` in place of `cuda`."""
    max_failed: Annotated[
        str | None,
        BeforeValidator(lambda value: str(value) if type(value) is int else value),
        AfterValidator(_told_as_value_error(FailureLimit.parse)),
        WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": [20, "1.5%"]}),
    ] = None
    """The night fails if more images do: a number or a percentage. The default allows any number."""
    on_missing: Literal["fail", "skip"] = "fail"
    """fail or skip, if the folder of images is missing, empty or still growing."""
    settle: Duration = dt.timedelta(0)
    """The folder counts as growing until nothing in it has changed for so long."""
    time_limit: Duration | None = None
    """A run stops in good order after that; the next one goes on there."""
    runs: JobPath = Path("runs")
    """Folder of the records: runs/NAME/DATE/run.json, log and reports."""
    metrics: JobPath | None = None
    """File for Prometheus's node exporter (textfile collector), NAME.prom."""
    retry: RetryTable = RetryTable()
    evaluation: EvaluationTable | None = None
    retention: RetentionTable | None = None
    heartbeat: HeartbeatTable | None = None
    notify: NotifyTable | None = None
    _file: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.model is None) == (not self.models):
            raise ValueError("give either model or [models]")
        if self.metrics is not None and self.metrics.suffix != ".prom":
            raise ValueError("metrics must end in .prom, or the node exporter passes it over")
        if self.mode == "new" and self.retention is not None:
            raise ValueError(
                'mode = "new" knows an image by the partition that holds it, so [retention] would have images scored '
                "again; leave one of them out"
            )
        return self

    @field_serializer("heartbeat")
    def _without_address(self, heartbeat: HeartbeatTable | None) -> dict[str, Any] | None:
        """A heartbeat's address is a password of sorts; it is not for records."""
        return heartbeat.model_dump(mode="json", exclude={"url"}) if heartbeat else None

    @property
    def file(self) -> Path:
        """Absolute path of the job file."""
        return self._file

    @property
    def folder(self) -> Path:
        """`runs/NAME`."""
        return self.runs / self.name

    @property
    def all_models(self) -> dict[str, Path]:
        """Name -> ONNX file; a single one is called as its file."""
        return self.models or ({self.model.stem: self.model} if self.model else {})

    def images_of(self, night: dt.date) -> Path:
        """The folder to score."""
        return expand(self.images, night)

    def partition(self, model: str, night: dt.date) -> Path:
        """The folder that the predictions of a model for a night are in."""
        output = self.output / f"model={model}" if self.models else self.output
        return output / f"date={night}"

    def report(self, model: str, night: dt.date) -> Path:
        """The folder that the report on a model for a night is in."""
        return self.folder / str(night) / "report" / model

    def comparison(self, first: str, second: str, night: dt.date) -> Path:
        """The folder that compares the second model with the first."""
        return self.folder / str(night) / "comparison" / f"{first}-{second}"

    def night(self, today: dt.date) -> dt.date:
        """What a run without a date is about."""
        return today if self.date == "today" else today - dt.timedelta(days=1)


def load_job(path: Path, settings: Sequence[str] = ()) -> Job:
    """Read and validate a job file. settings: `key=value` pairs that take precedence, values as in TOML.

    Raises UsageError, in one line, with the file and what is wrong in it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a job file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is no TOML file: {error}") from error
    for setting in settings:
        _set(content, setting)
    content.setdefault("name", path.stem)
    root = path.parent / str(content.get("root", "."))
    try:
        job = Job.model_validate(content, context={"root": root.resolve()})
        job._file = path.absolute()
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, Job, 'key')}") from error
    return job


def job_schema() -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    schema = Job.model_json_schema(schema_generator=_JobSchema)
    schema["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _JobSchema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return _seconds(dft) if isinstance(dft, dt.timedelta) else super().encode_default(dft)


def _set(content: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UsageError(f"--set {setting!r}: is not KEY=VALUE; write it like --set batch_size=8")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word
        value = text
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {setting!r}: {table} is not a table")
    content[last] = value

"""The tables of the job file: [evaluation], [retry], [retention], [heartbeat], [notify], [notify.mail]."""

import contextlib
import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from batchland.evaluation.gates import parse_gate
from batchland.evaluation.options import EvaluateOptions
from batchland.monitoring.budget import DEFAULT, LARGEST, SMALLEST
from batchland.nightly.job_fields import (
    Amount,
    DatedPath,
    Duration,
    JobPath,
    Percentage,
    PositiveDuration,
    Share,
    amount_of,
    below_root,
    checked_by,
)
from batchland.system.options import Options

LAST_GOOD: Final = "last-good"
_ADDRESS: Final = r"^[^@\s<>,]+@[^@\s<>,]+$"


def _mail_address(text: str) -> str:
    if not re.match(_ADDRESS, text):
        raise ValueError('is not a mail address; write it like "ops@example.org"')
    return text


_MailAddress = Annotated[str, AfterValidator(_mail_address), WithJsonSchema({"type": "string", "pattern": _ADDRESS})]


def _web_address(url: str) -> str:
    if {"{", "}"} & set(url):
        raise ValueError("has braces; write ${NAME} or ${file:PATH}, or for braces themselves %7B and %7D")
    return str(HttpUrl(url))


_WebAddress = Annotated[str, AfterValidator(_web_address)]
"""As browsers write it: line breaks are removed, spaces and letters that are not ASCII are encoded."""


def _baseline(path: Path, info: ValidationInfo) -> Any:
    return path if path == Path(LAST_GOOD) else below_root(path, info)


class JobTable(Options):
    """Base of the tables."""

    model_config = ConfigDict(validate_default=True)


class EvaluationTable(EvaluateOptions):
    """`[evaluation]`: compare the predictions with labels, and fail the night by gates."""

    model_config = ConfigDict(validate_default=True)

    labels: DatedPath
    """A folder of class folders, or a CSV or Parquet file with the columns image and label. May contain {date}."""
    on_missing: Literal["fail", "skip"] = "fail"
    """If there are no labels: fail the night, or skip the evaluation."""
    gates: tuple[Annotated[str, AfterValidator(checked_by(parse_gate))], ...] = ()
    """Conditions under which the night fails, like "top1 < 0.70" or "drop(top1) > 2%"."""
    baseline: Annotated[Path, AfterValidator(_baseline)] = Path(LAST_GOOD)
    """Drops are measured against this: "last-good" (the last good night before this one) or a report folder."""
    compare: bool = True
    """With several models: compare each of the others with the first."""
    images: JobPath | None = None
    """Folder where the images are now, for thumbnails and brightness; the default is the scored folder."""
    corrections: JobPath | None = None
    """CSV file of corrected labels, as saved by the report's page; labels with the decision `wrong` are replaced."""


class DeliveryTable(JobTable):
    """`[delivery]`: what a complete delivery is. A night with another one ends before it scores anything."""

    min_images: Annotated[int, Field(ge=1)] | None = None
    """With fewer images, the delivery is incomplete (exit code 66)."""
    max_images: Annotated[int, Field(ge=1)] | None = None
    """With more images, the delivery is wrong (exit code 4)."""
    min_of_usual: Share | None = None
    """With fewer images than this share (up to 100%) of the usual number, the delivery is incomplete (66). The usual
    number is the median of the last 28 good nights, or of the same weekday among the last 56 if there are at least
    4. It needs at least five good nights."""
    max_of_usual: Percentage | None = None
    """With more images than this share of the usual number, the delivery is wrong (4)."""
    expected: DatedPath | None = None
    """CSV file (with commas, semicolons or tabs) with the column image, and optionally size (bytes) and sha256. If
    images are missing or have other contents, the delivery is incomplete (66); with unexpected images it is wrong (4).
    May contain {date}."""
    max_ignored: Amount | None = None
    """With more ignored files than this (a number or a percentage of the images), the delivery is wrong (4). Hidden,
    excluded and already scored files are not counted."""
    max_duplicates: Amount | None = None
    """With more copies of other images of this night or of the last 30 scored nights, the delivery is wrong (4). Reads
    every image once more."""
    late: Literal["warn", "score"] = "warn"
    """Images that arrive after the night is complete: warn names them, score adds them to the partition."""

    @model_validator(mode="after")
    def _least_is_not_above_largest(self) -> Self:
        if self.min_images is not None and self.max_images is not None and self.min_images > self.max_images:
            raise ValueError(f"min_images {self.min_images} is more than max_images {self.max_images}")
        if (
            self.min_of_usual
            and self.max_of_usual
            and amount_of(self.min_of_usual, 1) > amount_of(self.max_of_usual, 1)
        ):
            raise ValueError(f"min_of_usual {self.min_of_usual} is more than max_of_usual {self.max_of_usual}")
        return self


def _dates_or_path(value: object) -> object:
    if isinstance(value, list | tuple):
        with contextlib.suppress(ValueError):
            first, last = (each if isinstance(each, dt.date) else dt.date.fromisoformat(str(each)) for each in value)
            return first, last
    elif value is None or isinstance(value, str | Path):
        return value
    raise ValueError("should be two dates, like [2026-11-01, 2026-11-14], or the path of predictions")


class MonitorTable(JobTable):
    """`[monitor]`: find faults of a night without labels."""

    canaries: bool = True
    """Score the canaries of a model first, if it has any; a difference ends the night (exit code 5). Not with Ray."""
    action: Literal["fail", "warn", "off"] = "fail"
    """What to do with a night that differs from the good nights: fail ends it with outcome suspicious (exit code 6),
    warn adds a warning to the record. off disables the monitor."""
    reference: Annotated[tuple[dt.date, dt.date] | JobPath | None, BeforeValidator(_dates_or_path)] = None
    """What nights are compared with: the first and the last of some good nights, or the predictions of labelled photos
    (`batchland score` writes them). The default is the first 60 good nights, or the first 60 since the last accepted
    change."""
    repeats: bool = False
    """Nights contain images of earlier nights on purpose, for example because the folder of images is not emptied. Then
    copies of earlier nights are not reported."""
    false_alarms: Annotated[float, Field(ge=SMALLEST, le=LARGEST)] = DEFAULT
    """Allowed number of good nights per year with the verdict suspicious. It sets the limits of all comparisons, as
    measured on simulated years. With a smaller number, fewer faults are found."""
    min_accuracy: Share | None = None
    """If the estimated accuracy is lower, the night fails as by a gate (exit code 4). Needs an estimator beside the
    model, see `batchland estimator`; a night without an estimate passes."""
    max_strangers: Percentage | None = None
    """If the share of strangers (images unlike the model's known photos) is larger, the night fails as by a gate (exit
    code 4). Needs a model of `batchland calibrate --known`."""

    @model_validator(mode="after")
    def _first_is_not_after_last(self) -> Self:
        if isinstance(self.reference, tuple) and self.reference[0] > self.reference[1]:
            raise ValueError("the first night of reference is after the last one")
        return self


class ReuseTable(JobTable):
    """`[reuse]`: copy the rows of images with the same content from earlier nights, also if the names differ."""

    nights: Annotated[int, Field(ge=1)] = 30
    """Search this many of the newest other complete partitions. Rows of another model, or made with other options or
    package versions, are not copied. New images are read twice."""


class RetryTable(JobTable):
    """`[retry]`: try again after a temporary fault: no delivery yet, a full disk, a device in use."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """Total number of attempts."""
    wait: Duration = dt.timedelta(minutes=1)
    """Time before the second attempt; it doubles before each further one."""


class RetentionTable(JobTable):
    """`[retention]`: delete predictions and reports of nights that neither rule keeps. Records stay."""

    keep_days: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Keep nights less than this many days before the night of the run."""
    keep_nights: Annotated[int, Field(ge=1)] | None = None
    """Keep this many of the newest nights, including that of the run."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.keep_days is None and self.keep_nights is None:
            raise ValueError("give keep_days, keep_nights or both")
        return self


class HeartbeatTable(JobTable):
    """`[heartbeat]`: ping a monitor by HTTP GET when the job starts and ends."""

    url: Annotated[_WebAddress, AfterValidator(lambda url: url.rstrip("/"))]
    """Address of the check, as given by healthchecks.io and similar services."""
    start: str = "{url}/start"
    """Pinged at the start; empty for none."""
    success: str = "{url}"
    """Pinged after a night that ended with exit code 0."""
    failure: str = "{url}/{exit_code}"
    """Pinged after any other night."""
    timeout: PositiveDuration = dt.timedelta(seconds=10)
    """Timeout of each ping."""

    def address(self, template: str, exit_code: int | None = None) -> str:
        """One of the three addresses, filled in."""
        return template.replace("{url}", self.url).replace("{exit_code}", str(exit_code))

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for name in ("start", "success", "failure"):
            template = getattr(self, name)
            address = self.address(template)
            if template and not address.startswith(("http://", "https://")):
                raise ValueError(f"{name} is not an http address; write it like '{{url}}/start'")
            if {"{", "}"} & set(address):
                raise ValueError(f"{name} has other braces than {{url}} and {{exit_code}}")
        return self


class MailTable(JobTable):
    """`[notify.mail]`: send notifications by SMTP."""

    to: Annotated[tuple[_MailAddress, ...], Field(min_length=1)]
    """Addresses of the recipients."""
    sender: _MailAddress
    """Address of the sender."""
    server: Annotated[str, Field(min_length=1)]
    """Host name of the mail server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Usually 587 with starttls, 465 with tls, 25 with none."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """Encryption of the connection. none only for a server that needs no password."""
    user: str | None = None
    """User name for the login; empty for no login."""
    password: str = ""
    """Write it like "${file:/run/secrets/smtp}"."""

    @model_validator(mode="after")
    def _encrypted_password(self) -> Self:
        if self.user and self.security == "none":
            raise ValueError('would send the password unencrypted; give security = "starttls" or "tls"')
        return self


class NotifyTable(JobTable):
    """`[notify]`: send a notification about a night by mail, Slack, Teams, a webhook or a command; several are
    possible."""

    on: Literal["failure", "change", "always"] = "failure"
    """failure: after a night that did not end with exit code 0. change: also after a night with exit code 0 that
    follows one without. always: after every night."""
    mail: MailTable | None = None
    slack: _WebAddress | None = None
    """Address of an incoming webhook of Slack."""
    teams: _WebAddress | None = None
    """Address of a Teams workflow "when a webhook request is received"."""
    webhook: _WebAddress | None = None
    """Address that gets a JSON document by POST (schemas/notification.json)."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Program and arguments, run without a shell, with a summary of the night on standard input. The variables
    BATCHLAND_JOB, _DATE, _TITLE, _OUTCOME, _EXIT_CODE, _ERROR, _RUN and _TEST are set."""
    link: _WebAddress | None = None
    """Address under which the folder `runs` is served, for links to reports."""
    pictures: bool = True
    """Send small pictures by mail, Teams and webhook: of a suspicious night, six that show what is unusual; else three,
    the most confident mistakes or, without labels, the images with the least confident predictions."""
    timeout: PositiveDuration = dt.timedelta(seconds=30)
    """Timeout of each channel."""

    @model_validator(mode="after")
    def _some_channel(self) -> Self:
        if not (self.mail or self.slack or self.teams or self.webhook or self.command):
            raise ValueError("give command, mail, slack, teams or webhook")
        return self

"""The parts of a night's record that come from monitoring."""

from datetime import date
from typing import Literal

from pydantic import Field

from batchland.system.documents import Count, Document

Verdict = Literal["ok", "suspicious", "not_judged"]
"""ok: like the nights of the reference, or, without a reference, no rule is broken. suspicious: not. not_judged: an
earlier version made the predictions."""

FindingKind = Literal[
    "volume", "copies", "earlier_copies", "blank", "failed", "strangers", "pictures", "answers", "classes", "change",
    "drift"
]  # fmt: skip
"""volume: number of images. copies: of each other. earlier_copies: of recent nights. blank: of one colour. failed:
not read or scored. strangers: unlike the photos that the model knows. pictures: figures about pictures and files.
answers: the model's confidence. classes: what it predicts. change: pictures are turned, or channels swapped. drift:
slow, over many nights."""


class CanaryCheck(Document):
    """The result of a check of canaries."""

    images: Count
    largest_difference: float
    """Of a probability, to the stored one."""
    tolerance: float
    """Largest difference that is no fault."""


class Finding(Document):
    """One way in which a night is not as usual."""

    kind: FindingKind
    what: str
    """Name of the measure (a column of the predictions, or see docs/monitoring.md), of the class or of the change."""
    message: str
    """What changed, and by how much, for people."""
    strength: float
    """Deviation as a multiple of the largest that a good night has; above 1."""
    since: date | None = None
    """The first night in a row with this finding; None if it is this night."""


class DriftSum(Document):
    """A cumulated deviation of one measure, in one direction."""

    value: float
    since: date
    """The night after which it was last zero."""


class AccuracyEstimate(Document):
    """The accuracy of a night, estimated without labels."""

    value: float | None = None
    """Share of right first choices, 0 to 1. None if it is not estimable."""
    low: float | None = None
    """Lower end of the 90% interval."""
    high: float | None = None
    """Upper end of the 90% interval."""
    reason: str | None = None
    """Why it is not estimable."""


class Estimator(Document):
    """`NAME.estimator.json` beside `NAME.onnx`: what estimates a model's accuracy without labels."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.estimator"] = "batchland.estimator"
    model_sha256: str
    """Of the ONNX file."""
    labelled: Count
    """Labelled photos that it was fitted on."""
    accuracy: float
    """Of the model on them, top-1."""
    measures: tuple[str, ...]
    """The figures of an image that it uses, see docs/monitoring.md."""
    quantiles: tuple[tuple[float, ...], ...]
    """Evenly spaced quantiles of each measure over the labelled photos."""
    classes: Count
    """Number of classes that each have a weight; 0 for models with many classes."""
    weights: tuple[float, ...]
    """Of the logistic regression: constant, half the logit of the confidence, normal scores of measures, classes."""
    error: float
    """Root mean square error on kinds of corruption that the regression had not seen, beside chance."""


class NightVerdict(Document):
    """Whether a night of one model is as usual, without labels."""

    verdict: Verdict
    judged_by: Literal["rules", "reference"]
    """rules: there are too few nights for a reference, so that only gross faults are seen."""
    images: Count
    """Scored images that were looked at."""
    reference: tuple[date, ...] = ()
    """The nights that this one was compared with."""
    reference_photos: Count = 0
    """Labelled photos that it was compared with, instead of nights."""
    reference_start: date | None = None
    """First night of the accepted change with which the reference began. None if it began with the job."""
    strength: float | None = None
    """The largest deviation as a multiple of the largest that a good night has. None without a reference."""
    findings: tuple[Finding, ...] = ()
    """Up to five; the plainest ones first."""
    since: date | None = None
    """The first suspicious night in a row with one of these findings; None if it is this night."""
    pictures: tuple[str, ...] = ()
    """Names of up to six images that show one of the findings."""
    pictures_show: str | None = None
    """`what` of that finding: the first one that has pictures. None without pictures, and in older records."""
    accuracy: AccuracyEstimate | None = None
    """None if the model has no estimator."""
    strangers: float | None = None
    """Share of the images that are unlike the photos that the model knows, 0 to 1; None if the model does not tell."""
    drift: dict[str, DriftSum] = Field(default_factory=dict)
    """Sums that are not zero, by `MEASURE up` and `MEASURE down`."""
    notes: tuple[str, ...] = ()
    """What limits this verdict: few reference nights, another model version, missing figures."""


class Acceptance(Document):
    """A person's decision that a suspicious night is good."""

    accepted_at: str
    """ISO 8601 with the zone's offset."""
    by: str
    """Name of the user account."""
    reason: str | None = None
    since: date
    """The first of the nights that were accepted together."""
    once: bool = False
    """True: the nights were odd but good, and join the reference. False: things have changed, and the reference begins
    anew with the night `since`."""


class Withdrawal(Document):
    """A person's decision that an acceptance was wrong."""

    withdrawn_at: str
    """ISO 8601 with the zone's offset."""
    by: str
    """Name of the user account."""
    reason: str | None = None
    acceptance: Acceptance
    """What was withdrawn."""

"""The parts of a night's record that come from monitoring."""

from datetime import date
from typing import Literal

from pydantic import Field

from batchland.system.documents import Count, Document

Verdict = Literal["ok", "suspicious", "not_judged"]
"""ok: like the nights of the reference or, without a reference, no rule is broken. suspicious: not ok. not_judged: the
predictions were made by an earlier version."""

FindingKind = Literal[
    "volume", "copies", "earlier_copies", "blank", "failed", "strangers", "pictures", "answers", "classes", "change",
    "drift"
]  # fmt: skip
"""volume: number of images. copies: copies within the night. earlier_copies: copies of recent nights. blank: pictures
of one colour. failed: images that could not be read or scored. strangers: images unlike the photos that the model
knows. pictures: figures about pictures and files. answers: the model's confidence. classes: predicted classes. change:
turned pictures or swapped channels. drift: slow change over many nights."""


class CanaryCheck(Document):
    """The result of a check of canaries."""

    images: Count
    """Number of canaries that were scored: all of the model's, or some if nothing has changed since the last night."""
    first: Count = 0
    """Number of the first of them, from 0. The next night goes on after the last."""
    conditions: str | None = None
    """A digest of the model file, the versions of the program and of its packages, the device, the processor and the
    pixels of all canaries."""
    largest_difference: float
    """Largest difference of a probability from the stored one."""
    tolerance: float
    """Largest accepted difference."""


class Finding(Document):
    """One unusual property of a night."""

    kind: FindingKind
    what: str
    """Name of the measure (a column of the predictions, or see docs/monitoring.md), of the class or of the change."""
    message: str
    """The change and its size, as a sentence."""
    strength: float
    """Deviation as a multiple of the largest deviation of good nights; above 1."""
    since: date | None = None
    """The first night in a row with this finding, if the fault lasts; None if it is this night."""


class DriftSum(Document):
    """A cumulative sum of the deviations of one measure, in one direction."""

    value: float
    since: date
    """The night after which it was last zero."""


class AccuracyEstimate(Document):
    """The accuracy of a night, estimated without labels."""

    value: float | None = None
    """Share of right first choices, 0 to 1. None if it cannot be estimated."""
    low: float | None = None
    """Lower end of the 90% interval."""
    high: float | None = None
    """Upper end of the 90% interval."""
    reason: str | None = None
    """Why it cannot be estimated."""


class Estimator(Document):
    """`NAME.estimator.json` beside `NAME.onnx`: the estimator of a model's accuracy without labels."""

    schema_version: Literal[2] = 2
    """1 had other margins, so its estimates were too low."""
    kind: Literal["batchland.estimator"] = "batchland.estimator"
    model_sha256: str
    """sha256 of the ONNX file."""
    labelled: Count
    """Labelled photos that it was fitted on."""
    accuracy: float
    """Top-1 accuracy of the model on these photos, 0 to 1."""
    measures: tuple[str, ...]
    """The figures of an image that it uses, see docs/monitoring.md."""
    quantiles: tuple[tuple[float, ...], ...]
    """Evenly spaced quantiles of each measure over the labelled photos."""
    classes: Count
    """Number of classes that each have a weight; 0 for models with many classes."""
    weights: tuple[float, ...]
    """Weights of the logistic regression: constant, half the logit of the confidence, normal scores of measures,
    classes."""
    error: float
    """Root mean square error on kinds of corruption that were left out of the fit, less the share that is due to
    chance."""


class NightVerdict(Document):
    """The verdict on a night of one model, without labels."""

    verdict: Verdict
    judged_by: Literal["rules", "reference"]
    """rules: there are too few nights for a reference, so that only gross faults are found."""
    images: Count
    """Number of scored images that were used."""
    reference: tuple[date, ...] = ()
    """The nights that this one was compared with."""
    reference_photos: Count = 0
    """Labelled photos that it was compared with, instead of nights."""
    reference_start: date | None = None
    """First night of the accepted change with which the reference began. None if it began with the job."""
    strength: float | None = None
    """The largest deviation, as a multiple of the largest deviation of good nights. None without a reference."""
    findings: tuple[Finding, ...] = ()
    """Up to five findings; those that are easiest to understand come first."""
    since: date | None = None
    """The first suspicious night in a row with the same fault: the same figures deviate, in the same direction and by
    about as much. None if it is this night."""
    pictures: tuple[str, ...] = ()
    """Names of up to six images that show one of the findings."""
    pictures_show: str | None = None
    """`what` of that finding: the first one that has pictures. None without pictures, and in older records."""
    accuracy: AccuracyEstimate | None = None
    """Estimated accuracy; None if the model has no estimator."""
    strangers: float | None = None
    """Share of images that are unlike the model's known photos, 0 to 1; None if it has no known photos."""
    drift: dict[str, DriftSum] = Field(default_factory=dict)
    """Sums that are not zero, by `MEASURE up` and `MEASURE down`."""
    notes: tuple[str, ...] = ()
    """Limitations of this verdict: few reference nights, another version of the model, missing figures."""


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
    """True: the nights were unusual but good, and are in no reference. False: something has changed for good,
    and a new reference begins with the night `since`."""


class Withdrawal(Document):
    """A person's decision that an acceptance was wrong."""

    withdrawn_at: str
    """ISO 8601 with the zone's offset."""
    by: str
    """Name of the user account."""
    reason: str | None = None
    acceptance: Acceptance
    """The acceptance that was withdrawn."""

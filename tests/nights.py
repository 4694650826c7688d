"""Generated nights of a job, for tests of code that reads run records."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np

from batchland.evaluation.intervals import wilson
from batchland.evaluation.schema import Figure, Figures, LabelAccount, LabelSource
from batchland.monitoring.schema import Acceptance, AccuracyEstimate, Finding, NightVerdict
from batchland.nightly.run_record import (
    CONFIDENCE_BINS,
    Attempt,
    GateVerdict,
    ModelRun,
    NightEvaluation,
    Outcome,
    PredictionMix,
    RunRecord,
)
from batchland.predictions.schema import Counts, ModelInfo, Seconds

EXIT_CODES: dict[Outcome, int | None] = {
    "running": None,
    "ok": 0,
    "skipped": 0,
    "too_many_failed": 3,
    "gate_failed": 4,
    "suspicious": 6,
    "wrong_delivery": 4,
    "missing_input": 2,
    "failed": 74,
    "time_limit": 143,
    "interrupted": 143,
    "killed": None,
    "locked": 75,
}


def night(
    day: date,
    *models: ModelRun,
    outcome: Outcome = "ok",
    error: str | None = None,
    seconds: float | None = 60.0,
    before: Sequence[Outcome] = (),
    job: str = "nightly",
) -> RunRecord:
    """A night at two o'clock of the next day, after attempts that ended as `before`."""
    begin = datetime(day.year, day.month, day.day, 2, tzinfo=UTC) + timedelta(days=1)
    attempts = [
        Attempt(
            run_id=f"run-{number}",
            pid=1000 + number,
            host="box",
            started_at=(begin + timedelta(hours=number)).isoformat(),
            finished_at=None if seconds is None else (begin + timedelta(hours=number, seconds=seconds)).isoformat(),
            outcome=ended,
            exit_code=EXIT_CODES[ended],
            error=error if number == len(before) else f"it was {ended}",
        )
        for number, ended in enumerate((*before, outcome))
    ]
    return RunRecord(
        job=job, job_file=f"/jobs/{job}.toml", date=day, config={}, attempts=tuple(attempts), models=models, versions={}
    )


def model_run(
    name: str = "toy",
    *,
    listed: int = 100,
    failed: int = 0,
    mix: PredictionMix | None = None,
    right: int | None = None,
    gates: Sequence[GateVerdict] = (),
    rate: float = 50.0,
    version: str = "1",
    monitor: NightVerdict | None = None,
) -> ModelRun:
    """A whole partition; `right` of the images that did not fail were named right, where there are labels."""
    info = ModelInfo(
        name=name,
        architecture="made-up",
        sha256=hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
        file=f"/models/{name}.onnx",
    )
    ok = listed - failed
    return ModelRun(
        name=name,
        partition=f"/data/{name}",
        state="scored",
        run_id="abc",
        model=info,
        device="cpu",
        provider="CPUExecutionProvider",
        counts=Counts(listed=listed, ok=ok, failed=failed, failed_by_code={"truncated": failed} if failed else {}),
        seconds=Seconds(list=0, read=0, decode=0, infer=0, write=0, total=round(listed / rate, 3)),
        images_per_second=rate,
        monitor=monitor,
        mix=mix,
        evaluation=None if right is None else evaluation(ok, right, gates),
    )


def like_others(estimate: float | None = None) -> NightVerdict:
    """A night as usual, its estimated accuracy in an interval of 0.04 on each side."""
    accuracy = None if estimate is None else AccuracyEstimate(value=estimate, low=estimate - 0.04, high=estimate + 0.04)
    return NightVerdict(verdict="ok", judged_by="reference", images=100, accuracy=accuracy)


def unlike_others(since: date | None = None) -> NightVerdict:
    """A night that is too dark."""
    message = "brightness: mean 0.161, usually 0.42 to 0.479"
    finding = Finding(kind="pictures", what="brightness", message=message, strength=3.0, since=since)
    accuracy = AccuracyEstimate(reason="the night is suspicious")
    return NightVerdict(
        verdict="suspicious", judged_by="reference", images=100, findings=(finding,), since=since, accuracy=accuracy
    )


def accepted(record: RunRecord, since: date, reason: str | None = "new camera") -> RunRecord:
    """The night, accepted at noon of the next day."""
    at = datetime(record.date.year, record.date.month, record.date.day, 12, tzinfo=UTC) + timedelta(days=1)
    acceptance = Acceptance(accepted_at=at.isoformat(), by="ann", reason=reason, since=since)
    return record.model_copy(update={"accepted": acceptance})


def evaluation(scored: int, right: int, gates: Sequence[GateVerdict] = ()) -> NightEvaluation:
    low, high = wilson(right, scored)
    figures = dict.fromkeys(Figures.model_fields)
    figures["top1"] = Figure(value=right / scored, low=float(low), high=float(high))
    account = {
        name: () if field.annotation == tuple[str, ...] else {} if "dict" in str(field.annotation) else 0
        for name, field in LabelAccount.model_fields.items()
    }
    return NightEvaluation(
        report="/reports/toy",
        labels=LabelSource(path="/labels", kind="folder", fingerprint="cd" * 32),
        account=LabelAccount(**account | {"predicted": scored, "labelled": scored, "scored": scored}),
        figures=Figures(**figures),
        gates=tuple(gates),
    )


def mix(classes: dict[str, int], confidences: Sequence[float]) -> PredictionMix:
    counts, _ = np.histogram(np.asarray(confidences), np.linspace(0, 1, CONFIDENCE_BINS + 1))
    return PredictionMix(
        classes=classes,
        confidence_histogram=tuple(counts.tolist()),
        mean_confidence=float(np.mean(confidences)) if len(confidences) else None,
    )


def drawn_mix(
    rng: np.random.Generator, images: int, shares: Sequence[float], labels: Sequence[str], sure: float = 6.0
) -> PredictionMix:
    """`images` answers with these class shares; `sure` moves the confidences up."""
    counts = rng.multinomial(images, np.asarray(shares) / np.sum(shares))
    return mix(dict(zip(labels, counts.tolist(), strict=True)), rng.beta(sure, 2.0, images))

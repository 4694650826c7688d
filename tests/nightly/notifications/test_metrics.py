"""The complete metrics file: the newest night, and the last good one."""

import os
import time
from datetime import date

import pytest

from batchland.evaluation.schema import Figure, Figures, LabelAccount, LabelSource
from batchland.nightly.notifications.metrics import write_metrics
from batchland.nightly.run_record import Attempt, GateVerdict, ModelRun, NightEvaluation, RunRecord
from batchland.predictions.schema import Counts, ModelInfo

TODAY = date(2024, 11, 24)
FIGURES = Figures(**dict.fromkeys(Figures.model_fields)).model_copy(
    update={"top1": Figure(value=0.75, low=0.5, high=0.875)}
)
COUNTED = dict.fromkeys(("predicted", "labelled", "scored", "failed", "unlabelled", "unpredicted"), 0)
ACCOUNT = LabelAccount(
    **COUNTED,
    unlabelled_examples=(),
    unpredicted_examples=(),
    missing_classes=(),
    unknown_classes={},
    renamed_classes={},
    empty_folders=(),
    loose_images=0,
    blank_labels=0,
)
MODEL = ModelRun(
    name='my "model"',
    partition="/out",
    state="scored",
    model=ModelInfo(name="toy", architecture="toy", sha256="abc", file="/toy.onnx"),
    device="cpu",
    provider="CPUExecutionProvider",
    counts=Counts(listed=10, ok=7, failed=3, failed_by_code={"empty": 1, "truncated": 2}),
    images_per_second=12.5,
    evaluation=NightEvaluation(
        report="/report",
        labels=LabelSource(path="/labels", kind="folder", fingerprint="x"),
        account=ACCOUNT,
        figures=FIGURES,
        gates=(
            GateVerdict(gate="top1 < 0.8", verdict="failed", value=0.75, message=""),
            GateVerdict(gate="failed > 9", verdict="passed", value=3, message=""),
            GateVerdict(gate="drop(top1) > 0.1", verdict="not_checked", message=""),
        ),
    ),
)


def record(night, outcome, exit_code, *models):
    attempt = Attempt(
        run_id="r",
        pid=1,
        host="h",
        started_at=f"{night}T02:00:00+00:00",
        finished_at=f"{night}T02:00:30+00:00",
        outcome=outcome,
        exit_code=exit_code,
    )
    return RunRecord(job="toy", job_file="/t", date=night, config={}, attempts=[attempt], models=models, versions={})


def samples(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.fixture
def utc(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_all_metrics(tmp_path, utc):
    path = tmp_path / "new" / "toy.prom"
    write_metrics(
        path, [record(date(2024, 11, 22), "ok", 0), record(date(2024, 11, 23), "gate_failed", 4, MODEL)], TODAY
    )
    model = r'model="my \"model\""'
    assert samples(path) == [
        'batchland_night_timestamp_seconds{job_name="toy"} 1.73232e+09',
        'batchland_finished_timestamp_seconds{job_name="toy"} 1.73232723e+09',
        'batchland_success_timestamp_seconds{job_name="toy"} 1.73224083e+09',
        'batchland_exit_code{job_name="toy"} 4.0',
        'batchland_duration_seconds{job_name="toy"} 30.0',
        f'batchland_images{{job_name="toy",{model},status="ok"}} 7.0',
        f'batchland_images{{job_name="toy",{model},status="failed"}} 3.0',
        f'batchland_failed_images{{code="empty",job_name="toy",{model}}} 1.0',
        f'batchland_failed_images{{code="truncated",job_name="toy",{model}}} 2.0',
        f'batchland_images_per_second{{job_name="toy",{model}}} 12.5',
        f'batchland_model_info{{device="cpu",job_name="toy",{model},provider="CPUExecutionProvider",sha256="abc"}} 1.0',
        f'batchland_accuracy{{bound="value",job_name="toy",{model}}} 0.75',
        f'batchland_accuracy{{bound="low",job_name="toy",{model}}} 0.5',
        f'batchland_accuracy{{bound="high",job_name="toy",{model}}} 0.875',
        f'batchland_gate_passed{{gate="top1 < 0.8",job_name="toy",{model}}} 0.0',
        f'batchland_gate_passed{{gate="failed > 9",job_name="toy",{model}}} 1.0',
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["toy.prom"]


def test_the_node_exporter_may_read_the_file(tmp_path):
    """With the umask of cron/batchland@.service."""
    before = os.umask(0o027)
    try:
        write_metrics(tmp_path / "toy.prom", [record(date(2024, 11, 22), "ok", 0)], TODAY)
    finally:
        os.umask(before)
    assert (tmp_path / "toy.prom").stat().st_mode & 0o777 == 0o644


def test_a_failed_night_without_models_has_no_figures_and_no_success(tmp_path):
    write_metrics(tmp_path / "toy.prom", [record(date(2024, 11, 23), "missing_input", 66)], TODAY)
    assert [line.partition("{")[0] for line in samples(tmp_path / "toy.prom")] == [
        "batchland_night_timestamp_seconds",
        "batchland_finished_timestamp_seconds",
        "batchland_exit_code",
        "batchland_duration_seconds",
    ]


def test_nights_in_the_future_and_at_the_ends_of_the_calendar(tmp_path, utc):
    records = [record(date(2024, 11, 22), "ok", 0), record(date(2030, 1, 1), "gate_failed", 4)]
    write_metrics(tmp_path / "toy.prom", records, TODAY)
    values = dict(line.rsplit(" ", 1) for line in samples(tmp_path / "toy.prom"))
    assert values['batchland_exit_code{job_name="toy"}'] == "0.0"
    assert values['batchland_night_timestamp_seconds{job_name="toy"}'] == "1.7322336e+09"
    write_metrics(tmp_path / "toy.prom", records[1:], TODAY)  # only that one: better than nothing
    assert 'batchland_exit_code{job_name="toy"} 4.0' in samples(tmp_path / "toy.prom")
    for night in (date.min, date.max):
        write_metrics(
            tmp_path / "toy.prom", [record(date(2024, 11, 22), "ok", 0).model_copy(update={"date": night})], night
        )

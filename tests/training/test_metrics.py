"""Files with the figures of the epochs; test_train.py checks CSV and JSON lines of whole runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from batchland.training import metrics
from batchland.training.metrics import EpochReport, MetricsFiles, best_of, draw_curves

FIRST = EpochReport("transfer", "head", 1, 3, 2.0, 0.3, 1.9, 0.4, 0.001, 1.5, True)
REPORTS = [
    FIRST,
    replace(FIRST, epoch=2, validation_loss=1.5),
    replace(FIRST, epoch=3, stage="fine-tune", validation_loss=1.6, best=False),
]


def test_best_epoch() -> None:
    assert best_of(REPORTS).epoch == 2


def test_curves_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "draw_curves", draw_curves)  # other tests draw none
    pictures = []
    for reports in (REPORTS[:1], REPORTS):
        MetricsFiles(tmp_path).close(reports)
        with Image.open(tmp_path / "curves.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (1200, 480))
            pictures.append(picture.tobytes())
    assert pictures[0] != pictures[1]


def test_tensorboard_has_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, resumed = MetricsFiles(tmp_path), MetricsFiles(tmp_path)
    first.write(REPORTS[:1])
    first.write(REPORTS[:2])
    resumed.write(REPORTS[:2])
    resumed.write(REPORTS)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = [(event.step, round(event.value, 6)) for event in events.Scalars("validation_loss")]
    assert seen == [(1, 1.9), (2, 1.5), (3, 1.6)]
    MetricsFiles(tmp_path).write(REPORTS[:1])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation_loss")] == [1]

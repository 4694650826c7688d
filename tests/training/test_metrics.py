"""Figures of the epochs in files. CSV and JSON lines are held against whole runs in test_train.py."""

import io
from dataclasses import replace
from pathlib import Path

from batchland.training.journal import EpochReport, Journal, best_of, draw_curves
from PIL import Image

FIRST = EpochReport("transfer", "head", 1, 3, 2.0, 0.3, 1.9, 0.4, 0.001, 1.5, True)
REPORTS = [
    FIRST,
    replace(FIRST, epoch=2, validation_loss=1.5),
    replace(FIRST, epoch=3, stage="fine-tune", validation_loss=1.6, best=False),
]


def test_the_best_epoch_is_the_last_that_was_better_than_all_before() -> None:
    assert best_of(REPORTS).epoch == 2


def test_curves_are_a_picture_of_their_figures(tmp_path: Path) -> None:
    for name, reports in (("one.png", REPORTS[:1]), ("three.png", REPORTS)):
        draw_curves(reports, tmp_path / name)
    one, three = (Image.open(io.BytesIO((tmp_path / name).read_bytes())) for name in ("one.png", "three.png"))
    assert (one.format, one.size) == ("PNG", (1200, 480))
    assert one.tobytes() != three.tobytes()


def test_tensorboard_sees_each_epoch_once_also_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, resumed = Journal(tmp_path), Journal(tmp_path)
    first.write(REPORTS[:1])
    first.write(REPORTS[:2])
    resumed.write(REPORTS[:2])
    resumed.write(REPORTS)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = [(event.step, round(event.value, 6)) for event in events.Scalars("validation_loss")]
    assert seen == [(1, 1.9), (2, 1.5), (3, 1.6)]
    Journal(tmp_path).write(REPORTS[:1])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation_loss")] == [1]

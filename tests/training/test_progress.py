"""Progress of training on terminals and in logs."""

import io
import logging
import re

import pytest

from batchland.training import progress as module
from batchland.training.progress import TrainProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_per_epoch_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with TrainProgress() as progress:
        for epoch in (1, 2):
            for step in (1, 2, 3):
                progress.update(f"scratch: epoch {epoch}/2", step, 3)
    text = screen.getvalue()
    assert re.search(r"scratch: epoch 1/2: +\d+%", text)
    assert re.search(r"scratch: epoch 2/2: +\d+%", text)
    assert text.rstrip(" ").endswith("\r")


def test_log_gets_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "batchland"), TrainProgress() as progress:
        for step in range(1, 6):
            progress.update("scratch: epoch 1/2", step, 5)
    assert caplog.messages == ["scratch: epoch 1/2: 2 of 5", "scratch: epoch 1/2: 4 of 5"]

"""Progress as a bar on a terminal, and as lines of a log."""

import io
import logging
import re

import pytest

from batchland.system.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_per_task_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with ProgressBar(keep=False) as bar:
        for epoch in (1, 2):
            for step in (1, 2, 3):
                bar.update(step, 3, task=f"scratch: epoch {epoch}/2")
    text = screen.getvalue()
    assert re.search(r"scratch: epoch 1/2: +\d+%", text)
    assert re.search(r"scratch: epoch 2/2: +\d+%", text)
    assert text.rstrip(" ").endswith("\r")


def test_a_finished_bar_stays_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with ProgressBar("images") as bar:
        bar.update(3, 4, before=2, failed=1)
        bar.update(4, 4, before=2, failed=1)
    assert re.search(r"100%\|.*\| 4/4 \[.* images/s, failed=1\]\n$", screen.getvalue())


@pytest.mark.parametrize(
    ("unit", "figures", "lines"),
    [
        ("", {"total": 5, "task": "scratch: epoch 1/2"}, ["scratch: epoch 1/2: 2 of 5", "scratch: epoch 1/2: 4 of 5"]),
        (
            "images",
            {"before": 1, "failed": 0},
            ["2 images, 0 failed, 0.0 images/s", "4 images, 0 failed, 0.0 images/s"],
        ),
    ],
)
def test_a_log_gets_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unit: str, figures: dict, lines: list[str]
) -> None:
    seconds = iter(range(0, 1000, 20))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "batchland"), ProgressBar(unit, clock=lambda: next(seconds)) as bar:
        for step in range(1, 6):
            bar.update(step, **figures)
    assert caplog.messages == lines

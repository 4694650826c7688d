"""Faster settings with the same answers are kept, others are left out."""

import numpy as np

from batchland.models.gpu.tuning import Trial, run_repeatedly, tune

START = {"algorithm": "a", "layout": "nchw"}
CHANGES = ({"layout": "nhwc"}, {"algorithm": "b"}, {"graph": "1"})
ANSWERS = np.array([[0.1, 0.9]], np.float32)


def tuned(rates, answers=None):
    """The chosen settings, given images/s by settings written as `a=b c=d`, and the settings tried."""
    asked = []

    def attempt(settings):
        name = " ".join(f"{key}={value}" for key, value in sorted(settings.items()))
        asked.append(name)
        rate = rates[name]
        if isinstance(rate, Exception):
            raise rate
        return Trial(rate, (answers or {}).get(name, ANSWERS))

    return tune(START, CHANGES, attempt, 0.02), asked


def test_each_change_is_tried_on_top_of_those_kept_before():
    settings, asked = tuned(
        {
            "algorithm=a layout=nchw": 100,
            "algorithm=a layout=nhwc": 120,
            "algorithm=b layout=nhwc": 90,
            "algorithm=a graph=1 layout=nhwc": 130,
        }
    )
    assert settings == {"algorithm": "a", "layout": "nhwc", "graph": "1"}
    assert len(asked) == 4


def test_a_change_that_is_hardly_faster_fails_or_changes_answers_is_left_out():
    rates = {
        "algorithm=a layout=nchw": 100,
        "algorithm=a layout=nhwc": 102,
        "algorithm=b layout=nchw": RuntimeError("no such algorithm here"),
        "algorithm=a graph=1 layout=nchw": 500,
    }
    wrong = {"algorithm=a graph=1 layout=nchw": np.array([[0.9, 0.1]], np.float32)}
    assert tuned(rates, wrong)[0] == START
    nothing = {"algorithm=a graph=1 layout=nchw": np.array([[np.nan, np.nan]], np.float32)}
    assert tuned(rates, nothing)[0] == START


def test_a_trial_has_a_rate_and_the_answers():
    calls = []
    trial = run_repeatedly(lambda: calls.append(1) or ANSWERS, images=10)
    assert trial.answers is ANSWERS
    assert trial.images_per_second > 0
    assert len(calls) > 3


def test_a_change_that_fails_on_top_of_others_is_tried_alone():
    rates = {
        "algorithm=a layout=nchw": 100,
        "algorithm=a layout=nhwc": 110,
        "algorithm=b layout=nhwc": 90,
        "algorithm=a graph=1 layout=nhwc": RuntimeError("no graph with this layout"),
        "algorithm=a graph=1 layout=nchw": 130,
    }
    assert tuned(rates)[0] == START | {"graph": "1"}
    assert tuned(rates | {"algorithm=a graph=1 layout=nchw": 111})[0] == START | {"layout": "nhwc"}

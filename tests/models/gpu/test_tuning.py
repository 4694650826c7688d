"""Faster settings with the same answers are kept, and the choice is cached."""

import json

import numpy as np

from batchland.models.gpu.tuning import Trial, cached, run_repeatedly, tune

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


def test_a_choice_is_cached_for_the_same_key(tmp_path):
    made = []

    def make(**settings):
        def choice():
            made.append(settings)
            return settings

        return choice

    folder = tmp_path / "cache" / "tuning"
    key = {"model": "abc", "gpu": "NVIDIA H200", "batch_size": 32}
    assert cached(folder, key, make(layout="nhwc")) == {"layout": "nhwc"}
    assert cached(folder, key, make(layout="other")) == {"layout": "nhwc"}
    assert cached(folder, key | {"batch_size": 64}, make(layout="nchw")) == {"layout": "nchw"}
    assert made == [{"layout": "nhwc"}, {"layout": "nchw"}]
    for path in folder.iterdir():
        path.write_text(json.dumps({"key": "another"}) if json.loads(path.read_text())["key"] == key else "{")
    assert cached(folder, key, make(layout="again")) == {"layout": "again"}
    assert cached(folder, key | {"batch_size": 64}, make(layout="again")) == {"layout": "again"}


def test_an_unwritable_cache_is_not_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert cached(tmp_path / "file" / "tuning", {}, lambda: {"layout": "nhwc"}) == {"layout": "nhwc"}

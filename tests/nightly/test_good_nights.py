"""Which run of a night another run is compared with: answers are a model's own, pictures are the job's."""

from datetime import date

import pytest
from nights import like_others, model_run, night

from batchland.nightly.good_nights import evaluated_name, reference_nights, run_of
from batchland.nightly.run_record import ModelRun

DAY = date(2026, 11, 1)
UNFINISHED = ModelRun(name="c", partition="/data/c", state="unfinished")


@pytest.mark.parametrize(
    ("runs", "model", "expected"),
    [
        ([("a", "1"), ("b", "1")], ("b", "1"), "b"),
        ([("a", "1"), ("b", "1")], ("b", "2"), "b"),
        ([("a", "1"), ("b", "1")], ("c", "1"), "a"),
        ([("a", "1")], ("b", "1"), "a"),
        ([("c", None), ("b", "1")], ("c", "1"), "b"),
        ([("c", None)], ("c", "1"), None),
    ],
    ids=["same", "new version", "new name of several", "new name of one", "unfinished", "nothing"],
)
def test_the_run_of_a_night(runs, model, expected) -> None:
    made = [model_run(name, version=version) if version else UNFINISHED for name, version in runs]
    found = run_of(night(DAY, *made), model_run(model[0], version=model[1]))
    assert (found and found.name) == expected


def test_the_same_file_counts_before_the_same_name() -> None:
    """Two models that changed places, and one that has a new name."""
    a, b = model_run("a"), model_run("b")
    now = b.model_copy(update={"name": "a"})
    assert run_of(night(DAY, a, b), now) == b
    assert run_of(night(DAY, a), a.model_copy(update={"name": "current"})) == a
    assert run_of(night(DAY, a, a.model_copy(update={"name": "twin"})), a.model_copy(update={"name": "twin"})).name == (
        "twin"
    )


def test_nights_of_other_models_may_be_in_the_reference() -> None:
    records = [night(DAY, model_run("a", monitor=like_others())), night(date(2026, 11, 2), model_run("a"))]
    assert reference_nights(records, model_run("b")) == records[:1]


def test_the_baseline_of_the_only_model_is_that_of_the_model_before_it() -> None:
    one, two = night(DAY, model_run("a", right=70)), night(DAY, model_run("a", right=70), model_run("b", right=70))
    assert [evaluated_name(one, "b", only=only) for only in (True, False)] == ["a", None]
    assert [evaluated_name(two, name, only=True) for name in ("b", "c")] == ["b", None]

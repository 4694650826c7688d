"""The time line: lines across models, the current model first, changes of models, bad nights."""

from datetime import date, timedelta

from nights import model_run, night

from batchland.trend.measure import measure
from batchland.trend.page import render
from batchland.trend.timeline import current_first, lanes, timeline


def rows(*nights):
    """A row per night and model; each night a list of (model, version, right of 100), or an outcome."""
    records = []
    for number, models in enumerate(nights):
        day = date(2026, 11, 1) + timedelta(days=number)
        if isinstance(models, str):
            records.append(night(day, outcome=models))
        else:
            runs = [model_run(name, version=version, right=right) for name, version, right in models]
            records.append(night(day, *runs))
    return measure(records).table.to_pylist()


ONE_AFTER_ANOTHER = (
    [("scratch", "1", 70)],
    [("scratch", "1", 72)],
    "missing_input",
    [("transfer", "1", 90)],
    [("transfer", "2", 92)],
)


def test_models_that_replace_each_other_make_one_line():
    found = lanes(rows(*ONE_AFTER_ANOTHER))
    assert [(lane, [row["model"] for row in of_lane]) for lane, of_lane in found.items()] == [
        ("", ["scratch", "scratch", "transfer", "transfer"])
    ]


def test_the_current_model_comes_first():
    both = [("a", "1", 70), ("b", "1", 80)]
    assert current_first(rows(both, both, [("b", "1", 80), ("c", "1", 81)])) == ["b", "c", "a"]
    assert list(lanes(rows(both, both, [("b", "1", 80), ("c", "1", 81)]))) == ["b", "c", "a"]


def test_changes_and_bad_nights_are_marked():
    line = timeline(rows(*ONE_AFTER_ANOTHER), 420)
    assert line is not None
    points = [point.title for point in line.accuracy.series[0].points]
    assert points == [
        "scratch, 2026-11-01: 70.0% (60.4 to 78.1%) of 100 labelled images",
        "scratch, 2026-11-02: 72.0% (62.5 to 79.9%) of 100 labelled images",
        "transfer, 2026-11-04: 90.0% (82.6 to 94.5%) of 100 labelled images",
        "transfer, 2026-11-05: 92.0% (85.0 to 95.9%) of 100 labelled images",
    ]
    assert len(line.accuracy.series[0].lines) == 2  # broken where there is no answer
    changes = [(change.text, change.title.partition(", sha256")[0]) for change in line.changes]
    assert changes == [
        ("transfer", "2026-11-04: scratch replaced by transfer"),
        ("", "2026-11-05: a new version"),  # no room for its text
    ]
    assert [(mark.title, mark.kind) for mark in line.marks] == [("2026-11-03: missing input", "fault")]
    assert line.marks[0].x == line.calendar(date(2026, 11, 3))


def test_without_labels_there_is_no_time_line():
    unlabelled = measure([night(date(2026, 11, 1), model_run())])
    assert timeline(unlabelled.table.to_pylist(), 420) is None
    assert 'id="timeline"' not in render(unlabelled)
    assert 'id="timeline"' not in render(measure([night(date(2026, 11, 1), outcome="missing_input")]))

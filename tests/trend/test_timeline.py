"""The time line: lines across models, the current model first, changes of models, bad nights, estimates."""

import re
from datetime import date, timedelta

from nights import accepted, like_others, mix, model_run, night, unlike_others

from batchland.trend.measure import measure
from batchland.trend.options import TrendOptions
from batchland.trend.page import render
from batchland.trend.timeline import current_first, lanes, timeline

STEADY = mix({"red": 50, "green": 30, "blue": 20}, [0.3] * 50 + [0.9] * 50)


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


def test_suspicious_and_accepted_nights_have_different_marks():
    first, second = date(2026, 11, 2), date(2026, 11, 3)
    dark, still = model_run(monitor=unlike_others()), model_run(monitor=unlike_others(since=first))
    records = [
        night(date(2026, 11, 1), model_run(monitor=like_others(), right=70)),
        accepted(night(first, dark, outcome="suspicious"), first),
        accepted(night(second, model_run("other", monitor=like_others()), still, outcome="suspicious"), first),
        night(date(2026, 11, 4), dark, outcome="suspicious"),
        night(date(2026, 11, 5), still),  # action = "warn"
        night(date(2026, 11, 6), still, outcome="gate_failed"),
    ]
    line = timeline(measure(records).table.to_pylist(), 420)
    assert line is not None
    assert [(mark.title, mark.kind, mark.raised) for mark in line.marks] == [
        ("2026-11-02: suspicious, accepted", "accepted", False),
        ("2026-11-03: suspicious since 2026-11-02, accepted", "accepted", False),
        ("2026-11-04: suspicious", "suspicious", False),
        ("2026-11-05: ok and suspicious since 2026-11-02", "suspicious", False),
        ("2026-11-06: gate failed and suspicious since 2026-11-02", "fault", False),
        ("2026-11-06: gate failed and suspicious since 2026-11-02", "suspicious", True),
    ]
    page = render(measure(records))
    (foot,) = {int(found) for found in re.findall(r'class="fault" d="M[\d.]+ (\d+)l4 7h-8z', page)}
    assert f" {foot - 11}l4 4.5l-4 4.5l-4-4.5z" in page  # the diamond of that night is above its triangle
    assert '<span class="verdict failed">gate failed and suspicious</span>' in page
    kinds = "1 suspicious, 1 ok and suspicious, 1 gate failed and suspicious"
    assert f"Not every night ended well: {kinds}; the last one is 2026-11-06." in page
    assert '<span class="verdict warning">ok and suspicious' in page


def test_a_model_under_a_new_file_name_goes_on_with_the_line_and_the_section():
    """There are neither labels nor estimates, so that the sections are the only time line."""
    names = ["a", "a", "b", "b"]
    records = [
        night(date(2026, 11, 1) + timedelta(days=at), model_run(name, mix=STEADY)) for at, name in enumerate(names)
    ]
    page = render(measure(records))
    assert re.findall(r'<h2 id="model-\d+-h"><bdi class="name">(.*)</bdi>', page) == ["b"]
    sha256 = records[-1].models[0].model.sha256[:12]
    assert f"<g><title>2026-11-03: a replaced by b, sha256 {sha256}</title><line class=" in page
    assert f'<li class="note">b instead of a since 2026-11-03, sha256 {sha256}. <a href="#model-1"' in page
    assert re.findall(r'<td><bdi class="name">(.*)</bdi></td>', page) == ["b", "b", "a", "a"]
    given = TrendOptions(reference=(date(2026, 11, 1), date(2026, 11, 2)))
    assert [row["compared_with"] for row in measure(records, given).table.to_pylist()][2:] == [
        [date(2026, 11, 1), date(2026, 11, 2)]
    ] * 2


def test_models_that_are_added_and_removed_are_marked():
    both = [("a", "1", 70), ("b", "1", 80)]
    line = timeline(rows([("a", "1", 70)], [("a", "1", 70)], both, both, [("b", "1", 80)]), 980)
    assert line is not None
    assert [(change.text, change.title) for change in line.changes] == [
        ("b: added", "2026-11-03: b added"),
        ("a: gone", "2026-11-05: no longer a"),
    ]


def test_the_estimate_has_the_scale_of_the_measured_accuracy():
    records = [
        night(date(2026, 11, 1), model_run(right=70, monitor=like_others(0.7))),
        night(date(2026, 11, 2), model_run(monitor=like_others(0.8))),
    ]
    line = timeline(measure(records).table.to_pylist(), 420)
    assert line is not None
    (measured,), (estimated,) = line.accuracy.series, line.estimates
    assert [point.title for point in measured.points] == [
        "toy, 2026-11-01: 70.0% (60.4 to 78.1%) of 100 labelled images"
    ]
    assert [point.title for point in estimated.points] == [
        "toy, 2026-11-01: estimated 70.0% (66.0 to 74.0%)",
        "toy, 2026-11-02: estimated 80.0% (76.0 to 84.0%)",
    ]
    assert estimated.points[0].y == measured.points[0].y
    ticks = {tick.text: tick.at for tick in line.accuracy.ticks_y}
    assert [point.y for point in estimated.points] == [ticks["70%"], ticks["80%"]]
    assert (len(measured.bands), len(estimated.bands)) == (0, 1)


def test_an_estimate_alone_makes_a_time_line():
    page = render(measure([night(date(2026, 11, 1), model_run(monitor=like_others(0.7)))]))
    assert 'id="timeline"' in page
    assert page.count('class="estimate"') == 2  # desktop and phone
    assert "estimated without labels</li>" in page
    assert "measured on labels</li>" not in page
    assert 'data-v="0.7">– <span class="muted">/ 70.0%</span></td>' in page

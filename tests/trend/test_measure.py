"""The trend: references, whole rows, the text of the page, and missing values that are not shown."""

import math
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from nights import accepted, drawn_mix, like_others, mix, model_run, night, unlike_others

from batchland.cli.main import main
from batchland.errors import OutputError, UsageError
from batchland.nightly.history import job_records
from batchland.nightly.job import load_job
from batchland.nightly.record_files import update_run
from batchland.nightly.run_record import CONFIDENCE_BINS, ModelRun, PredictionMix, RunRecord
from batchland.nightly.runner import run_night
from batchland.report.options import ReportOptions
from batchland.trend.findings import headline
from batchland.trend.measure import measure
from batchland.trend.options import TrendOptions
from batchland.trend.page import render, terminal_summary
from batchland.trend.plots import Calendar, Value, line_plot
from batchland.trend.schema import TREND
from batchland.trend.timeline import WIDE
from batchland.trend.write import write_trend

LABELS = ("Red Tower", "Green Hill", "Blue Lake")
STEADY = mix({"Red Tower": 50, "Green Hill": 30, "Blue Lake": 20}, [0.62] * 50 + [0.92] * 50)
MOVED = mix({"Red Tower": 20, "Green Hill": 30, "Blue Lake": 50}, [0.32] * 80 + [0.92] * 20)


def day(number: int) -> date:
    return date(2024, 10, 1) + timedelta(days=number)


def rows(records, **options):
    return measure(records, TrendOptions(**options)).table.to_pylist()


def compared(records, **options):
    return {
        row["date"].day: ([night.day for night in row["compared_with"] or ()], row["reference"])
        for row in rows(records, **options)
    }


def distance(p, q) -> float:
    """Jensen-Shannon divergence: the entropy of the mean minus the mean of the entropies."""

    def entropy(shares) -> float:
        return -sum(share * math.log2(share) for share in shares)

    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return math.sqrt(entropy(middle) - (entropy(p) + entropy(q)) / 2)


def test_a_row_holds_the_night_and_its_drift():
    records = [night(day(0), model_run(mix=STEADY, right=80)), night(day(1), model_run(mix=MOVED, failed=4, right=48))]
    table = measure(records).table
    assert table.schema.equals(TREND, check_metadata=True)
    assert table.to_pylist()[1] == {
        "date": day(1),
        "outcome": "ok",
        "exit_code": 0,
        "good": True,
        "accepted": False,
        "attempts": 1,
        "seconds": 60.0,
        "model": "toy",
        "model_sha256": records[1].models[0].model.sha256,
        "images": 100,
        "failed": 4,
        "images_per_second": 50.0,
        "labelled": 96,
        "accuracy": 0.5,
        "accuracy_low": pytest.approx(0.401924, abs=1e-6),
        "accuracy_high": pytest.approx(0.598076, abs=1e-6),
        "estimated_accuracy": None,
        "estimated_low": None,
        "estimated_high": None,
        "monitor": None,
        "since": None,
        "gates": None,
        "mean_confidence": pytest.approx(0.44),
        "compared_with": [day(0)],
        "reference": True,
        # 50, 30, 20 against 20, 30, 50, half an image added to each; 9.21034 is chi-squared's 99% of two degrees
        "class_psi": pytest.approx(2 * 30 / 101.5 * math.log(50.5 / 20.5)),
        "class_psi_limit": pytest.approx(9.21034 / 50),
        "class_js": pytest.approx(distance((0.5, 0.3, 0.2), (0.2, 0.3, 0.5))),
        # two parts, up to and above 0.65: 50, 50 against 80, 20
        "confidence_psi": pytest.approx(30 / 101 * math.log(80.5 / 20.5)),
        "confidence_psi_limit": pytest.approx(6.634897 / 50),
        "confidence_js": pytest.approx(distance((0.5, 0.5), (0.8, 0.2))),
        "classes": [{"label": label, "images": images} for label, images in zip(LABELS, (20, 30, 50), strict=True)],
        "confidence_histogram": [0] * 6 + [80] + [0] * 11 + [20] + [0],
    }


def test_a_row_holds_the_verdict_the_acceptance_and_the_estimate():
    columns = (
        "outcome",
        "good",
        "accepted",
        "estimated_accuracy",
        "estimated_low",
        "estimated_high",
        "monitor",
        "since",
    )
    dark = night(day(2), model_run(monitor=unlike_others(since=day(1))), outcome="suspicious")
    records = [night(day(0), model_run(monitor=like_others(0.7))), dark, accepted(dark, day(1))]
    assert [tuple(row[column] for column in columns) for row in rows(records)] == [
        ("ok", True, False, 0.7, pytest.approx(0.66), pytest.approx(0.74), "ok", None),
        ("suspicious", False, False, None, None, None, "suspicious", day(1)),
        ("suspicious", True, True, None, None, None, "suspicious", day(1)),
    ]


def test_an_accepted_night_ended_well():
    dark = night(day(1), model_run(monitor=unlike_others()), outcome="suspicious")
    good = night(day(0), model_run(monitor=like_others(0.7)))
    assert headline(rows([good, dark])).startswith("1 of 2 nights ended well.")
    assert terminal_summary(measure([good, accepted(dark, day(1))])) == (
        "2 of 2 nights ended well. 200 images scored, 0 of them failed.\n"
    )


def test_the_first_good_nights_are_the_reference_each_compared_with_the_others():
    records = [night(day(number), model_run(mix=STEADY)) for number in range(5)]
    records[1] = night(day(1), model_run(mix=MOVED), outcome="gate_failed")
    assert compared(records, reference_nights=3) == {
        1: ([3, 4], True),
        2: ([1, 3, 4], False),  # it was no good night
        3: ([1, 4], True),
        4: ([1, 3], True),
        5: ([1, 3, 4], False),
    }


def test_a_new_version_of_a_model_gets_a_new_reference():
    records = [night(day(number), model_run(mix=STEADY, version="12"[number >= 2])) for number in range(4)]
    assert compared(records) == {1: ([2], True), 2: ([1], True), 3: ([4], True), 4: ([3], True)}


def test_given_dates_are_the_reference_of_all_versions():
    records = [night(day(number), model_run(mix=STEADY, version="12"[number >= 2])) for number in range(4)]
    assert compared(records, reference=(day(1), day(2))) == {
        1: ([2, 3], False), 2: ([3], True), 3: ([2], True), 4: ([2, 3], False)
    }  # fmt: skip
    with pytest.raises(
        UsageError, match=r"^reference 2024-11-01 to 2024-11-02: contains no good night with predictions"
    ):
        measure(records, TrendOptions(reference=(date(2024, 11, 1), date(2024, 11, 2))))


def test_nights_without_predictions_are_rows_without_figures():
    unfinished = ModelRun(name="toy", partition="/data/toy", state="unfinished")
    empty = mix(dict.fromkeys(LABELS, 0), [])
    found = rows(
        [
            night(day(0), outcome="missing_input", error="nothing"),
            night(day(1), unfinished, outcome="killed", seconds=None),
            night(day(2), model_run(listed=2, failed=2, mix=empty)),
            night(day(3), model_run(mix=STEADY)),
        ]
    )
    figures = ("outcome", "model", "images", "mean_confidence")
    assert [tuple(row[name] for name in figures) for row in found] == [
        ("missing_input", None, None, None),
        ("killed", "toy", None, None),
        ("ok", "toy", 2, None),
        ("ok", "toy", 100, pytest.approx(0.77)),
    ]
    assert {row["class_psi"] for row in found} == {None}


def long_story() -> list[RunRecord]:
    """Thirty nights; the last days see more of one class, fail more, are slower, and are less often right."""
    rng = np.random.default_rng(1)
    records = []
    for number in range(30):
        if number == 12:
            continue
        if number == 8:
            records.append(night(day(number), outcome="missing_input", error="/incoming: does not exist", seconds=0.1))
            continue
        late = number >= 27
        models = [
            model_run(
                name,
                listed=1000,
                failed=60 if late else 3,
                mix=drawn_mix(rng, 940, (2, 3, 8) if late else (5, 3, 2), LABELS, sure=2.0 if late else 6.0),
                right=600 if late else 800,
                rate=20.0 if late else 50.0,
                version="2" if name == "other" and number > 20 else "1",
            )
            for name in ("toy", "other")
        ]
        records.append(night(day(number), *models))
    return records


class Page(HTMLParser):
    """Contents of a page: visible text per section, URLs, ids, and whether every element is closed."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.addresses, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.ids += [facts["id"]] if "id" in facts else []
        self.addresses += [facts[name] for name in ("href", "src") if name in facts]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """An element of SVG without content."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def findings(page: str) -> list[str]:
    return re.findall(r'<li class="(?:warning|note)">(.*?) <a href', page)


def test_the_speed_is_compared_with_nights_that_were_scored():
    """Images that fail take less time than others."""

    def slow(failed: int) -> list[str]:
        nights = [night(day(number), model_run(failed=failed, rate=143.0, mix=STEADY)) for number in range(9)]
        page = render(measure([*nights, night(day(9), model_run(rate=39.9, mix=STEADY))]))
        return [text for text in findings(page) if text.startswith("Scoring has slowed down")]

    assert slow(100) == []
    assert slow(1) == [f"Scoring has slowed down: 39.9 images/s on {day(9)}, 143.0 in the median night before."]


def test_headline_and_findings():
    records = long_story()
    page = render(measure(records))
    assert re.search(r'<p class="lead">(.*)</p>', page)[1] == (
        "28 of 29 nights ended well. 28,000 images scored by 2 models, 255 of them failed."
    )
    sha = records[-1].models[1].model.sha256[:12]
    texts = findings(page)
    psi = [re.sub(r"PSI \d\.\d\d", "PSI N", re.sub(r"\d\d\.\d%", "N%", text)) for text in texts]
    assert psi == [
        "Not every night ended well: 1 missing input; the last one is 2024-10-09.",
        "No record of 2024-10-13: was the machine off, or cron?",
        "toy: Accuracy fell: N% on 2024-10-30, N% in the reference.",
        "toy: The predicted classes of 2024-10-30 have moved far (PSI N; most of all Blue Lake, from N% to N%).",
        "toy: The confidences of 2024-10-30 have moved far (PSI N).",
        "toy: More images fail: 6.0% on 2024-10-30, 0.3% in the reference.",
        "toy: Scoring has slowed down: 20.0 images/s on 2024-10-30, 50.0 in the median night before.",
        f"other: New version of the model since 2024-10-22, sha256 {sha}.",
        "other: Accuracy fell: N% on 2024-10-30, N% in the reference.",
        "other: The predicted classes of 2024-10-30 have moved far (PSI N; most of all Blue Lake, from N% to N%).",
        "other: The confidences of 2024-10-30 have moved far (PSI N).",
        "other: More images fail: 6.0% on 2024-10-30, 1.1% in the reference.",
        "other: Scoring has slowed down: 20.0 images/s on 2024-10-30, 50.0 in the median night before.",
    ]


def test_steady_nights_have_no_findings():
    rng = np.random.default_rng(2)
    records = [
        night(day(number), model_run(listed=400, mix=drawn_mix(rng, 400, (5, 3, 2), LABELS), right=320))
        for number in range(20)
    ]
    assert findings(render(measure(records))) == []


def test_nights_without_a_scored_image_have_no_plot_of_classes():
    nothing = PredictionMix(
        classes=dict.fromkeys(LABELS, 0), confidence_histogram=(0,) * CONFIDENCE_BINS, mean_confidence=None
    )
    page = render(measure([night(day(number), model_run(listed=3, failed=3, mix=nothing)) for number in range(8)]))
    assert findings(page) == [f"No image could be scored on {day(7)}: 3 images failed."]
    assert "Predicted classes" not in page


def test_the_page_loads_nothing_else():
    page = Page(render(measure(long_story())))
    assert len(page.ids) == len(set(page.ids))
    assert {address for address in page.addresses if not address.startswith("#")} == {"data:,"}
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


@pytest.mark.parametrize(
    "records",
    [
        [night(day(0), model_run(mix=STEADY, right=80))],
        [night(day(0), outcome="missing_input", error="nothing")],
        [night(day(0), ModelRun(name="toy", partition="/data", state="unfinished"), outcome="killed", seconds=None)],
        [night(day(0), model_run(listed=3, failed=3, mix=mix(dict.fromkeys(LABELS, 0), []), right=None))],
        [night(day(number * 40), model_run(mix=STEADY)) for number in range(12)],
        [night(day(number), model_run(mix=STEADY, right=100, rate=1e6)) for number in range(120)],
    ],
    ids=["one", "missing", "killed", "all failed", "months apart", "long"],
)
def test_every_kind_of_night_makes_a_page(records):
    page = render(measure(records))
    Page(page)
    coordinates = [
        float(number) for numbers in re.findall(r'points="([^"]+)"', page) for number in re.split("[ ,]", numbers)
    ]
    assert all(0 <= number <= WIDE for number in coordinates)
    assert "nan" not in page


def test_names_are_escaped_and_made_visible():
    hostile = "<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}"
    records = [
        night(day(number), model_run(hostile, mix=mix({hostile: 60, "B": 40}, [0.5] * 100)), job=hostile)
        for number in range(2)
    ]
    page = render(measure(records))
    assert page.count("<script>") == 1
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+202E]" in page


def test_many_classes_share_a_colour_and_only_the_last_nights_are_shown():
    labels = [f"class {number}" for number in range(40)]
    records = [
        night(day(number), model_run(mix=mix(dict(zip(labels, range(40, 0, -1), strict=True)), [0.5] * 820)))
        for number in range(6)
    ]
    page = render(measure(records, TrendOptions(nights=2)))
    legend = re.search(r'<ul class="legend">\n(.*?)</ul>', page, re.DOTALL)[1]
    assert re.findall(r'class="name">(.*?)<|(all others)', legend) == [(label, "") for label in labels[:8]] + [
        ("", "all others")
    ]
    assert "2 nights, 2024-10-05 to 2024-10-06; 4 earlier ones are in the table beside this page" in page
    assert page.count('</th><td class="number" data-v=') == 40


def test_the_command_writes_a_page_and_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [night(day(number), model_run(mix=STEADY, right=80)) for number in range(3)]
    for record in records:
        update_run(tmp_path / "runs" / "nightly" / str(record.date), record)
    run = CliRunner().invoke
    result = run(main, ["trend", "nightly", "--out", "new/trend.html", "--reference", "2024-10-01", "2024-10-02"])
    assert (result.exit_code, result.output) == (
        0,
        "3 of 3 nights ended well. 300 images scored, 0 of them failed.\n"
        "Trend: new/trend.html; table: new/trend.parquet.\n",
    )
    assert sorted(path.name for path in Path("new").iterdir()) == ["trend.html", "trend.parquet"]
    table = pq.read_table("new/trend.parquet")
    texts = table.schema.field("class_psi").metadata[b"description"]
    assert texts == b"Population stability index of the predicted classes."
    assert table.to_pylist() == rows(records, reference=(day(0), day(1)))
    result = run(main, ["trend", "nightly", "--out", "t.html", "--reference", "2024-10-02", "2024-10-01"])
    message = "Error: Invalid value for '--reference': ends before it begins; give the earlier date first"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, message)


def test_invalid_and_unwritable_outputs(tmp_path):
    trend = measure([night(day(0), model_run(mix=STEADY))])
    with pytest.raises(UsageError, match=r"trend: give a name that ends in \.html$"):
        write_trend(trend, tmp_path / "trend")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/trend\.html: cannot be written \(Not a directory\); write elsewhere$"):
        write_trend(trend, tmp_path / "file" / "trend.html")


def test_a_table_that_is_not_a_trend_is_kept(tmp_path):
    trend = measure([night(day(0), model_run(mix=STEADY))])
    files = write_trend(trend, tmp_path / "trend.html")
    assert write_trend(trend, tmp_path / "trend.html") == files
    for table in (pa.table({"image": ["a.jpg"], "label": ["x"]}), trend.table.append_column("mine", [[1]])):
        pq.write_table(table, files.parquet)
        with pytest.raises(UsageError) as caught:
            write_trend(trend, tmp_path / "trend.html")
        assert str(caught.value) == f"{files.parquet}: exists and is not the table of a trend; give another name"
        assert pq.read_table(files.parquet) == table
    assert write_trend(trend, tmp_path / "trend.html", ReportOptions(overwrite=True)) == files
    job = ReportOptions(inputs=("runs/nightly",))
    with pytest.raises(UsageError, match=r"trend\.html: exists and is not an earlier page of runs/nightly"):
        write_trend(trend, tmp_path / "trend.html", job)
    write_trend(trend, tmp_path / "trend.html", job.model_copy(update={"overwrite": True}))
    assert write_trend(trend, tmp_path / "trend.html", job) == files
    (tmp_path / "trend.manifest.json").touch()
    with pytest.raises(UsageError, match=r"trend\.parquet: has a manifest, so it holds predictions; give another name"):
        write_trend(trend, tmp_path / "trend.html", ReportOptions(overwrite=True))
    (tmp_path / "trend.manifest.json").unlink()
    files.html.write_text("<p>mine</p>")
    with pytest.raises(UsageError, match=r"trend\.html: exists and is not an earlier page of a job"):
        write_trend(trend, tmp_path / "trend.html")
    assert files.html.read_text() == "<p>mine</p>"


def test_with_many_nights_only_marked_and_isolated_ones_are_points():
    days = [day(number) for number in range(150)]
    values = [Value(day, None if number in (3, 5) else 0.5, str(day)) for number, day in enumerate(days)]
    values[40] = values[40]._replace(marked=True)
    (series,) = line_plot(Calendar(days), [values], percent=True).series
    assert [point.title for point in series.points] == [str(days[4]), str(days[40])]
    assert [len(line.split()) for line in series.lines] == [3, 144]


@pytest.mark.parametrize(
    ("values", "options", "ticks"),
    [
        ([0.81, 0.84], {"percent": True}, ["80%", "81%", "82%", "83%", "84%", "85%"]),
        ([0.5], {"percent": True}, ["48%", "49%", "50%", "51%", "52%"]),
        ([0.999], {"percent": True}, ["97%", "98%", "99%", "100%"]),
        ([0.0], {"percent": True, "low": 0, "high": 0.01}, ["0%", "1%", "2%", "3%"]),
        ([0.02, 0.41], {"low": 0, "high": 0.25}, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        ([1234.0], {"low": 0, "high": 1}, ["0", "250", "500", "750", "1,000", "1,250"]),
    ],
)
def test_the_vertical_axis_has_round_ends(values, options, ticks):
    plot = line_plot(Calendar([day(0), day(1)]), [[Value(day(0), value, "") for value in values]], **options)
    assert [tick.text for tick in plot.ticks_y] == ticks


def test_the_records_of_real_nights_are_measured(tmp_path, toy_model, colour_folders):
    job = tmp_path / "nightly.toml"
    job.write_text(
        f'images = "{colour_folders}"\nmodel = "{toy_model}"\nmonitor = {{action = "off"}}\n'
        f'[evaluation]\nlabels = "{colour_folders}"\n'
    )
    for number in range(2):
        assert run_night(load_job(job), day(number)).record.outcome == "ok"
    found = measure(job_records(tmp_path / "runs", "nightly")).table.to_pylist()
    assert [(row["date"], row["model"], row["images"], row["failed"], row["accuracy"]) for row in found] == [
        (day(0), "toy", 9, 0, 1.0), (day(1), "toy", 9, 0, 1.0)
    ]  # fmt: skip
    assert found[1]["classes"] == [{"label": label, "images": 3} for label in LABELS]
    assert (sum(found[1]["confidence_histogram"]), found[1]["class_psi"], found[1]["class_js"]) == (9, 0.0, 0.0)


def test_a_night_without_predictions_breaks_the_lines():
    records = [night(day(number), model_run(mix=STEADY)) for number in range(6)]
    records[2] = night(day(2), outcome="missing_input", error="nothing")
    page = render(measure(records))
    lines = re.findall(r'<polyline class="line" points="([^"]+)"', page)
    assert {len(line.split()) for line in lines} == {2, 3}
    assert "<title>2024-10-03: missing input</title>" in page

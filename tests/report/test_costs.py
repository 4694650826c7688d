"""The cost of a threshold on report.html: the same numbers as counted from outcomes.parquet."""

import csv
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, opened
from evaluation_data import Row, random_case, write_arrays, write_label_folders, write_predictions

from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.models.card import class_names
from batchland.report import costs
from batchland.report.costs import cost_data
from batchland.report.curves import curve_data
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
Outcomes = dict[str, np.ndarray]
"""Columns by name."""


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("costs")
    truth, probabilities = random_case(3, 600, accuracy=0.5, seed=4)
    names = [f"{FOLDERS[index]}/{number}.jpg" for number, index in enumerate(truth)]
    predictions = write_arrays(folder / "p.parquet", class_names(FOLDERS), names, probabilities)
    labels = folder / "labels.csv"
    labels.write_text("image,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    return evaluate(predictions, labels, EvaluateOptions(brightness_sample=0))


def counted(outcomes: Outcomes, threshold: float, label: str | None = None) -> tuple[int, int, int]:
    """(accepted, errors among them, all)."""
    images = outcomes["predicted_label"] == (label or outcomes["predicted_label"])
    taken = images & (outcomes["probability"] >= np.float32(threshold))
    return int(taken.sum()), int((taken & ~outcomes["correct"].astype(bool)).sum()), int(images.sum())


def cheapest(outcomes: Outcomes, error: float, look: float, label: str | None = None) -> tuple[float, float]:
    """(threshold, cost per image), with thresholds of whole percents up to 1, and above all of them."""
    found = []
    for step in range(102):
        taken, errors, images = counted(outcomes, step / 100, label)
        found.append(((errors * error + (images - taken) * look) / images, step / 100))
    cost = min(each for each, _ in found)
    return next(threshold for each, threshold in found if each <= cost + 1e-12), cost


@needs_browser
def test_the_slider_shows_what_is_in_the_table(browser, evaluation, tmp_path):
    files = write_report(evaluation, tmp_path / "report")
    outcomes = {name: evaluation.outcomes[name].to_numpy() for name in ("predicted_label", "probability", "correct")}
    with opened(browser, files.html) as found:
        page = found.page

        def shown(*names: str) -> list[str]:
            return [page.locator(f"#costs-{name}").inner_text() for name in names]

        for threshold, label in ((0, None), (90, None), (73, "Green Hill")):
            page.locator("#costs-form [name=threshold]").fill(str(threshold))
            page.locator("#costs-form [name=group]").select_option(label=label or "all")
            taken, errors, images = counted(outcomes, threshold / 100, label)
            assert shown("accepted", "errors", "looks", "cost") == [
                f"{taken} ({100 * taken / images:.1f}%)",
                f"{errors} ({100 * errors / taken:.1f}%)",
                f"{images - taken} ({100 * (images - taken) / images:.1f}%)",
                f"{(10 * errors + images - taken) / images:.3f}",
            ]
        page.locator("#costs-form [name=group]").select_option("")
        for wrong in ("-5", ""):
            page.get_by_label("Cost of an error").fill(wrong)
            assert page.locator("#costs-invalid").inner_text() == "Costs are numbers of at least 0."
            assert shown("accepted", "errors", "looks", "cost", "cheapest", "together") == ["–"] * 6
            assert page.get_by_role("button", name="Cheapest threshold").is_disabled()
        page.get_by_label("Cost of an error").fill("4")
        page.get_by_role("button", name="Cheapest threshold").click()
        best, cost = cheapest(outcomes, 4, 1)
        assert shown("threshold", "cost", "cheapest") == [f"{best:.0%}", f"{cost:.3f}", f"{best:.0%}: {cost:.3f}"]
        labels = [name.label for name in evaluation.summary.classes]
        single = {label: cheapest(outcomes, 4, 1, label) for label in labels}
        together = sum(each * counted(outcomes, 0, label)[2] for label, (_, each) in single.items())
        assert shown("together") == [f"{together / 600:.3f}"]
        with page.expect_download() as download:
            page.get_by_role("button", name="Save cheapest of each class").click()
        assert page.evaluate("[grouped(1500), percent(0.99996), percent(1)]") == ["1,500", ">99.9%", "100.0%"]
        rows = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()))
        assert [(row["predicted_label"], float(row["threshold"])) for row in rows] == [
            (label, threshold) for label, (threshold, _) in single.items()
        ]


def test_the_data_are_sparse(tmp_path):
    rows = [
        Row("00.Red_Tower/1.jpg", (0.9, 0.1, 0.0)),
        Row("00.Red_Tower/2.jpg", (0.1, 0.9, 0.0)),
        Row("01.Green_Hill/3.jpg", (0.305, 0.695, 0.0)),
        Row("01.Green_Hill/4.jpg", (0.0, 1.0, 0.0)),
        Row("01.Green_Hill/5.jpg", error_code="truncated"),
    ]
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, rows)
    found = evaluate(predictions, write_label_folders(tmp_path / "labels", [row.image for row in rows]))
    assert cost_data(found) == {
        "labels": ["Red Tower", "Green Hill", "Blue Lake"],
        "steps": 100,
        "classes": [[90, 1, 1], [69, 1, 1, 90, 1, 0, 100, 1, 1], []],
    }


def test_many_classes_have_one_threshold(evaluation, monkeypatch):
    monkeypatch.setattr(costs, "MAX_CLASSES", 2)
    data = cost_data(evaluation)
    assert data is not None
    assert (data["labels"], len(data["classes"])) == ([], 1)
    assert sum(data["classes"][0][1::3]) == 600
    assert sum(data["classes"][0][2::3]) == sum(evaluation.outcomes["correct"].to_pylist())


def test_without_a_scored_image_there_are_no_costs(tmp_path):
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, [Row("00.Red_Tower/1.jpg", error_code="empty")])
    found = evaluate(predictions, write_label_folders(tmp_path / "labels", ["00.Red_Tower/1.jpg"]))
    assert cost_data(found) is None
    assert 'id="costs"' not in write_report(found, tmp_path / "report").html.read_text()


@needs_browser
def test_the_curves_of_a_class(browser, evaluation, tmp_path):
    data = curve_data(evaluation)
    assert data is not None
    assert [each["label"] for each in data] == ["mean of all classes", "Red Tower", "Green Hill", "Blue Lake"]
    points = [row for row in evaluation.curves.to_pylist() if row["label"] == "Green Hill"]
    assert data[2]["pr"][:2] == [round(1000 * points[0]["recall"]), round(1000 * points[0]["precision"])]
    assert data[2]["roc"][-2:] == [1000, 1000]
    area = evaluation.per_class["auroc"][1].as_py()
    with opened(browser, write_report(evaluation, tmp_path / "report").html) as found:
        line, mean = found.page.locator("#roc-line"), found.page.locator("#roc-mean")
        before = line.get_attribute("points")
        assert mean.get_attribute("points") == ""
        found.page.get_by_label("Curve of").select_option(label="Green Hill")
        assert mean.get_attribute("points") == before
        assert len(line.get_attribute("points").split()) == len(data[2]["roc"]) // 2
        assert f"AUROC {100 * area:.1f}% (" in found.page.locator("#curves-text").inner_text()

"""Several evaluations at once: common images, accuracies, pairs with corrected p-values, page and command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from commands import batchland
from evaluation_data import Row, delivery, write_predictions
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.report_names import different_names
from batchland.evaluation.saved import read_report
from batchland.evaluation.several import compare_several
from batchland.report.several import several_text
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill")
RIGHT = {"a": range(180), "b": range(10, 186), "c": range(120)}
"""Model -> images of 200 that it has right."""


def made(folder: Path, model: str, right: range, images: int = 200, failed: int = 0) -> Evaluation:
    rows = [
        Row(f"00.Red_Tower/{number}.jpg", (0.9, 0.1) if number in right else (0.2, 0.8)) for number in range(images)
    ]
    rows += [Row(f"00.Red_Tower/broken{number}.jpg", error_code="truncated") for number in range(failed)]
    labels = folder / f"labels-{model}.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((row.image, "Red Tower") for row in rows)])
    return evaluate(write_predictions(folder / f"{model}.parquet", FOLDERS, rows, model=model), labels)


def test_all_pairs_are_corrected_together(tmp_path):
    found = compare_several([made(tmp_path, name, right) for name, right in RIGHT.items()])
    assert [(model.name, model.right, model.accuracy.value, model.maybe_best) for model in found.models] == [
        ("a", 180, 0.9, True), ("b", 176, 0.88, True), ("c", 120, 0.6, False),
    ]  # fmt: skip
    assert (found.images, found.left_out) == (200, 0)
    assert [(pair.higher, pair.lower, pair.only_higher, pair.only_lower) for pair in found.pairs] == [
        ("a", "b", 10, 6), ("a", "c", 60, 0), ("b", "c", 66, 10),
    ]  # fmt: skip
    exact = [binomtest(pair.only_higher, pair.only_higher + pair.only_lower).pvalue for pair in found.pairs]
    np.testing.assert_allclose([pair.p_adjusted for pair in found.pairs], multipletests(exact, method="holm")[1])
    assert [round(pair.difference, 9) for pair in found.pairs] == [0.02, 0.3, 0.28]
    assert all(pair.low < pair.difference < pair.high for pair in found.pairs)


def test_only_common_images_count(tmp_path):
    small = made(tmp_path, "b", RIGHT["b"], images=150, failed=3)
    found = compare_several([made(tmp_path, "a", RIGHT["a"]), small, made(tmp_path, "c", RIGHT["c"])])
    assert (found.images, found.left_out) == (150, 53)
    assert {model.name: model.right for model in found.models} == {"a": 150, "b": 140, "c": 120}


def test_renamed_images_are_joined_by_content(tmp_path):
    """Of four images, the third delivery renames two; one of these has no sha256 there, so it cannot be joined."""
    red = "00.Red_Tower"
    contents = {f"{red}/1.jpg": "c1", f"{red}/2.jpg": "c2", f"{red}/3.jpg": "c3", f"{red}/4.jpg": "c4"}
    renamed = {f"{red}/1.jpg": "c1", f"{red}/2.jpg": "c2", f"{red}/new3.jpg": "c3", f"{red}/new4.jpg": None}
    sides = [("a", contents, (0.7, 0.3)), ("b", contents, (0.6, 0.4)), ("c", renamed, (0.1, 0.9))]
    found = compare_several([delivery(tmp_path / name, FOLDERS, *side, model=name) for name, *side in sides])
    assert (found.images, found.by_content, found.left_out) == (3, 1, 2)
    assert [(model.name, model.right) for model in found.models] == [("a", 3), ("b", 3), ("c", 0)]
    assert several_text(found).endswith(
        "note: 1 image with different paths, matched by the content of the files.\n"
        "note: 2 images not in all of them, or failed or relabelled, so not compared.\n"
    )


def test_evaluations_without_common_images_are_an_error(tmp_path):
    rows = [Row("01.Green_Hill/x.jpg", (0.1, 0.9))]
    (tmp_path / "l.csv").write_text("image,label\n01.Green_Hill/x.jpg,Green Hill\n")
    other = evaluate(write_predictions(tmp_path / "x.parquet", FOLDERS, rows, model="x"), tmp_path / "l.csv")
    with pytest.raises(UsageError, match="a, c, x: no image was scored with the same label in all"):
        compare_several([made(tmp_path, "a", RIGHT["a"]), made(tmp_path, "c", RIGHT["c"]), other])


def test_models_of_the_same_name_get_different_names(tmp_path):
    same = made(tmp_path, "a", RIGHT["a"])
    assert different_names([same, same]) == ["a (1)", "a (2)"]
    other = made(tmp_path, "b", RIGHT["b"])
    assert different_names([same, other, same]) == ["a (1)", "b (2)", "a (3)"]


def test_reports_of_one_model_are_named_by_their_folders(tmp_path):
    """All are of model `a`; two are of the same predictions, in two reports."""
    for name in ("monday", "tuesday"):
        (tmp_path / name).mkdir()
    monday, tuesday = made(tmp_path / "monday", "a", RIGHT["a"]), made(tmp_path / "tuesday", "a", RIGHT["c"])
    assert different_names([monday, tuesday]) == ["monday", "tuesday"]
    reports = []
    for name, evaluation in (("one", monday), ("two", monday), ("three", tuesday)):
        write_report(evaluation, tmp_path / name)
        reports.append(read_report(tmp_path / name))
    found = compare_several(reports)
    assert [(model.name, model.report) for model in found.models] == [
        (name, str(tmp_path / name)) for name in ("one", "two", "three")
    ]
    assert [(pair.higher, pair.lower, pair.low, pair.high) for pair in found.pairs[:1]] == [("one", "two", 0.0, 0.0)]


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, right in RIGHT.items():
        write_report(made(tmp_path, name, right), tmp_path / f"report-{name}")
    return tmp_path


def test_the_command(reports):
    result = batchland("compare", "report-a", "report-b", "report-c", "--out", "all")
    assert (result.exit_code, result.stdout) == (
        0,
        "3 models, 200 images that all scored\n"
        "b does not differ from a by more than chance; the others are worse.\n"
        "  model  accuracy  interval                        report\n"
        "  a         90.0%  85.1 to 93.4%  may be the best  report-a\n"
        "  b         88.0%  82.8 to 91.8%  may be the best  report-b\n"
        "  c         60.0%  53.1 to 66.5%                   report-c\n"
        "  pair        difference  p, adjusted\n"
        "  a less b   +2.0 points  p = 0.454\n"
        "  a less c  +30.0 points  p < 0.001    more than chance\n"
        "  b less c  +28.0 points  p < 0.001    more than chance\n"
        "report: all/report.html\n",
    )
    rows = list(csv.DictReader(Path("all/pairs.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [(row["higher"], row["lower"], row["only_higher"]) for row in rows] == [
        ("a", "b", "10"), ("a", "c", "60"), ("b", "c", "66"),
    ]  # fmt: skip
    assert batchland("compare", "report-a", "--out", "x").exit_code == 2


def test_the_command_prints_json_and_markdown(reports):
    compare = ("compare", "report-a", "report-b", "report-c", "--out", "all")
    printed = batchland(*compare, "--json")
    assert (printed.exit_code, printed.stderr) == (0, "")
    document = json.loads(printed.stdout)
    assert document == json.loads(Path("all/summary.json").read_text())
    assert (document["kind"], document["images"]) == ("batchland.several", 200)
    assert [(model["name"], model["right"]) for model in document["models"]] == [("a", 180), ("b", 176), ("c", 120)]
    assert [(pair["higher"], pair["lower"], pair["only_higher"]) for pair in document["pairs"]] == [
        ("a", "b", 10), ("a", "c", 60), ("b", "c", 66),
    ]  # fmt: skip
    assert batchland(*compare, "--markdown").stdout.splitlines() == [
        "## 3 models, 200 images that all scored",
        "",
        "b does not differ from a by more than chance; the others are worse.",
        "",
        "| model | accuracy | interval |",
        "| --- | ---: | --- |",
        "| a | 90.0% | 85.1 to 93.4% |",
        "| b | 88.0% | 82.8 to 91.8% |",
        "| c | 60.0% | 53.1 to 66.5% |",
        "",
        "| pair | difference | p, adjusted |",
        "| --- | ---: | --- |",
        "| a less b | +2.0 points | p = 0.454 |",
        "| a less c | +30.0 points | p < 0.001 |",
        "| b less c | +28.0 points | p < 0.001 |",
    ]


@needs_browser
def test_the_page(browser, reports):
    batchland("compare", "report-a", "report-b", "report-c", "--out", "all")
    with opened(browser, reports / "all" / "report.html", offline=True) as found:
        assert_structured(found.page)
        assert_readable(found)
        cells = found.page.locator(".several tbody tr").first.locator("td").all_inner_texts()
        assert [" ".join(cell.split()) for cell in cells] == ["–", "+2.0 p = 0.454", "+30.0 p < 0.001"]

"""A comparison's files, its page in a real browser, its texts, and the two commands that make one."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from commands import batchland
from evaluation_data import Row, write_label_folders, write_predictions
from jsonschema import Draft202012Validator
from toys import picture

from batchland.errors import UsageError
from batchland.evaluation.comparison import Comparison, compare
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.saved import COMPARISON_FILES
from batchland.evaluation.schema import CLASS_CHANGES, FLIPS, ComparisonSummary
from batchland.report.comparison_text import (
    changed_classes,
    comparison_markdown,
    comparison_terminal_text,
    differences,
)
from batchland.report.write import report_names, write_comparison

FOLDERS = ("00.Red_Tower", "01.Green_Hill")
RED, GREEN = (0.8, 0.2), (0.3, 0.7)
NAMES = tuple(f"{folder}/{number:02}.jpg" for folder in FOLDERS for number in range(20))
PHOTO = picture()


def answers(red_right: int, green_right: int) -> list[tuple[float, float]]:
    """20 Red and 20 Green images: the first ones are right, the others get the other class."""
    red = [RED if number < red_right else GREEN for number in range(20)]
    return red + [GREEN if number < green_right else RED for number in range(20)]


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with monday.parquet and tuesday.parquet: Red 19, then 18 of 20 right, Green 8, then 20."""
    monkeypatch.chdir(tmp_path)
    images = write_label_folders(tmp_path / "images", NAMES, PHOTO)
    for night, counts in (("monday", (19, 8)), ("tuesday", (18, 20))):
        rows = [Row(name, answer, file_size=len(PHOTO)) for name, answer in zip(NAMES, answers(*counts), strict=True)]
        if night == "tuesday":
            rows[0] = Row(NAMES[0], error_code="vanished")
        write_predictions(Path(f"{night}.parquet"), FOLDERS, rows, images=images)
    return tmp_path


def comparison() -> Comparison:
    return compare(*(evaluate(f"{night}.parquet", "images") for night in ("monday", "tuesday")))


SUMMARY = """\
tuesday compared with monday: 39 images that both scored with the same label
                     monday  tuesday  difference
  top-1 accuracy      66.7%    94.9%  +28.2 points  (+10.2 to +43.4)
  balanced accuracy   67.4%    94.7%  +27.4 points  (+14.8 to +39.9)
  macro F1            64.3%    94.8%  +30.5 points  (+15.0 to +45.8)
  calibration error   19.7%    20.5%  +0.8 points   (−10.8 to +13.1)
tuesday is better than monday. tuesday is right for 37 of 39 images, monday for 26: +28.2 points (95% interval \
+10.2 to +43.4); more than chance (exact McNemar test, p = 0.003).
note: 1 image failed only in tuesday, so not compared.
note: Better by more than chance: Green Hill (40.0% to 100.0%).
changed answers: 1 broken (only monday was right), 12 fixed, 0 wrong in another way
"""


def test_the_terminal_summary(nights: Path) -> None:
    assert comparison_terminal_text(comparison()) == SUMMARY


def test_changed_classes(nights: Path) -> None:
    assert [changed._asdict() for changed in changed_classes(comparison().per_class)] == [
        {
            "label": "Green Hill", "accuracy_a": 0.4, "accuracy_b": 1.0, "difference": pytest.approx(0.6),
            "support": 20, "p_adjusted": pytest.approx(2 * 2 * 0.5**12),
        }
    ]  # fmt: skip


def test_no_difference(nights: Path) -> None:
    same = evaluate("monday.parquet", "images")
    assert (
        "\nNo difference. toy (1) and toy (2) give the same answers, right for 27 of 40 images.\n"
        "changed answers: 0 broken (only toy (1) was right), 0 fixed, 0 wrong in another way\n"
    ) in comparison_terminal_text(compare(same, same))


def test_the_exact_test_finds_changes_beyond_chance(tmp_path: Path) -> None:
    """Of 100 images 11 were won and 3 lost: the bootstrap says more than chance, the exact test does not."""
    names = [f"{number:03}.jpg" for number in range(100)]
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{name},Red Tower\n" for name in names))
    sides = []
    for name, wrong in (("a", range(11)), ("b", range(90, 93))):
        rows = [Row(each, GREEN if number in wrong else RED) for number, each in enumerate(names)]
        sides.append(evaluate(write_predictions(tmp_path / f"{name}.parquet", FOLDERS, rows), labels))
    summary = compare(*sides).summary
    assert summary.figures.top1.low is not None
    assert summary.figures.top1.low > 0
    assert summary.agreement.p_value == pytest.approx(0.0574, abs=1e-4)
    shown = next(figure for figure in differences(summary) if figure.name == "top-1 accuracy")
    assert (shown.kind, shown.clear) == ("better", False)
    assert "\nNo clear difference. " in comparison_terminal_text(compare(*sides))


def test_intervals_beyond_the_scale_have_an_arrow(tmp_path: Path) -> None:
    """The interval of the 25 green images fits the scale (10 points for the difference alone); that of 4 red ones does
    not."""
    names = [f"{FOLDERS[number >= 4]}/{number:02}.jpg" for number in range(29)]
    images = write_label_folders(tmp_path / "images", names, PHOTO)
    sides = []
    for name, wrong in (("a", (10, 11)), ("b", ())):
        rows = [Row(each, (RED if n < 4 or n in wrong else GREEN)) for n, each in enumerate(names)]
        sides.append(evaluate(write_predictions(tmp_path / f"{name}.parquet", FOLDERS, rows), images))
    found = compare(*sides)
    page = write_comparison(found, tmp_path / "changes").html.read_text()
    assert "The bars' scale is \N{MINUS SIGN}30.0 to +30.0 points" in page
    cut = {}
    for row in found.per_class.to_pylist():
        line = next(each for each in page.split("<tr") if f'<bdi class="name">{row["label"]}</bdi></th>' in each)
        cut[row["label"]] = (row["difference_low"] < -0.3, row["difference_high"] > 0.3)
        assert ("cut-low" in line, "cut-high" in line) == cut[row["label"]]
    assert cut == {"Red Tower": (True, True), "Green Hill": (False, False)}


def test_markdown(nights: Path) -> None:
    text = comparison_markdown(comparison())
    assert text.startswith("## tuesday compared with monday\n\ntuesday is better than monday. ")
    assert "| figure | monday | tuesday | difference | interval |\n| --- | ---: | ---: | ---: | --- |\n" in text
    assert "| top-1 accuracy | 66.7% | 94.9% | +28.2 points | +10.2 to +43.4 |\n" in text
    assert text.endswith("- Changed answers: 1 broken (only monday was right), 12 fixed, 0 wrong in another way.\n")


def test_the_files_and_their_schemas(nights: Path) -> None:
    found = comparison()
    files = write_comparison(found, "changes")
    assert sorted(path.name for path in Path("changes").iterdir()) == sorted(COMPARISON_FILES)
    assert pq.read_schema(files.per_class).equals(CLASS_CHANGES)
    assert pq.read_schema(files.flips).equals(FLIPS)
    assert ComparisonSummary.model_validate_json(files.summary.read_bytes()) == found.summary
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "comparison_summary.json").read_text())
    Draft202012Validator(schema).validate(json.loads(files.summary.read_bytes()))
    with files.per_class_csv.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["only_b_right"]) for row in rows] == [("Red Tower", "0"), ("Green Hill", "12")]
    Path("changes/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes.txt', which this command does not write"):
        write_comparison(found, "changes")


def test_compare_reads_two_reports_and_writes_the_third(nights: Path) -> None:
    for night in ("monday", "tuesday"):
        assert batchland("evaluate", f"{night}.parquet", "-l", "images", "-o", f"{night}-report").exit_code == 0
    result = batchland("compare", "monday-report", "tuesday-report", "--out", "changes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{SUMMARY}report: changes/report.html\n"
    again = batchland("compare", "monday-report", "tuesday-report", "-o", "changes", "--markdown")
    assert again.stdout.startswith("## tuesday compared with monday\n")
    assert "report:" not in again.stdout


def test_compare_rejects_a_folder_without_a_report(nights: Path) -> None:
    result = batchland("compare", "images", "images", "--out", "changes")
    assert (result.exit_code, result.stderr) == (
        2,
        "batchland: images: holds no summary.json; give a folder that `batchland evaluate` wrote\n",
    )
    assert not Path("changes").exists()


def test_compare_rejects_a_comparison(nights: Path) -> None:
    write_comparison(comparison(), "changes")
    result = batchland("compare", "changes", "changes", "--out", "x")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "changes/summary.json: not a summary that this version of batchland can read (" in result.stderr


def test_evaluate_two_predictions_files(nights: Path) -> None:
    gates = ("--fail-if", "drop(top1) > 0", "--fail-if", "top1 < 0.99")
    result = batchland("evaluate", "monday.parquet", "tuesday.parquet", "-l", "images", "-o", "both", *gates)
    assert result.exit_code == 4
    assert result.stderr == "batchland: gate failed: top1 is 0.9487 (fails if top1 < 0.99); see both/report.html\n"
    assert re.findall("^(.*): .* images scored and labelled", result.stdout, re.M) == ["monday", "tuesday"]
    assert result.stdout.count("gate ") == 2
    assert "gate passed: top1 went from 0.675 to 0.9487 (fails if drop(top1) > 0)\n" in result.stdout
    assert result.stdout.endswith(f"\n{SUMMARY}report: both/report.html\n")
    assert {path.name for path in Path("both").iterdir()} == {*COMPARISON_FILES, "monday", "tuesday"}
    for night in ("monday", "tuesday"):
        assert (Path("both") / night / "report.html").exists()
    once_more = batchland("evaluate", "monday.parquet", "tuesday.parquet", "-l", "images", "-o", "both")
    assert once_more.exit_code == 0  # folders of an earlier report may be replaced


def test_evaluate_two_rejects_a_folder_with_other_files(nights: Path) -> None:
    result = batchland("evaluate", "monday.parquet", "tuesday.parquet", "-l", "no labels", "-o", "images")
    assert result.exit_code == 2
    assert "images: holds '00.Red_Tower', which this command does not write" in result.stderr  # before labels are read


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("scratch.parquet", "transfer.parquet", ("scratch", "transfer")),
        ("monday/preds.parquet", "tuesday/preds.parquet", ("monday", "tuesday")),
        ("preds.parquet", "preds.parquet", ("a", "b")),
        ("summary.json", "other", ("summary", "other")),
        ("report.html/p", "other/p", ("a", "b")),
    ],
)
def test_report_names(a: str, b: str, names: tuple[str, str]) -> None:
    assert report_names(a, b) == names


def test_evaluate_rejects_three_predictions_files(nights: Path) -> None:
    result = batchland("evaluate", *("monday.parquet",) * 3, "-l", "images", "-o", "all")
    assert (result.exit_code, result.stderr) == (
        2,
        "batchland: 3 predictions files: give one, or two to compare\n",
    )


@needs_browser
def test_the_page(browser: Any, nights: Path) -> None:
    files = write_comparison(comparison(), "changes")
    with opened(browser, files.html, offline=True) as found:
        page = found.page
        assert page.locator("h1").inner_text() == "tuesday compared with monday"
        assert page.locator(".lead").inner_text().startswith("tuesday is better than monday.")
        assert page.locator("#class-table tbody th").all_inner_texts() == ["Red Tower", "Green Hill"]
        page.get_by_role("button", name="Difference").click()
        assert page.locator("#class-table tbody th").all_inner_texts() == ["Green Hill", "Red Tower"]
        page.get_by_label("Class", exact=True).fill("red")
        assert page.locator("#class-table tbody tr:not([hidden]) th").all_inner_texts() == ["Red Tower"]
        assert page.locator("#flips h3").all_inner_texts() == [
            "Broken: only monday is right (1)",
            "Fixed: only tuesday is right (12)",
            "Wrong in another way (0)",
        ]
        assert page.locator("#flips img").count() == 13
        assert_structured(page)
        assert_readable(found)


@needs_browser
def test_hostile_names_are_only_text(browser: Any, tmp_path: Path) -> None:
    folders = ("<img src=x onerror=window.hacked=1>", "'\"></script><script>window.hacked=1</script>")
    rows = [Row(f"{number}<script>window.hacked=1</script>.jpg", RED) for number in range(3)]
    labels = tmp_path / "l.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((row.image, folders[0]) for row in rows)])
    sides = []
    for model, answer in (("<script>window.hacked=1</script>", RED), ('" onload="window.hacked=1', GREEN)):
        path = write_predictions(tmp_path / "p.parquet", folders, [Row(row.image, answer) for row in rows], model=model)
        sides.append(evaluate(path, labels))
    files = write_comparison(compare(*sides), tmp_path / "changes")
    with opened(browser, files.html) as found:
        assert found.page.evaluate("window.hacked") is None
        assert found.page.locator("img").count() == 0
        assert found.page.locator("script").count() == 1
        assert folders[0] in found.page.locator("#class-table tbody th").all_inner_texts()

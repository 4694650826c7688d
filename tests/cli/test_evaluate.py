"""`batchland evaluate` as it is typed: what it prints, writes and ends with."""

import os
import re
import shutil
from pathlib import Path

import pytest
from commands import batchland
from evaluation_data import Row, write_label_folders, write_predictions

from batchland.evaluation.saved import REPORT_FILES, read_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill")
RED, GREEN = (0.8, 0.2), (0.3, 0.7)
NAMES = tuple(f"{folder}/{number}.jpg" for folder in FOLDERS for number in range(4))


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: preds.parquet (7 of 8 right), labels/, and before.parquet (all right)."""
    monkeypatch.chdir(tmp_path)
    answers = [RED] * 4 + [GREEN] * 3 + [RED]
    rows = [Row(name, answer) for name, answer in zip(NAMES, answers, strict=True)]
    write_predictions(Path("preds.parquet"), FOLDERS, rows)
    write_predictions(Path("before.parquet"), FOLDERS, [*rows[:7], Row(NAMES[7], GREEN)])
    write_label_folders(Path("labels"), NAMES)
    return tmp_path


SUMMARY = """\
toy: 8 images scored and labelled, 2 classes
verdict: No verdict. No gates were set, so only you can say whether this is good enough.
  Not better than always answering Red Tower, which would be right for 50.0%, by more than chance (p = 0.250).
  8 images are too few to know the accuracy: its interval is 45 points wide.
to do: Label at most 375 images more: then the accuracy is known within 5 points.
  top-1 accuracy     87.5%  (52.9 to 97.8%)
  balanced accuracy  87.5%  (51.4 to 97.9%)
  macro F1           87.3%
  calibration error  11.3%  (0.0 to 35.8%)
"""


def test_terminal_output_and_files(night: Path) -> None:
    result = batchland("evaluate", "preds.parquet", "--labels", "labels", "--out", "report")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == SUMMARY + (
        "worst classes  accuracy  images  mostly predicted as\n"
        "  Green Hill      75.0%       4  Red Tower\n"
        "  Red Tower      100.0%       4  –\n"
        "report: report/report.html\n"
    )
    assert sorted(path.name for path in Path("report").iterdir()) == sorted(REPORT_FILES)


OTHER_FILES = (
    "batchland: report: holds a report that was made from other files; give another --out; --overwrite replaces the "
    "files of a report and keeps all others\n"
)


def test_only_a_report_on_the_same_files_is_replaced(night: Path) -> None:
    """A rerun replaces its own report, also with other options or a changed predictions file."""

    def run(*arguments: str, folder: str = ".") -> tuple[int, str]:
        os.chdir(night / folder)
        result = batchland(*arguments)
        os.chdir(night)
        return result.exit_code, result.stderr

    write_label_folders(Path("others"), NAMES)
    one = ("evaluate", "preds.parquet", "--labels", "labels", "--out", "report")
    both = ("evaluate", "before.parquet", "preds.parquet", "-l", "labels", "-o", "report")
    assert [run(*one), run(*one, "--confidence", "0.9")] == [(0, "")] * 2
    assert run("evaluate", "../preds.parquet", "-l", ".", "-o", "../report", folder="labels") == (0, "")
    before = Path("report/summary.json").read_bytes()
    for others in (
        ("evaluate", "before.parquet", "--labels", "labels", "--out", "report"),
        ("evaluate", "preds.parquet", "--labels", "others", "--out", "report"),
        ("compare", "report", "report", "--out", "report"),
    ):
        assert run(*others)[0] == 2
        assert Path("report/summary.json").read_bytes() == before
    assert run("evaluate", "before.parquet", "--labels", "labels", "--out", "report") == (2, OTHER_FILES)
    assert run("evaluate", "before.parquet", "--labels", "labels", "--out", "report", "--overwrite") == (0, "")
    assert run(*one) == (2, OTHER_FILES)
    assert run(*both)[0] == 2
    shutil.rmtree("report")
    assert [run(*both), run(*both)] == [(0, "")] * 2
    assert run("evaluate", "preds.parquet", "before.parquet", "-l", "labels", "-o", "report") == (2, OTHER_FILES)


@pytest.mark.parametrize("count", [2, 3])
def test_only_a_comparison_of_the_same_reports_is_replaced(night: Path, count: int) -> None:
    for name in ("before", "preds"):
        batchland("evaluate", f"{name}.parquet", "-l", "labels", "-o", name)
    Path("again").symlink_to("preds")
    reports = ("before", "preds", "again")[:count]
    for given, expected in (
        (reports, (0, "")),
        (reports, (0, "")),
        (reports[::-1], (2, OTHER_FILES)),
        ((*reports[::-1], "--overwrite"), (0, "")),
    ):
        result = batchland("compare", *given, "--out", "report")
        assert (result.exit_code, result.stderr) == expected


def test_an_input_is_never_an_output_also_with_overwrite(night: Path) -> None:
    labels = "image,label\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in NAMES)
    for name in ("before", "preds"):
        assert batchland("evaluate", f"{name}.parquet", "-l", "labels", "-o", name).exit_code == 0
    shutil.copytree("before", "third")
    Path("own").mkdir()
    Path("own/per_class.csv").write_text(labels)
    summary = Path("before/summary.json").read_bytes()
    evaluate = ("evaluate", "preds.parquet", "-l")
    for given, output in (
        ((*evaluate, "own/per_class.csv", "-o", "own"), "own/per_class.csv"),
        ((*evaluate, "labels", "--baseline", "before", "-o", "before", "--overwrite"), "before"),
        ((*evaluate, "labels", "--corrections", "own/per_class.csv", "-o", "own", "--overwrite"), "own/per_class.csv"),
        (("compare", "before", "preds", "-o", "before"), "before"),
        (("compare", "before", "preds", "-o", "before", "--overwrite"), "before"),
        (("compare", "preds", "third", "before", "-o", "before", "--overwrite"), "before"),
        (("duplicates", "preds.parquet", "-o", "preds.parquet", "--overwrite"), "preds.parquet"),
    ):
        result = batchland(*given)
        expected = f"batchland: {output}: is an input and would be replaced; give another name\n"
        assert (result.exit_code, result.stderr) == (2, expected)
    assert Path("own/per_class.csv").read_text() == labels
    assert Path("before/summary.json").read_bytes() == summary
    result = batchland(*evaluate, "labels", "-o", "own")
    assert (result.exit_code, result.stderr.partition(";")[0]) == (
        2,
        "batchland: own: holds a per_class.csv that batchland did not write",
    )


def test_what_a_killed_run_leaves_is_replaced_but_no_files_without_their_page(night: Path) -> None:
    arguments = ("evaluate", "preds.parquet", "-l", "labels", "-o", "report")
    assert batchland(*arguments).exit_code == 0
    page, summary = Path("report/report.html"), Path("report/summary.json")
    summary.unlink()
    assert (batchland(*arguments).exit_code, summary.exists()) == (0, True)
    page.write_text(re.sub('<meta name="batchland-inputs"[^>]*>', "", page.read_text()))
    older = OTHER_FILES.replace("other files", "other files, or by an earlier version of batchland")
    result = batchland(*arguments)
    assert (result.exit_code, result.stderr) == (2, older)
    page.unlink()
    result = batchland(*arguments)
    assert (result.exit_code, result.stderr.partition(";")[0]) == (
        2,
        "batchland: report: holds a confusion.parquet without a report.html that says what it was made from",
    )
    assert batchland(*arguments, "--overwrite").exit_code == 0


def test_each_promise_is_one_line(night: Path) -> None:
    """Of class `Red Tower`, 100 answers of 0.8, all right; of `Green Hill`, 100 of 0.7, half of them right."""
    names = [f"{folder}/{number}.jpg" for folder in FOLDERS for number in range(100)]
    wrong = [f"{FOLDERS[0]}/{number}.jpg" for number in range(100, 150)]
    rows = [Row(name, RED if name.startswith("00") else GREEN) for name in names[:150]]
    write_predictions(Path("many.parquet"), FOLDERS, [*rows, *(Row(name, GREEN) for name in wrong)])
    write_label_folders(Path("many"), [*names[:150], *wrong])
    options = ("many.parquet", "-l", "many", "--promise", "error <= 10%", "--promise", "error <= 1%")
    result = batchland("evaluate", *options, "-o", "report")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if line.startswith("promise ")] == [
        "promise error <= 10%: accept answers of at least 0.8: 50.0% of the labelled images, 0 of 100 wrong; "
        "summary.json has separate thresholds for 1 of 2 classes",
        "promise error <= 1%: 200 images with a label do not show that any threshold keeps this promise; at least "
        "299 confident answers without a mistake are needed",
    ]
    markdown = batchland("evaluate", *options, "-o", "report2", "--markdown").stdout
    assert "\n- promise error \\<= 10%: accept answers of at least 0.8: " in markdown


def test_the_output_folder_is_checked_first(night: Path) -> None:
    result = batchland("evaluate", "no-such.parquet", "-l", "labels", "-o", "/proc/report")
    assert (result.exit_code, result.stdout) == (74, "")
    assert result.stderr.startswith("batchland: /proc/report: cannot be written (")


def test_a_failing_gate_exits_with_4_after_writing_the_report(night: Path) -> None:
    gates = ("--fail-if", "top1 < 0.9", "--fail-if", "class[Green Hill].recall < 70%")
    result = batchland("evaluate", "preds.parquet", "-l", "labels", "-o", "report", *gates)
    assert result.exit_code == 4
    assert result.stderr == "batchland: gate failed: top1 is 0.875 (fails if top1 < 0.9); see report/report.html\n"
    assert (
        "gate FAILED: top1 is 0.875 (fails if top1 < 0.9)\n"
        "gate passed: class[Green Hill].recall is 75% (fails if class[Green Hill].recall < 70%)\n"
    ) in result.stdout
    page = Path("report/report.html").read_text()
    assert "top1 is 0.875 (fails if top1 &lt; 0.9)" in page


def test_a_drop_with_a_baseline(night: Path) -> None:
    assert batchland("evaluate", "before.parquet", "-l", "labels", "-o", "before").exit_code == 0
    arguments = ("evaluate", "preds.parquet", "-l", "labels", "-o", "report", "--baseline", "before", "--fail-if")
    assert batchland(*arguments, "drop(top1) > 0.125").exit_code == 0
    result = batchland(*arguments, "drop(top1) > 0.1")
    assert (result.exit_code, result.stderr) == (
        4,
        "batchland: gate failed: top1 went from 1 to 0.875 (fails if drop(top1) > 0.1); see report/report.html\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fail-if", "top < 1"), "gate 'top < 1': unknown figure 'top' (did you mean 'top5'?)"),
        (("--fail-if", "drop(f1) > 0"), "gate 'drop(f1) > 0': unknown figure 'f1'"),
        (("--fail-if", "drop(top1) > 0"), "a drop needs an earlier report as baseline; give it with --baseline"),
        (("--baseline", "labels"), "labels: holds no summary.json; give a folder that `batchland evaluate` wrote"),
        (("--strip-prefix", "0"), "labels must name images by their path below the scored folder"),
    ],
)
def test_usage_errors_exit_with_2(night: Path, arguments: tuple[str, ...], message: str) -> None:
    result = batchland("evaluate", "preds.parquet", "-l", "labels", "-o", "report", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("report").exists()


def test_markdown_output(night: Path) -> None:
    result = batchland("evaluate", "preds.parquet", "-l", "labels", "-o", "report", "--markdown")
    assert result.stdout.startswith("## toy: evaluation\n\n**No verdict.** No gates were set, ")
    assert "report:" not in result.stdout


def test_options_reach_the_evaluation(night: Path) -> None:
    flags = ("--confidence", "0.9", "--resamples", "500", "--bins", "5", "--seed", "7", "--no-pictures")
    assert batchland("evaluate", "preds.parquet", "-l", "labels", "-o", "report", *flags).exit_code == 0
    summary = read_report("report").summary
    assert {name: summary.options[name] for name in ("confidence", "resamples", "bins", "seed")} == {
        "confidence": 0.9, "resamples": 500, "bins": 5, "seed": 7,
    }  # fmt: skip
    assert len(summary.reliability) == 5


def test_help_has_an_example(night: Path) -> None:
    text = batchland("evaluate", "--help").stdout
    assert "Example: batchland evaluate preds.parquet --labels data/test --out report/" in text

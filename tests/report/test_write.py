"""Files of a report, its findings, and its text for the terminal and as Markdown."""

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_data import Row, random_case, write_arrays, write_label_folders, write_predictions
from jsonschema import Draft202012Validator

from batchland.errors import OutputError, UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.gates import check_gates, parse_gate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.saved import REPORT_FILES, read_report
from batchland.evaluation.schema import CONFUSION, MISTAKES, OUTCOMES, PER_CLASS, EvaluationSummary, Figure
from batchland.models.card import class_names
from batchland.report.evaluation_text import evaluation_markdown, evaluation_terminal_text
from batchland.report.findings import findings
from batchland.report.options import ReportOptions
from batchland.report.verdict import verdict
from batchland.report.write import write_report
from batchland.system.text import count, images, interval, markdown_text, one_line, p_value, percent, points, visible

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
RED, GREEN, BLUE = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


@pytest.fixture
def small(tmp_path: Path) -> Evaluation:
    """Red 9 of 10 (one taken for Blue), Green 4 of 8 (taken for Red), Blue without images; one Green failed."""
    rows = [Row(f"00.Red_Tower/{number}.jpg", BLUE if number == 0 else RED) for number in range(10)]
    rows += [Row(f"01.Green_Hill/{number}.jpg", RED if number < 4 else GREEN) for number in range(8)]
    rows.append(Row("01.Green_Hill/8.jpg", error_code="truncated"))
    predictions = write_predictions(tmp_path / "preds.parquet", FOLDERS, rows)
    labels = write_label_folders(tmp_path / "labels", [row.image for row in rows])
    return evaluate(predictions, labels)


def test_the_files_and_their_schemas(small: Evaluation, tmp_path: Path) -> None:
    files = write_report(small, tmp_path / "report")
    assert sorted(path.name for path in files.folder.iterdir()) == sorted(REPORT_FILES)
    for path, schema in (
        (files.per_class, PER_CLASS),
        (files.confusion, CONFUSION),
        (files.mistakes, MISTAKES),
        (files.outcomes, OUTCOMES),
    ):
        found = pq.read_schema(path)
        assert found.equals(schema)
        assert all(found.field(name).metadata[b"description"] for name in found.names)
    summary = json.loads(files.summary.read_bytes())
    assert EvaluationSummary.model_validate(summary) == small.summary
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "summary.json").read_text())
    Draft202012Validator(schema).validate(summary)
    with files.per_class_csv.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["Red Tower", "Green Hill", "Blue Lake"]
    assert list(rows[0]) == PER_CLASS.names
    assert (rows[0]["support"], rows[0]["accuracy"], rows[2]["accuracy"]) == ("10", "0.9", "")


def test_a_written_report_can_be_read(small: Evaluation, tmp_path: Path) -> None:
    write_report(small, tmp_path / "report")
    report = read_report(tmp_path / "report")
    assert report.summary == small.summary
    assert report.per_class.equals(small.per_class)
    assert report.outcomes.equals(small.outcomes)


def test_a_report_replaces_only_a_report(small: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(small, folder)
    (folder / f".report.html.{'0' * 16}.new").write_text("left by a killed run")
    write_report(small, folder)
    (folder / "thesis.doc").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        write_report(small, folder)
    assert str(caught.value) == (f"{folder}: holds 'thesis.doc', which this command does not write")
    write_report(small, folder, ReportOptions(overwrite=True))
    assert (folder / "thesis.doc").read_text() == "years of work"
    with pytest.raises(UsageError, match=r"is a file; a report is a folder"):
        write_report(small, folder / "thesis.doc")


@pytest.mark.parametrize("name", ["report.html", "summary.json"])
def test_a_report_of_another_program_is_not_replaced(small, name, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / name).write_text("<html>a thesis</html>")
    with pytest.raises(UsageError) as caught:
        write_report(small, folder)
    assert str(caught.value) == f"{folder}: holds a {name} that batchland did not write"
    assert (folder / name).read_text() == "<html>a thesis</html>"
    write_report(small, folder, ReportOptions(overwrite=True))
    write_report(small, folder)


def test_an_interrupted_report_has_no_summary(
    small: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old summary is removed first and the new one written last: no summary is beside tables of another run."""
    folder = tmp_path / "report"
    write_report(small, folder)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"report.html: cannot be written \(No space left on device\)"):
        write_report(small, folder)
    with pytest.raises(UsageError, match=r"holds no summary.json; give a folder that `batchland evaluate` wrote"):
        read_report(folder)


def test_several_threads_can_write_one_report(small: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_report(small, folder), range(8)))
    assert sorted(path.name for path in folder.iterdir()) == sorted(REPORT_FILES)
    assert read_report(folder).summary == small.summary


def test_a_damaged_report_is_rejected(small: Evaluation, tmp_path: Path) -> None:
    files = write_report(small, tmp_path / "report")
    files.outcomes.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="its tables cannot be read"):
        read_report(files.folder)
    files.outcomes.write_bytes(files.per_class.read_bytes())
    with pytest.raises(UsageError, match=r"its outcomes\.parquet has no column image; evaluate again"):
        read_report(files.folder)
    files.summary.write_text('{"schema_version": 7}')
    with pytest.raises(UsageError, match=r"not a summary that this version of batchland can read \(schema_version\)"):
        read_report(files.folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error(small: Evaluation, tmp_path: Path) -> None:
    tmp_path.joinpath("locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_report(small, tmp_path / "locked" / "report")


def test_the_same_evaluation_gives_the_same_page(small: Evaluation, tmp_path: Path) -> None:
    one, other = (write_report(small, tmp_path / name).html.read_bytes() for name in ("a", "b"))
    assert one == other


def test_findings(small: Evaluation) -> None:
    assert [(finding.kind, finding.text, finding.anchor) for finding in findings(small)] == [
        ("warning", "1 image failed and is in no figure; with it as wrong, accuracy is 68.4%.", "failed"),
        ("warning", "1 class without a labelled image: Blue Lake.", "account"),
        ("note", "Most confused: Green Hill predicted as Red Tower, 4 images (50.0% of the class).", "confusion"),
    ]


def test_two_wrong_images_are_not_called_weak(tmp_path: Path) -> None:
    """One of 40 classes has 0 of 2 right, by chance: the others are right 9 times in 10."""
    folders = [f"{index:02}.Class" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"[index] for index in range(40)]
    rows = []
    for index, folder in enumerate(folders):
        for number in range(2 if index == 0 else 20):
            wrong = index == 0 or number < 2
            answer = np.full(40, 0.01)
            answer[(index + wrong) % 40] = 0.61
            rows.append(Row(f"{folder}/{number}.jpg", answer.tolist()))
    labels = write_label_folders(tmp_path / "labels", [row.image for row in rows])
    evaluation = evaluate(write_predictions(tmp_path / "p.parquet", folders, rows), labels)
    assert evaluation.per_class["accuracy"].to_pylist()[:2] == [0.0, 0.9]
    assert not [finding for finding in findings(evaluation) if finding.text.startswith("Below the average")]


def test_suspected_label_errors_are_a_finding(tmp_path: Path) -> None:
    truth, probabilities = random_case(6, 1000, accuracy=0.95, seed=5)
    index = np.arange(1000)
    given = np.where(index % 25 == 0, (truth + 1 + index // 25 % 5) % 6, truth)
    names = [f"{index}.jpg" for index in range(1000)]
    predictions = write_arrays(tmp_path / "p.parquet", class_names(list("abcdef")), names, probabilities)
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{n},{'abcdef'[g]}\n" for n, g in zip(names, given, strict=True)))
    evaluation = evaluate(predictions, labels)
    assert [finding.text for finding in findings(evaluation) if finding.anchor == "labels"] == [
        "32 of 76 mistakes may be wrong labels; about 90% of these are, if wrong labels are spread over the classes."
    ]
    assert verdict(evaluation).actions == (
        "Review the 32 suspected labels: if all are wrong and the model is right, the accuracy is 3.2 points higher.",
        "Add training images of d, e: below the average by more than chance.",
    )


def test_a_useful_threshold_and_a_weak_class_are_findings(tmp_path: Path) -> None:
    truth, probabilities = random_case(6, 3000, accuracy=0.6, seed=2)
    probabilities[truth == 3] = np.roll(probabilities[truth == 3], 1, axis=1)
    names = [f"{index}.jpg" for index in range(3000)]
    predictions = write_arrays(tmp_path / "p.parquet", class_names(list("abcdef")), names, probabilities)
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{n},{'abcdef'[t]}\n" for n, t in zip(names, truth, strict=True)))
    printed = " ".join(finding.text for finding in findings(evaluate(predictions, labels)))
    assert "Below the average by more than chance: d (" in printed
    assert "With a threshold of 0." in printed


def test_the_evaluation_terminal_text(small: Evaluation) -> None:
    results = check_gates([parse_gate("top1 < 0.8"), parse_gate("failed > 3")], small)
    assert evaluation_terminal_text(small, results) == (
        "toy: 18 images scored and labelled, 3 classes\n"
        "verdict: Failed. Fails 1 of 2 gates.\n"
        "  Not better than always answering Red Tower, which would be right for 55.6%, by more than chance "
        "(p = 0.375).\n"
        "  18 images are too few to know the accuracy: its interval is 38 points wide.\n"
        "to do: Do not use these answers before the failed gates are explained: begin with the mistakes below.\n"
        "to do: Repair the 1 failed image (truncated 1), and score again.\n"
        "to do: Label at most 367 images more: then the accuracy is known within 5 points.\n"
        "  top-1 accuracy          72.2%  (49.1 to 87.5%)\n"
        "  top-1, failed as wrong  68.4%  (46.0 to 84.6%)\n"
        "  balanced accuracy       70.0%  (47.2 to 85.9%)\n"
        "  macro F1                72.5%\n"
        "  calibration error        7.8%  (0.0 to 28.4%)\n"
        "note: 1 image failed and is in no figure; with it as wrong, accuracy is 68.4%.\n"
        "note: 1 class without a labelled image: Blue Lake.\n"
        "worst classes  accuracy  images  mostly predicted as\n"
        "  Green Hill      50.0%       8  Red Tower\n"
        "  Red Tower       90.0%      10  Blue Lake\n"
        "gate FAILED: top1 is 0.7222 (fails if top1 < 0.8)\n"
        "gate passed: failed is 1 (fails if failed > 3)\n"
    )


def test_markdown(small: Evaluation) -> None:
    results = check_gates([parse_gate("top1 < 0.8")], small)
    text = evaluation_markdown(small, results)
    assert text == (
        "## toy: evaluation\n\n"
        "**Failed.** Fails the gate. The first choice is right for 13 of 18 images: 72.2% (95% interval 49.1 to "
        "87.5%).\n\n"
        "- Not better than always answering Red Tower, which would be right for 55.6%, by more than chance "
        "(p = 0.375).\n"
        "- 18 images are too few to know the accuracy: its interval is 38 points wide.\n"
        "- To do: Do not use these answers before the failed gates are explained: begin with the mistakes below.\n"
        "- To do: Repair the 1 failed image (truncated 1), and score again.\n"
        "- To do: Label at most 367 images more: then the accuracy is known within 5 points.\n\n"
        "| figure | value | interval |\n"
        "| --- | ---: | --- |\n"
        "| top-1 accuracy | 72.2% | 49.1 to 87.5% |\n"
        "| top-1, failed as wrong | 68.4% | 46.0 to 84.6% |\n"
        "| balanced accuracy | 70.0% | 47.2 to 85.9% |\n"
        "| macro F1 | 72.5% |  |\n"
        "| calibration error | 7.8% | 0.0 to 28.4% |\n\n"
        "- 1 image failed and is in no figure; with it as wrong, accuracy is 68.4%.\n"
        "- 1 class without a labelled image: Blue Lake.\n"
        "- Most confused: Green Hill predicted as Red Tower, 4 images (50.0% of the class).\n\n"
        "| worst classes | accuracy | images | mostly predicted as |\n"
        "| --- | ---: | ---: | --- |\n"
        "| Green Hill | 50.0% | 8 | Red Tower |\n"
        "| Red Tower | 90.0% | 10 | Blue Lake |\n\n"
        "- ❌ failed: top1 is 0.7222 (fails if top1 \\< 0.8)\n\n"
        f"Run `run-1`, model sha256 `abababababab`, labels {small.summary.labels.fingerprint[:12]}.\n"
    )


def test_report_of_a_run_in_which_all_images_failed(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, [Row("00.Red_Tower/1.jpg", error_code="empty")])
    labels = write_label_folders(tmp_path / "labels", ["00.Red_Tower/1.jpg"])
    evaluation = evaluate(predictions, labels)
    html = write_report(evaluation, tmp_path / "report").html.read_text()
    assert "None of 1 image could be scored, so there is no accuracy to report." in html
    assert [name for name in ("confusion", "strangers", "slices", "map") if f'id="{name}"' in html] == []
    assert evaluation_terminal_text(evaluation) == (
        "toy: 0 images scored and labelled, 3 classes\n"
        "verdict: Failed. No image was scored, so there is nothing to judge.\n"
        "to do: Repair the 1 failed image (empty 1), and score again.\n"
        "  top-1, failed as wrong  0.0%  (0.0 to 79.3%)\n"
        "note: 1 image failed and is in no figure.\n"
        "note: 2 classes without a labelled image: Green Hill, Blue Lake.\n"
    )


def test_number_formats() -> None:
    assert [percent(value) for value in (0.8123, 1.0, 0.9999, 0.00001, 0.0, None)] == [
        "81.2%", "100.0%", ">99.9%", "<0.1%", "0.0%", "–",
    ]  # fmt: skip
    assert interval(Figure(value=0.5, low=0.4, high=0.601)) == "40.0 to 60.1%"
    assert interval(Figure(value=0.5)) == interval(None) == ""
    assert (count(12345), images(1), images(12345)) == ("12,345", "1 image", "12,345 images")
    assert [points(value) for value in (0.0123, -0.1, -0.0001)] == ["+1.2 points", "−10.0 points", "0.0 points"]
    assert [p_value(value) for value in (0.0123, 0.0001)] == ["p = 0.012", "p < 0.001"]


def test_control_characters_in_names_are_shown() -> None:
    assert visible("a\x1b[31mb\u202ec\nd") == "a[U+001B][31mb[U+202E]c[U+000A]d"
    assert visible("Hồ Gươm 👩\u200d🔬") == "Hồ Gươm 👩\u200d🔬"
    assert one_line("a very long name of a class", 11) == "a ver…class"
    assert markdown_text("<b>|*x*|[a](b)`#_~\n") == "\\<b>\\|\\*x\\*\\|\\[a\\](b)\\`\\#\\_\\~\\[U+000A\\]"


def test_report_options_do_not_change_figures(tmp_path: Path, small: Evaluation) -> None:
    before = small.summary
    write_report(small, tmp_path / "r", ReportOptions(picture_bytes=0, gallery=0, command="batchland evaluate …"))
    assert read_report(tmp_path / "r").summary == before
    assert EvaluateOptions().model_dump(mode="json") == before.options

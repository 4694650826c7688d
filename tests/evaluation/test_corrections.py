"""Corrections of labels that were saved on the page of a report."""

from pathlib import Path

import pytest
from commands import batchland
from evaluation_data import Row, write_predictions

from batchland.data.corrections import read_corrections
from batchland.errors import UsageError
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.report.evaluation_text import evaluation_terminal_text
from batchland.report.write import write_report
from batchland.system.csv_files import csv_text, plain_text

ROWS = [Row("1.jpg", (0.9, 0.1)), Row("2.jpg", (0.9, 0.1)), Row("3.jpg", (0.9, 0.1))]


def top1(folder: Path, corrections: str) -> float:
    """All three images are labelled `b` and predicted as `a`."""
    predictions = write_predictions(folder / "p.parquet", ("a", "b"), ROWS)
    (folder / "l.csv").write_text("image,label\n1.jpg,b\n2.jpg,b\n3.jpg,b\n")
    (folder / "c.csv").write_text(corrections)
    evaluation = evaluate(predictions, folder / "l.csv", EvaluateOptions(corrections=folder / "c.csv"))
    assert evaluation.summary.figures.top1 is not None
    return evaluation.summary.figures.top1.value


def test_wrong_labels_are_replaced(tmp_path: Path) -> None:
    assert top1(tmp_path, "path,label,decision\n1.jpg,a,wrong\n2.jpg,b,keep\n3.jpg,a,unsure\n") == pytest.approx(1 / 3)
    assert top1(tmp_path, "\ufeffpath;label;decision\r\n1.jpg;a;wrong\r\n2.jpg;a;wrong\r\n") == pytest.approx(2 / 3)


def test_text_of_spreadsheets_is_read_with_and_without_its_apostrophe(tmp_path: Path) -> None:
    rows = "'=1.jpg,'=a,wrong\n@2.jpg,=a,wrong\n''+3.jpg,a's,wrong\n'4.jpg,'5,keep\n"
    (tmp_path / "c.csv").write_text("path,label,decision\n" + rows)
    found = read_corrections(tmp_path / "c.csv")
    assert found.labels == {"=1.jpg": "=a", "@2.jpg": "=a", "'+3.jpg": "a's"}
    assert found.kept == {"'4.jpg": "'5"}
    for name in ("=1", "'=1", "''@", "'1", "-", "a", ""):
        assert plain_text(csv_text(name)) == name


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("2.jpg", "1.jpg")])
def test_the_number_of_changed_labels_of_scored_images_is_shown(tmp_path: Path, names: tuple[str, str]) -> None:
    """4.jpg failed, 5.jpg has no prediction, 2.jpg has the same class as before."""
    rows = [*(Row(f"x/{name}", (0.9, 0.1)) for name in (*names, "3.jpg")), Row("x/4.jpg", error_code="truncated")]
    predictions = write_predictions(tmp_path / "p.parquet", ("00.a", "01.b"), rows)
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text(
        "image,label\n1.jpg,01.b\n5.jpg,01.b\n2.jpg,01.b\n3.jpg,00.a\n4.jpg,00.a\n1.jpg,01.b\n"  # 1.jpg is twice
    )
    changes = "1.jpg,a,wrong\n2.jpg,b,wrong\n3.jpg,a,keep\n4.jpg,01.b,wrong\n5.jpg,a,wrong\n"
    corrections.write_text(f"path,label,decision\n{changes}")
    before = evaluate(predictions, labels, EvaluateOptions(strip_prefix="x/"))
    after = evaluate(predictions, labels, EvaluateOptions(strip_prefix="x/", corrections=corrections))
    assert (before.summary.account.corrected, after.summary.account.corrected) == (0, 1)
    note = "The corrections in c.csv change 1 of 3 reviewed labels."
    assert f"note: {note}\n" in evaluation_terminal_text(after)
    page = write_report(after, tmp_path / "report").html.read_text()
    assert note in page
    assert '<th scope="row">Labels changed by corrections</th><td class="number">1</td>' in page
    assert "corrections" not in evaluation_terminal_text(before)


def test_reviewed_labels_are_no_longer_suspected(tmp_path: Path) -> None:
    """Of five wrong labels, one is kept, one unsure and one corrected, to the class that it had before in b.csv."""
    rows = [Row(f"{number}.jpg", (0.98, 0.01, 0.01)) for number in range(100)]
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b", "c"), rows)
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text("image,label\n" + "".join(f"{n}.jpg,{'c' if n < 5 else 'a'}\n" for n in range(100)))
    before = evaluate(predictions, labels)
    suspected = before.mistakes.filter(before.mistakes["suspected_label_error"])["image"].to_pylist()
    assert suspected == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    corrections.write_text("path,label,decision\n0.jpg,c,keep\n1.jpg,c,unsure\n2.jpg,a,wrong\n7.jpg,a,keep\n")
    after = evaluate(predictions, labels, EvaluateOptions(corrections=corrections))
    account, errors = after.summary.account, after.summary.label_errors
    assert errors is not None
    assert (account.reviewed, account.corrected, errors.mistakes, errors.suspected) == (3, 1, 4, 3)
    names = ("image", "suspected_label_error", "label_error_probability")
    found = [tuple(row[name] for name in names) for row in after.mistakes.to_pylist()]
    assert [(image, suspected) for image, suspected, _ in found] == [
        ("0.jpg", False), ("1.jpg", True), ("3.jpg", True), ("4.jpg", True),
    ]  # fmt: skip
    assert [probability > 0 for _, _, probability in found] == [False, True, True, True]


@pytest.mark.parametrize(
    ("predicted", "labelled", "strip_prefix"),
    [
        ("shard-{}.tar/{}.jpg", "{1}.jpg", "shard-*.tar/"),
        ("caf\u00e9 {}/{}.jpg", "cafe\u0301 {}/{}.jpg", ""),
        ("x/cafe\u0301 {}/{}.jpg", "caf\u00e9 {}/{}.jpg", "x/"),
    ],
)
@pytest.mark.parametrize("of", ["predictions", "labels"])
def test_paths_are_those_of_predictions_or_of_labels(
    tmp_path: Path, predicted: str, labelled: str, strip_prefix: str, of: str
) -> None:
    rows = [Row(predicted.format(0, number), (0.98, 0.01, 0.01)) for number in range(100)]
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b", "c"), rows)
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text(
        "image,label\n" + "".join(f"{labelled.format(0, n)},{'c' if n < 5 else 'a'}\n" for n in range(100))
    )
    path = predicted if of == "predictions" else labelled
    corrections.write_text(f"path,label,decision\n{path.format(0, 0)},a,wrong\n{path.format(0, 1)},c,keep\n")
    summary = evaluate(predictions, labels, EvaluateOptions(corrections=corrections, strip_prefix=strip_prefix)).summary
    assert (summary.account.reviewed, summary.account.corrected) == (2, 1)
    assert summary.label_errors is not None
    assert (summary.label_errors.mistakes, summary.label_errors.suspected) == (4, 3)


def test_images_with_names_of_two_unicode_forms_have_their_own_corrections(tmp_path: Path) -> None:
    names = ("caf\u00e9.jpg", "cafe\u0301.jpg")
    predictions = write_predictions(
        tmp_path / "p.parquet", ("a", "b"), [Row(name, (0.9, 0.1)) for name in sorted(names)]
    )
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text(f"image,label\n{names[0]},b\n{names[1]},b\n")
    corrections.write_text(f"path,label,decision\n{names[0]},a,wrong\n{names[1]},b,wrong\n")
    account = evaluate(predictions, labels, EvaluateOptions(corrections=corrections)).summary.account
    assert (account.reviewed, account.corrected) == (2, 1)


def test_corrected_images_without_a_label_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert top1(tmp_path, "path,label,decision\n1.jpg,a,wrong\n8.jpg,a,wrong\n9.jpg,b,keep\n") == pytest.approx(1 / 3)
    assert caplog.messages == [
        f"{tmp_path / 'c.csv'}: 1 corrected image without a label in {tmp_path / 'l.csv'}: 8.jpg"
    ]


@pytest.mark.parametrize("ignore_unknown", [False, True])
def test_labels_that_changed_after_the_review_are_not_reviewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ignore_unknown: bool
) -> None:
    """1.jpg is kept under its folder's name, 2.jpg without a name; 3.jpg was `a` when it was kept."""
    predictions = write_predictions(tmp_path / "p.parquet", ("00.a", "01.b"), ROWS)
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text("image,label\n1.jpg,b\n2.jpg,b\n3.jpg,b\n")
    corrections.write_text("path,label,decision\n1.jpg,01.b,keep\n2.jpg,,keep\n3.jpg,a,keep\n")
    options = EvaluateOptions(corrections=corrections, ignore_unknown_classes=ignore_unknown)
    account = evaluate(predictions, labels, options).summary.account
    assert (account.reviewed, account.corrected) == (2, 0)
    assert caplog.messages == [f"{corrections}: 1 image to keep with another label in {labels}: 3.jpg"]


def test_repeated_corrections_count_once(tmp_path: Path) -> None:
    assert top1(tmp_path, "path,label,decision\n1.jpg,a,wrong\n1.jpg,a,wrong\n2.jpg,,unsure\n") == pytest.approx(1 / 3)


def test_the_command_names_the_row_without_a_label(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b"), ROWS)
    labels, corrections = tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text("image,label\n1.jpg,b\n")
    corrections.write_text("path,label,decision\n1.jpg,,wrong\n")
    result = batchland("evaluate", predictions, "-l", labels, "-o", tmp_path / "r", "--corrections", corrections)
    assert (result.exit_code, result.stdout, result.stderr) == (
        2,
        "",
        f"batchland: {corrections}: row 2: '1.jpg' has no label; a row with the decision wrong needs the right label\n",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,decision\n9.jpg,a,wrong\n", "none of its images has a label in "),
        (
            "path,label,decision\n2.jpg,a,wrong\n1.jpg,a,WRONG\n",
            "row 3: has the decision 'WRONG'; decisions are ",
        ),
        ("path,label,decision\n2.jpg,a,wrong\n1.jpg,,wrong\n", "c.csv: row 3: '1.jpg' has no label; a row with the "),
        ("path,label,decision\n1.jpg,  ,wrong\n", "c.csv: row 2: '1.jpg' has no label; a row with the "),
        ("path,label,decision\n,a,wrong\n", "c.csv: row 2: has no path; a row with the "),
        ("path,label,decision\n1.jpg,a,wrong\n1.jpg,b,wrong\n", "row 3: '1.jpg' has the labels 'a' and 'b'; keep one"),
        ("path,label,decision\n1.jpg,b,keep\n1.jpg,a,wrong\n", "row 3: '1.jpg' has the labels 'b' and 'a'; keep one"),
        (
            "path,label,decision\n1.jpg,a,keep\n1.jpg,a,wrong\n",
            "'1.jpg' has the decisions keep and wrong; keep one row",
        ),
        (
            "image,label\n1.jpg,a\n",
            "with the columns path, label, decision; it has no column 'path'",
        ),
        ("path,label,decision\n1.jpg,c,wrong\n", "c.csv: 1 class name that the model does not have: 'c'; the model's"),
        ("path,path,label,decision\n1.jpg,1.jpg,a,wrong\n", "it has 2 columns 'path'"),
    ],
)
def test_unusable_corrections_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        top1(tmp_path, text)

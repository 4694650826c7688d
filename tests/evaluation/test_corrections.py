"""Corrections of labels that were saved on the page of a report."""

from pathlib import Path

import pytest
from commands import batchland
from evaluation_data import Row, write_predictions

from batchland.errors import UsageError
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.options import EvaluateOptions

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


def test_corrected_images_without_a_label_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert top1(tmp_path, "path,label,decision\n1.jpg,a,wrong\n8.jpg,a,wrong\n9.jpg,b,keep\n") == pytest.approx(1 / 3)
    assert caplog.messages == [
        f"{tmp_path / 'c.csv'}: 1 corrected image without a label in {tmp_path / 'l.csv'}: 8.jpg"
    ]


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
        ("path,label,decision\n1.jpg,a,bad\n", "has the decision 'bad'; decisions are keep, wrong and unsure"),
        ("path,label,decision\n2.jpg,a,wrong\n1.jpg,,wrong\n", "c.csv: row 3: '1.jpg' has no label; a row with the "),
        ("path,label,decision\n1.jpg,  ,wrong\n", "c.csv: row 2: '1.jpg' has no label; a row with the "),
        ("path,label,decision\n,a,wrong\n", "c.csv: row 2: has no path; a row with the "),
        ("path,label,decision\n1.jpg,a,wrong\n1.jpg,b,wrong\n", "row 3: '1.jpg' has the labels 'a' and 'b'; keep one"),
        ("path,label,decision\n1.jpg,b,keep\n1.jpg,a,wrong\n", "row 3: '1.jpg' has the labels 'b' and 'a'; keep one"),
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

"""The accuracy from a plan with labels, and plans that are rejected."""

from pathlib import Path

import numpy as np
import pytest
from commands import batchland
from evaluation_data import write_arrays

from batchland.errors import UsageError
from batchland.evaluation.labelled_plan import labelled_accuracy, read_plan
from batchland.models.card import class_names

HEADER = "image,label,predicted,probability,stratum,weight\n"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """0.jpg to 7.jpg are predicted as Red Tower, 8.jpg and 9.jpg as Blue Lake."""
    answers = np.array([[0.9, 0.1]] * 8 + [[0.4, 0.6]] * 2, np.float32)
    classes = class_names(["00.Red_Tower", "02.Blue_Lake"])
    return write_arrays(tmp_path / "p.parquet", classes, [f"{number}.jpg" for number in range(10)], answers)


def plan(folder: Path, *rows: str) -> Path:
    path = folder / "plan.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize("lake", ["02.Blue_Lake", "Blue Lake", "7.Blue_Lake", " Blue Lake "])
def test_classes_are_matched_as_in_evaluate(tmp_path: Path, predictions: Path, lake: str) -> None:
    """Strata of 2 and 8 images: all right, and half of them right."""
    filled = plan(
        tmp_path, f"8.jpg,{lake},Blue Lake,0.6,0,2", "1.jpg,Red Tower,Red Tower,0.9,1,2.67",
        f"2.jpg,{lake},Red Tower,0.9,1,2.67", "3.jpg,,Red Tower,0.9,1,2.67",
    )  # fmt: skip
    found = labelled_accuracy(predictions, filled)
    assert found.accuracy.value == pytest.approx((2 + 3 * 2.67 / 2) / (2 + 3 * 2.67))
    assert (found.rows, found.unlabelled, found.unplanned) == (4, 1, 0)
    result = batchland("label-plan", predictions, "--labelled", filled)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("accuracy 60.0% (95% interval ")
    assert result.stdout.splitlines()[1:] == ["note: 1 of 4 rows of the plan has no label"]


def test_an_image_of_none_of_the_classes_counts_as_wrong(tmp_path: Path, predictions: Path) -> None:
    filled = plan(tmp_path, "8.jpg,none,Blue Lake,0.6,0,2", "1.jpg,Red Tower,Red Tower,0.9,1,8")
    assert labelled_accuracy(predictions, filled).accuracy.value == pytest.approx(0.8)
    result = batchland("label-plan", predictions, "--labelled", filled)
    assert result.stdout.splitlines()[1:] == [
        "note: labels of none of the model's classes, which count as wrong: 'none'"
    ]


def test_text_with_the_apostrophe_of_csv_files_is_read(tmp_path: Path) -> None:
    rows = list(read_plan(plan(tmp_path, "'=8.jpg,'@a,'=b,0.6,0,2", "'9.jpg,@a,-b,0.6,0,2")))
    assert [(row.image, row.label, row.predicted) for row in rows] == [("=8.jpg", "@a", "=b"), ("'9.jpg", "@a", "-b")]


NUMBERS = "keep the numbers that the plan was written with"
OTHER = "give the predictions that the plan was made from"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.jpg,Red Tower,Red Tower,0.9,1,abc", f"row 3: has the weight 'abc'; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,1,nan", f"row 3: has the weight 'nan'; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,1,inf", f"row 3: has the weight 'inf'; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,1,-2", f"row 3: has the weight '-2'; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,1,", f"row 3: has the weight ''; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,,2", f"row 3: has the stratum ''; {NUMBERS}"),
        ("1.jpg,Red Tower,Red Tower,0.9,1.5,2", f"row 3: has the stratum '1.5'; {NUMBERS}"),
        ("0.jpg,Red Tower,Red Tower,0.9,1,2", "row 3: '0.jpg' is in row 2 already; keep one"),
        ("x.jpg,Red Tower,Red Tower,0.9,1,2", f"row 3: 'x.jpg' is not among the scored images of {{preds}}; {OTHER}"),
        ("8.jpg,Red Tower,Red Tower,0.9,1,2",
         f"row 3: '8.jpg' is predicted as 'Blue Lake' in {{preds}}, and as 'Red Tower' in the plan; {OTHER}"),
        ("1.jpg,Blue Laek,Red Tower,0.9,1,2",
         "row 3: 1 class name that the model does not have: 'Blue Laek' (did you mean 'Blue Lake'?); the model's "
         "classes are 'Red Tower', 'Blue Lake'; correct the names"),
    ],
)  # fmt: skip
def test_faulty_rows_are_named(tmp_path: Path, predictions: Path, row: str, message: str) -> None:
    path = plan(tmp_path, "0.jpg,Red Tower,Red Tower,0.9,1,2", row)
    result = batchland("label-plan", predictions, "--labelled", path)
    assert (result.exit_code, result.stdout, result.stderr) == (
        2,
        "",
        f"batchland: {path}: {message.format(preds=predictions)}\n",
    )


def test_a_stratum_without_labels_is_an_error(tmp_path: Path, predictions: Path) -> None:
    half = plan(tmp_path, "8.jpg,Blue Lake,Blue Lake,0.6,0,2", "1.jpg,,Red Tower,0.9,1,4", "2.jpg,,Red Tower,0.9,1,4")
    with pytest.raises(UsageError) as caught:
        labelled_accuracy(predictions, half)
    assert str(caught.value) == f"{half}: no row of stratum 1 has a label, and they represent 8 images; label some"


def test_removed_rows_are_noticed(tmp_path: Path, predictions: Path) -> None:
    filled = plan(tmp_path, "8.jpg,Blue Lake,Blue Lake,0.6,0,2", "1.jpg,Red Tower,Red Tower,0.9,1,4")
    result = batchland("label-plan", predictions, "--labelled", filled)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "note: the rows of the plan do not represent 4 images: rows are missing, or weights were changed"
    ]


def test_weights_of_more_images_than_there_are_are_an_error(tmp_path: Path, predictions: Path) -> None:
    filled = plan(tmp_path, "8.jpg,Blue Lake,Blue Lake,0.6,0,2", "1.jpg,Red Tower,Red Tower,0.9,1,16")
    with pytest.raises(UsageError) as caught:
        labelled_accuracy(predictions, filled)
    assert str(caught.value) == (
        f"{filled}: its rows represent 18 images, more than the 10 scored ones of {predictions}; keep the weights that "
        "the plan was written with"
    )


@pytest.mark.parametrize(("right", "missed"), [(98, False), (80, True)])
def test_an_interval_wider_than_expected_is_a_note(tmp_path: Path, right: int, missed: bool) -> None:
    """Of 100 labelled images of a model that is always 98% confident."""
    classes = class_names(["00.Red_Tower", "02.Blue_Lake"])
    answers = np.tile(np.array([[0.98, 0.02]], np.float32), (400, 1))
    path = write_arrays(tmp_path / "p.parquet", classes, [f"{n}.jpg" for n in range(400)], answers)
    rows = [f"{n}.jpg,{'Red Tower' if n < right else 'Blue Lake'},Red Tower,0.98,0,4" for n in range(100)]
    result = batchland("label-plan", path, "--labelled", plan(tmp_path, *rows))
    note = (
        "note: the interval is 7.8 points to each side; a plan expects 3.2 if the probabilities are right; label more "
        "images to narrow it"
    )
    assert (note in result.stdout.splitlines()) == missed, result.stdout


def test_a_plan_without_labels_is_rejected(tmp_path: Path, predictions: Path) -> None:
    with pytest.raises(UsageError, match="no row has a label; fill in the column `label`"):
        labelled_accuracy(predictions, plan(tmp_path, "0.jpg, ,Red Tower,0.9,1,2"))
    (tmp_path / "other.csv").write_text("image,label\n0.jpg,Red Tower\n")
    with pytest.raises(UsageError, match=r"other.csv: is not a plan of `batchland label-plan`, with the columns "):
        labelled_accuracy(predictions, tmp_path / "other.csv")

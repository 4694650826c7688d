"""Figures compared with scikit-learn on generated outcomes, and tables compared with hand-computed values."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import (
    Row,
    add_log_probabilities,
    random_case,
    write_arrays,
    write_label_folders,
    write_predictions,
)
from sklearn import metrics as sk

from batchland.evaluation import matching, mistakes, sorting
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.intervals import wilson
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.schema import Decisions, Figure
from batchland.models.card import class_names
from batchland.report.evaluation_text import evaluation_markdown, evaluation_terminal_text
from batchland.report.gallery import galleries
from batchland.report.options import ReportOptions

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake", "03.Grey_Sea")
# Two Red right; one Green right, one taken for Red, surely; one Blue right; Grey has no image and is never predicted.
ROWS = (
    Row("00.Red_Tower/a.jpg", (0.7, 0.2, 0.1, 0.0)),
    Row("00.Red_Tower/b.jpg", (0.5, 0.25, 0.15, 0.1)),
    Row("01.Green_Hill/a.jpg", (0.125, 0.75, 0.125, 0.0)),
    Row("01.Green_Hill/b.jpg", (0.9, 0.0625, 0.0375, 0.0)),
    Row("01.Green_Hill/c.jpg", error_code="truncated"),
    Row("02.Blue_Lake/a.jpg", (0.25, 0.25, 0.5, 0.0)),
)


def write_csv(path: Path, names: list[str], labels: list[str]) -> Path:
    path.write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True)))
    return path


def evaluate_rows(tmp_path: Path, rows: tuple[Row, ...] = ROWS, **options: float) -> Evaluation:
    predictions = write_predictions(tmp_path / "preds.parquet", FOLDERS, rows)
    labels = write_csv(
        tmp_path / "labels.csv", [row.image for row in rows], [row.image.partition("/")[0] for row in rows]
    )
    return evaluate(predictions, labels, EvaluateOptions(**options))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, Evaluation]:
    """2,000 images of 9 classes, every probability kept; class 8 has no image."""
    folder = tmp_path_factory.mktemp("case")
    truth, probabilities = random_case(9, 2000, accuracy=0.5, seed=3)
    truth[truth == 8] = 0
    probabilities = probabilities.astype(np.float32)
    folders = [f"class {index}" for index in range(9)]
    names = [f"{index:05d}.jpg" for index in range(len(truth))]
    predictions = write_arrays(folder / "preds.parquet", class_names(folders), names, probabilities, top_k=9)
    labels = write_csv(folder / "labels.csv", names, [folders[index] for index in truth])
    return truth, probabilities, evaluate(predictions, labels)


def test_figures_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, Evaluation]) -> None:
    truth, probabilities, evaluation = case
    predicted = probabilities.argmax(axis=1)
    present, every = np.arange(8), np.arange(9)
    found = {name: figure.value for name, figure in evaluation.summary.figures if figure is not None}
    expected = {
        "top1": sk.accuracy_score(truth, predicted),
        "top3": sk.top_k_accuracy_score(truth, probabilities, k=3, labels=every),
        "top5": sk.top_k_accuracy_score(truth, probabilities, k=5, labels=every),
        "top1_with_failures": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.recall_score(truth, predicted, labels=present, average="macro"),
        "log_loss": sk.log_loss(truth, probabilities / probabilities.sum(axis=1, keepdims=True), labels=every),
        "brier": float(((probabilities - np.eye(9)[truth]) ** 2).sum(axis=1).mean()),
        "brier_top1": sk.brier_score_loss(predicted == truth, probabilities.max(axis=1)),
        "mean_confidence": float(probabilities.max(axis=1).mean()),
        "failed_rate": 0.0,
    }
    one_hot, scores = np.eye(9)[truth][:, :8], probabilities[:, :8]
    expected["macro_average_precision"] = sk.average_precision_score(one_hot, scores)
    expected["macro_auroc"] = sk.roc_auc_score(one_hot, scores)
    for kind, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        for average in ("macro", "weighted"):
            expected[f"{average}_{kind}"] = score(truth, predicted, labels=present, average=average, zero_division=0)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert set(found) == {*expected, "ece", "mce", "ece_adaptive", "ece_classwise"}  # see test_calibration


def test_classes_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, Evaluation]) -> None:
    truth, probabilities, evaluation = case
    predicted = probabilities.argmax(axis=1)
    report = sk.classification_report(truth, predicted, labels=np.arange(9), output_dict=True, zero_division=0)
    for row in evaluation.per_class.to_pylist():
        theirs = report[str(row["class_index"])]
        ours = [row["support"], row["accuracy"] or 0, row["precision"] or 0, row["f1"] or 0]
        assert ours == pytest.approx([theirs[name] for name in ("support", "recall", "precision", "f1-score")])
    matrix = np.zeros((9, 9), int)
    for row in evaluation.confusion.to_pylist():
        matrix[row["true_index"], row["predicted_index"]] = row["images"]
    assert (matrix == sk.confusion_matrix(truth, predicted, labels=np.arange(9))).all()


def test_an_interval_holds_its_figure_and_narrows_with_less_confidence(tmp_path: Path) -> None:
    wide, narrow = (evaluate_rows(tmp_path, confidence=confidence).summary.figures for confidence in (0.99, 0.8))
    for name in ("top1", "balanced_accuracy", "ece", "ece_adaptive", "ece_classwise"):
        outer, inner = getattr(wide, name), getattr(narrow, name)
        assert 0 <= outer.low <= inner.low <= outer.value == inner.value <= inner.high <= outer.high <= 1


def test_per_class_table(tmp_path: Path) -> None:
    rows = evaluate_rows(tmp_path).per_class.to_pylist()
    bounds = ("accuracy_low", "accuracy_high", "precision_low", "precision_high")
    areas = [f"{name}{end}" for name in ("average_precision", "auroc") for end in ("", "_low", "_high")]  # test_curves
    intervals = [[row.pop(name) for name in bounds] for row in rows]
    assert [row.pop(name) for row in rows[3:] for name in areas] == [None] * 6
    assert [row.pop(name) is None for row in rows[:3] for name in areas] == [False] * 18
    assert rows == [
        {
            "class_index": 0, "folder": "00.Red_Tower", "label": "Red Tower", "support": 2, "correct": 2,
            "accuracy": 1.0, "predicted": 3, "precision": pytest.approx(2 / 3), "f1": 0.8,
            "mean_confidence": pytest.approx(0.6), "most_confused_with": None, "most_confused_images": 0, "failed": 0,
        },
        {
            "class_index": 1, "folder": "01.Green_Hill", "label": "Green Hill", "support": 2, "correct": 1,
            "accuracy": 0.5, "predicted": 1, "precision": 1.0, "f1": pytest.approx(2 / 3),
            "mean_confidence": pytest.approx(0.825), "most_confused_with": "Red Tower", "most_confused_images": 1,
            "failed": 1,
        },
        {
            "class_index": 2, "folder": "02.Blue_Lake", "label": "Blue Lake", "support": 1, "correct": 1,
            "accuracy": 1.0, "predicted": 1, "precision": 1.0, "f1": 1.0, "mean_confidence": 0.5,
            "most_confused_with": None, "most_confused_images": 0, "failed": 0,
        },
        {
            "class_index": 3, "folder": "03.Grey_Sea", "label": "Grey Sea", "support": 0, "correct": 0,
            "accuracy": None, "predicted": 0, "precision": None, "f1": None, "mean_confidence": None,
            "most_confused_with": None, "most_confused_images": 0, "failed": 0,
        },
    ]  # fmt: skip
    assert intervals[0] == pytest.approx([0.3424, 1.0, 0.2077, 0.9385], abs=1e-4)
    assert intervals[3] == [None] * 4


def test_confusion_table(tmp_path: Path) -> None:
    evaluation = evaluate_rows(tmp_path)
    assert [tuple(row.values()) for row in evaluation.confusion.to_pylist()] == [
        (0, "Red Tower", 0, "Red Tower", 2, 1.0),
        (1, "Green Hill", 0, "Red Tower", 1, 0.5),
        (1, "Green Hill", 1, "Green Hill", 1, 0.5),
        (2, "Blue Lake", 2, "Blue Lake", 1, 1.0),
    ]
    assert [pair.model_dump() for pair in evaluation.summary.most_confused] == [
        {"true_label": "Green Hill", "predicted_label": "Red Tower", "images": 1, "share": 0.5}
    ]


def test_outcomes_table(tmp_path: Path) -> None:
    table = evaluate_rows(tmp_path).outcomes
    names = ("image", "status", "error_code", "true_label", "predicted_label", "correct", "true_rank")
    assert [tuple(row.values()) for row in table.select(names).to_pylist()] == [
        ("00.Red_Tower/a.jpg", "ok", None, "Red Tower", "Red Tower", True, 1),
        ("00.Red_Tower/b.jpg", "ok", None, "Red Tower", "Red Tower", True, 1),
        ("01.Green_Hill/a.jpg", "ok", None, "Green Hill", "Green Hill", True, 1),
        ("01.Green_Hill/b.jpg", "ok", None, "Green Hill", "Red Tower", False, 2),
        ("01.Green_Hill/c.jpg", "failed", "truncated", "Green Hill", None, None, None),
        ("02.Blue_Lake/a.jpg", "ok", None, "Blue Lake", "Blue Lake", True, 1),
    ]
    assert table["true_probability"].to_pylist() == pytest.approx([0.7, 0.5, 0.75, 0.0625, None, 0.5])


def test_mistakes_table(tmp_path: Path) -> None:
    assert evaluate_rows(tmp_path).mistakes.to_pylist() == [
        {
            "image": "01.Green_Hill/b.jpg", "true_index": 1, "true_label": "Green Hill", "predicted_index": 0,
            "predicted_label": "Red Tower", "probability": pytest.approx(0.9), "margin": pytest.approx(0.8375),
            "true_rank": 2, "true_probability": 0.0625, "width": 640, "height": 480, "file_size": 50_000,
            "decision": None, "sha256": None,
            "suspicion": pytest.approx(0.8375), "suspected_label_error": False, "label_error_probability": 0.0,
        }
    ]  # fmt: skip


def test_failed_images_count_only_in_the_failure_figures(tmp_path: Path) -> None:
    figures = evaluate_rows(tmp_path).summary.figures
    assert figures.top1 is not None
    assert figures.top1.value == 4 / 5
    assert figures.top1_with_failures is not None
    assert figures.top1_with_failures.value == 4 / 6
    assert figures.failed_rate is not None
    assert figures.failed_rate.value == 1 / 6


def test_figures_that_need_more_choices_are_none(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, ROWS, top_k=2)
    names = [row.image for row in ROWS]
    labels = write_csv(tmp_path / "l.csv", names, [name.partition("/")[0] for name in names])
    figures = evaluate(predictions, labels).summary.figures
    assert [name for name, figure in figures if figure is None] == ["top3", "top5", "log_loss", "brier"]


def test_a_run_without_a_scored_image(tmp_path: Path) -> None:
    rows = (Row("00.Red_Tower/a.jpg", error_code="empty"), Row("01.Green_Hill/a.jpg", error_code="truncated"))
    evaluation = evaluate_rows(tmp_path, rows)
    known = {name: figure.value for name, figure in evaluation.summary.figures if figure is not None}
    assert known == {"top1_with_failures": 0.0, "failed_rate": 1.0}
    assert evaluation.confusion.num_rows == evaluation.mistakes.num_rows == 0
    assert evaluation.per_class["failed"].to_pylist() == [1, 1, 0, 0]
    assert evaluation.summary.coverage == ()


def test_intervals_of_three_images_without_a_mistake(tmp_path: Path) -> None:
    figures = evaluate_rows(tmp_path, ROWS[:3]).summary.figures
    assert figures.macro_f1 == Figure(value=1.0)
    assert figures.top1 is not None
    assert (figures.top1.low, figures.top1.high) == (pytest.approx(0.4385, abs=1e-4), 1)
    effective = 2**2 / (1 / 2 + 1 / 1)  # two images of one class, one of another
    assert figures.balanced_accuracy is not None
    assert figures.balanced_accuracy.low == pytest.approx(effective / (effective + 1.959964**2), abs=1e-6)


def test_a_certain_mistake_has_a_finite_log_loss(tmp_path: Path) -> None:
    rows = (Row("00.Red_Tower/a.jpg", (0.0, 1.0, 0.0, 0.0)),)
    figures = evaluate_rows(tmp_path, rows).summary.figures
    assert figures.log_loss is not None
    assert figures.log_loss.value == pytest.approx(-math.log(np.finfo(np.float32).eps))
    assert figures.brier is not None
    assert figures.brier.value == 2.0


def test_nothing_depends_on_the_order_of_the_rows(tmp_path: Path) -> None:
    one, other = evaluate_rows(tmp_path / "a"), evaluate_rows(tmp_path / "b", ROWS[::-1])
    assert one.summary.figures == other.summary.figures
    assert one.per_class.equals(other.per_class)
    assert one.confusion.equals(other.confusion)
    assert one.mistakes.equals(other.mistakes)
    assert one.summary.labels.fingerprint == other.summary.labels.fingerprint


def test_decisions_are_counted(tmp_path: Path) -> None:
    rows = [Row(f"a/{n}.jpg", (0.9, 0.1) if n % 4 else (0.2, 0.8)) for n in range(20)] + [
        Row("a/x.jpg", error_code="empty")
    ]
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b"), rows)
    labels = write_label_folders(tmp_path / "l", [row.image for row in rows])
    assert evaluate(predictions, labels).summary.decisions is None
    table = pq.read_table(predictions)
    decisions = ["accept" if n < 10 else "ask" for n in range(20)] + [None]
    pq.write_table(table.append_column("decision", pa.array(decisions)), predictions)
    evaluation = evaluate(predictions, labels)
    low, high = wilson(3, 10, 0.95)
    assert evaluation.summary.decisions == Decisions(
        accepted=10, wrong=3, asked=10, error=Figure(value=0.3, low=float(low), high=float(high))
    )
    assert evaluation.outcomes["decision"].to_pylist() == decisions
    line = "decisions: 10 of 20 answers accepted, 3 of them wrong (30.0%, interval 10.8 to 60.3%); 10 to ask about"
    assert line in evaluation_terminal_text(evaluation).splitlines()
    assert f"- {line}" in evaluation_markdown(evaluation).splitlines()


def test_log_loss_and_brier_of_all_probabilities_and_their_bounds_without(tmp_path: Path) -> None:
    """Of 8 classes, 3 choices are kept; `log_probabilities` has all of them."""
    truth, probabilities = random_case(8, 300, seed=4)
    folders = [f"{number}.c{number}" for number in range(8)]
    names = [f"{folders[index]}/{number}.jpg" for number, index in enumerate(truth)]
    labels = write_label_folders(tmp_path / "l", names)
    path = write_arrays(tmp_path / "p.parquet", class_names(folders), names, probabilities, top_k=3)
    known = np.clip(probabilities.astype(np.float64), np.finfo(np.float32).eps, 1)
    log_loss = -np.log(known[np.arange(300), truth]).mean()
    brier = ((probabilities - np.eye(8)[truth]) ** 2).sum(axis=1).mean()
    bounded = evaluate(path, labels).summary
    assert (bounded.figures.log_loss, bounded.figures.brier) == (None, None)
    for name, value in (("log_loss", log_loss), ("brier", brier)):
        assert bounded.bounds[name].low <= value <= bounded.bounds[name].high
    assert bounded.bounds["brier"].high - bounded.bounds["brier"].low < 0.05
    add_log_probabilities(path, known)
    exact = evaluate(path, labels).summary
    assert exact.bounds == {}
    assert exact.figures.log_loss is not None
    assert exact.figures.brier is not None
    assert exact.figures.log_loss.value == pytest.approx(log_loss, rel=2e-3)  # half floats
    assert exact.figures.brier.value == pytest.approx(brier, rel=2e-3)


@pytest.mark.parametrize("most_labels", [2**20, 20])
def test_predictions_in_any_order_give_the_same_report(
    most_labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions in the order of names are matched in ranges of 20 names; those with more labels are sorted."""
    monkeypatch.setattr(matching, "_RANGE_ROWS", 20)
    monkeypatch.setattr(matching, "_MOST_LABELS", most_labels)
    monkeypatch.setattr(sorting, "_RUN_ROWS", 40)
    rng = np.random.default_rng(0)
    names = [f"{FOLDERS[number % 3]}/{number % 97:02d}.jpg" for number in range(120)]
    rows = [Row(name, rng.dirichlet(np.ones(4))) for name in dict.fromkeys(names)]
    labels = write_csv(tmp_path / "l.csv", names[10:], [name.partition("/")[0] for name in names[10:]])
    found = []
    for order in (sorted(rows, key=lambda row: row.image), [rows[at] for at in rng.permutation(len(rows))]):
        predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, order)
        pq.write_table(pq.read_table(predictions), predictions, row_group_size=10)
        evaluation = evaluate(predictions, labels)
        outcomes = evaluation.outcomes.sort_by("image").to_pylist()
        account = evaluation.summary.account.model_dump(exclude={"unlabelled_examples", "unpredicted_examples"})
        found.append((account, evaluation.summary.labels.fingerprint, evaluation.summary.figures.top1, outcomes))
    assert found[0] == found[1]
    assert found[0][0]["unlabelled"] > 0


def test_fingerprint_does_not_depend_on_the_place_of_a_name_that_is_not_composed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_RANGE_ROWS", 1)
    rows = [
        Row(f"{FOLDERS[0]}/{name}.jpg", (0.7, 0.1, 0.1, 0.1)) for name in ("f", "g", "e\u0301")
    ]  # in order, composed
    labels = write_csv(tmp_path / "l.csv", [row.image for row in rows], [FOLDERS[0]] * 3)
    found = set()
    for order in (rows, rows[::-1]):
        predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, order)
        pq.write_table(pq.read_table(predictions), predictions, row_group_size=1)
        found.add(evaluate(predictions, labels).summary.labels.fingerprint)
    assert len(found) == 1


def test_findings_count_mistakes_that_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "MAX_IN_MEMORY", 1)
    rows = [Row(f"{FOLDERS[0]}/{number}.jpg", (0.1, 0.6, 0.2, 0.1)) for number in range(5)]
    evaluation = evaluate_rows(tmp_path, (*ROWS, *rows))
    assert evaluation.mistakes.num_rows == 1
    assert evaluation.mistakes_file.num_rows == 6
    assert galleries(evaluation, ReportOptions()).worst_total == 6

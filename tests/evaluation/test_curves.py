"""Curves and their areas, compared with scikit-learn."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from evaluation_data import add_log_probabilities, random_case, write_arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from batchland.evaluation.curves import MAX_BINS, CurveCounts, class_curve, class_curves
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.models.card import class_names

CLASSES = 6


def counted(truth: np.ndarray, probabilities: np.ndarray, exact: int, bins: int = MAX_BINS) -> CurveCounts:
    counts = CurveCounts(CLASSES, exact, bins)
    labels = np.broadcast_to(np.arange(CLASSES), probabilities.shape)
    for rows in np.array_split(np.arange(len(truth)), 5):
        hits = labels[rows] == truth[rows, None]
        counts.add(labels[rows].ravel(), probabilities[rows].astype(np.float32).ravel(), hits.ravel())
    return counts


def evaluated(folder: Path, top_k: int = CLASSES) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    truth, probabilities = random_case(CLASSES, 400)
    names = [f"{number:03}.jpg" for number in range(400)]
    folders = [f"class {number}" for number in range(CLASSES)]
    predictions = write_arrays(folder / "p.parquet", class_names(folders), names, probabilities, top_k=top_k)
    labels = folder / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{n},class {t}\n" for n, t in zip(names, truth, strict=True)))
    return evaluate(predictions, labels), truth, probabilities


def test_areas_equal_scikit_learn(tmp_path: Path) -> None:
    evaluation, truth, probabilities = evaluated(tmp_path)
    one_hot = np.eye(CLASSES)[truth]
    precision = average_precision_score(one_hot, probabilities, average=None)
    auroc = roc_auc_score(one_hot, probabilities, average=None)
    table = evaluation.per_class
    assert table["average_precision"].to_pylist() == pytest.approx(precision.tolist())
    assert table["auroc"].to_pylist() == pytest.approx(auroc.tolist())
    figures = evaluation.summary.figures
    assert figures.macro_average_precision is not None
    assert figures.macro_average_precision.value == pytest.approx(precision.mean())
    assert figures.macro_auroc is not None
    assert figures.macro_auroc.value == pytest.approx(auroc.mean())
    assert (figures.macro_auroc.low or 1) < figures.macro_auroc.value < (figures.macro_auroc.high or 0)


def test_choices_that_were_not_kept_have_the_lowest_score(tmp_path: Path) -> None:
    evaluation, truth, probabilities = evaluated(tmp_path, top_k=2)
    second = np.sort(probabilities, axis=1)[:, -2:-1]
    kept = np.where(probabilities >= second, probabilities, 0)
    expected = average_precision_score(np.eye(CLASSES)[truth], kept, average=None)
    assert evaluation.per_class["average_precision"].to_pylist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("top_k", [1, 2, 6])
def test_areas_of_all_probabilities_do_not_depend_on_the_choices_kept(top_k: int, tmp_path: Path) -> None:
    _, truth, probabilities = evaluated(tmp_path, top_k)
    stored = add_log_probabilities(tmp_path / "p.parquet", probabilities)
    evaluation = evaluate(tmp_path / "p.parquet", tmp_path / "l.csv")
    assert evaluation.summary.areas_of == "all"
    one_hot = np.eye(CLASSES)[truth]
    for name, area in (("average_precision", average_precision_score), ("auroc", roc_auc_score)):
        found = evaluation.per_class[name].to_pylist()
        assert found == pytest.approx(area(one_hot, stored, average=None).tolist())
        assert found == pytest.approx(area(one_hot, probabilities, average=None).tolist(), abs=3e-4)


def test_images_without_all_probabilities_make_areas_of_the_choices_kept(tmp_path: Path) -> None:
    before, truth, probabilities = evaluated(tmp_path, top_k=2)
    assert before.summary.areas_of == "kept"
    has_all = np.arange(400) % 3 > 0
    stored = add_log_probabilities(tmp_path / "p.parquet", probabilities, has_all)
    evaluation = evaluate(tmp_path / "p.parquet", tmp_path / "l.csv")
    assert evaluation.summary.areas_of == "some"
    second = np.sort(probabilities, axis=1)[:, -2:-1]
    expected = np.where(has_all[:, None], stored, np.where(probabilities >= second, probabilities, 0))
    area = average_precision_score(np.eye(CLASSES)[truth], expected, average=None)
    assert evaluation.per_class["average_precision"].to_pylist() == pytest.approx(area.tolist(), abs=3e-4)


@pytest.mark.parametrize(("bins", "tolerance"), [(2**22, 1e-5), (CLASSES * 2735, 1e-4), (CLASSES * 200, 2e-3)])
def test_bins_give_nearly_the_same_areas(bins: int, tolerance: float) -> None:
    """A bin for each half float; 8 half floats in a bin; 128 in a bin."""
    truth, probabilities = random_case(CLASSES, 3000)
    support = np.bincount(truth, minlength=CLASSES)
    exact = class_curves(counted(truth, probabilities, 10**6), support)
    of_all = CurveCounts(CLASSES, max_bins=bins)
    for rows in np.array_split(np.arange(3000), 3):
        of_all.add_all(np.log(probabilities[rows]).astype(np.float16), truth[rows])
    for counts in (counted(truth, probabilities, 4000, bins), of_all):
        binned = class_curves(counts, support)
        for number in range(CLASSES):
            assert binned[number].auroc.value == pytest.approx(exact[number].auroc.value, abs=tolerance)
            area = exact[number].average_precision.value
            assert binned[number].average_precision.value == pytest.approx(area, abs=5 * tolerance)


def test_the_interval_of_auroc_covers_the_truth() -> None:
    """60 images of two normal distributions, one deviation and a half apart: the true area is 0.856."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        hits = np.arange(60) < 25
        scores = 1 / (1 + np.exp(-(rng.normal(0, 1, 60) + 1.5 * hits))).astype(np.float32)
        counts = CurveCounts(1)
        counts.add(np.zeros(60, np.int64), scores, hits)
        curve = class_curve(counts.of_class(0), 25, 35)
        assert curve is not None
        auroc = curve.auroc.figure(0.95)
        covered += (auroc.low or 0) <= 0.8556 <= (auroc.high or 1)
    assert covered >= 182


def test_points_of_a_curve(tmp_path: Path) -> None:
    evaluation, truth, probabilities = evaluated(tmp_path)
    for row in evaluation.curves.filter(pc.equal(evaluation.curves["label"], "class 2")).to_pylist():
        taken = probabilities[:, 2].astype(np.float32) >= np.float32(row["threshold"])
        hits = taken & (truth == 2)
        assert row["recall"] == pytest.approx(hits.sum() / (truth == 2).sum())
        assert row["precision"] == pytest.approx(hits.sum() / taken.sum())
        assert row["false_positive_rate"] == pytest.approx((taken & (truth != 2)).sum() / (truth != 2).sum())
    means = evaluation.curves.filter(pc.is_null(evaluation.curves["label"]))
    assert means["threshold"].null_count == means.num_rows == 122

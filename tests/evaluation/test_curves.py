"""Curves and their areas, compared with scikit-learn."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow.compute as pc
import pytest
from evaluation_data import add_log_probabilities, random_case, write_arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from batchland.evaluation.curves import MAX_BINS, ClassCurve, CurveCounts, class_curves, macro_figures
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


def evaluated(folder: Path, top_k: int = CLASSES, sure: bool = False) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """sure: probabilities of 0 and 1."""
    truth, probabilities = random_case(CLASSES, 400)
    if sure:
        probabilities = np.eye(CLASSES)[probabilities.argmax(axis=1)]
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


@pytest.mark.parametrize("sure", [False, True])
def test_choices_that_were_not_kept_have_the_score_0(sure: bool, tmp_path: Path) -> None:
    evaluation, truth, probabilities = evaluated(tmp_path, 2, sure)
    second = np.sort(probabilities, axis=1)[:, -2:-1]
    kept = np.where(probabilities >= second, probabilities, 0)
    one_hot = np.eye(CLASSES)[truth]
    for name, area in (("average_precision", average_precision_score), ("auroc", roc_auc_score)):
        expected = area(one_hot, kept, average=None).tolist()
        assert evaluation.per_class[name].to_pylist() == pytest.approx(expected)


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
            found = (probabilities[:, number] >= binned[number].thresholds[:, None]).sum(axis=1)
            assert (
                np.mean(found != binned[number].hits + binned[number].false) < 0.01
            )  # float32 rounds a few thresholds
            assert binned[number].auroc.value == pytest.approx(exact[number].auroc.value, abs=tolerance)
            area = exact[number].average_precision.value
            assert binned[number].average_precision.value == pytest.approx(area, abs=5 * tolerance)


def curves_of(rng: np.random.Generator, images: list[int], distance: float) -> dict[int, ClassCurve]:
    """Of as many classes as there are numbers of images, with normal scores, `distance` deviations apart."""
    truth = np.repeat(np.arange(len(images)), images)
    scores = rng.normal(0, 1, (len(truth), len(images))) + distance * np.eye(len(images))[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    counts = CurveCounts(len(images))
    classes = np.broadcast_to(np.arange(len(images)), scores.shape)
    hits = classes == truth[:, None]
    counts.add(classes.ravel(), probabilities.astype(np.float32).ravel(), hits.ravel())
    return class_curves(counts, np.array(images))


@pytest.mark.parametrize(("images", "distance"), [([25, 35], 1), ([10, 500], 2.3), ([10, 500], 1.6), ([25, 25], 1.5)])
def test_intervals_of_auroc_cover_the_truth(images: list[int], distance: float) -> None:
    """With two classes, both areas and their mean are the same: P(difference of two scores is below another one)."""
    rng, true, covered = np.random.default_rng(0), NormalDist().cdf(distance), 0
    for _ in range(200):
        curves = curves_of(rng, images, distance)
        mean = macro_figures(curves, 0.95)["macro_auroc"]
        for figure in (mean, curves[0].auroc.figure(0.95), curves[1].auroc.figure(0.95)):
            assert figure is not None
            covered += (figure.low or 0) <= true <= (figure.high or 1)
    assert covered >= 0.92 * 600


def test_the_mean_average_precision_of_small_classes_has_no_interval() -> None:
    few, enough = (curves_of(np.random.default_rng(0), [images] * 3, 1) for images in (9, 10))
    mean = macro_figures(few, 0.95)["macro_average_precision"]
    assert mean is not None
    assert (mean.low, mean.high) == (None, None)
    mean = macro_figures(enough, 0.95)["macro_average_precision"]
    assert mean is not None
    assert (mean.low or 1) < mean.value < (mean.high or 0)


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

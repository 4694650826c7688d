"""Slices by own columns and by two of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import write_arrays
from scipy.stats import false_discovery_control, fisher_exact, hypergeom
from statsmodels.stats.multitest import multipletests

from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.pair_slices import benjamini_hochberg, size_weights
from batchland.models.card import class_names
from batchland.report.evaluation_text import evaluation_terminal_text


def evaluated(folder: Path, right: np.ndarray, by: tuple[str, ...] = ("camera", "site"), **columns: list) -> Evaluation:
    """All images are of class a; each column of the label table has a value for each image."""
    names = [f"{number:05}.jpg" for number in range(len(right))]
    probabilities = np.where(right[:, None], (0.9, 0.1), (0.2, 0.8)).astype(np.float32)
    predictions = write_arrays(folder / "p.parquet", class_names(["a", "b"]), names, probabilities)
    table = pa.table({"image": names, "label": ["a"] * len(names), **columns})
    pq.write_table(table, folder / "l.parquet")
    return evaluate(predictions, folder / "l.parquet", EvaluateOptions(by=by, brightness_sample=0))


def test_a_column_without_different_values_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    by = ("site", "site", "none")
    evaluation = evaluated(tmp_path, np.ones(3, bool), by, site=["x"] * 3, none=pa.nulls(3, pa.string()))
    assert evaluation.summary.options["by"] == ["site", "none"]
    assert evaluation.summary.slices == ()
    assert caplog.messages == [
        "column 'site' has the value 'x' for all images, so there are no slices by it",
        "column 'none' has no value for all images, so there are no slices by it",
    ]


def test_lists_are_no_own_columns(tmp_path: Path) -> None:
    write_arrays(tmp_path / "p.parquet", class_names(["a", "b"]), ["1.jpg"], np.array([[0.9, 0.1]], np.float32))
    table = pq.read_table(tmp_path / "p.parquet")
    pq.write_table(table.append_column("sizes", pa.array([[1, 2]])), tmp_path / "p.parquet")
    (tmp_path / "l.csv").write_text("image,label\n1.jpg,a\n")
    with pytest.raises(UsageError, match="there is no column 'sizes' to slice by; there are no own columns"):
        evaluate(tmp_path / "p.parquet", tmp_path / "l.csv", EvaluateOptions(by=("sizes",)))


def test_own_columns_travel_to_outcomes_and_mistakes(tmp_path: Path) -> None:
    right = np.array([True, False, True, True])
    evaluation = evaluated(tmp_path, right, ("camera",), camera=["x", "y", None, ""], number=[1, 2, 3, 4])
    assert evaluation.outcomes.select(["image", "camera", "number"]).to_pylist() == [
        {"image": "00000.jpg", "camera": "x", "number": 1},
        {"image": "00001.jpg", "camera": "y", "number": 2},
        {"image": "00002.jpg", "camera": None, "number": 3},
        {"image": "00003.jpg", "camera": None, "number": 4},
    ]
    assert evaluation.mistakes["camera"].to_pylist() == ["y"]
    assert [(part.value, part.images) for part in evaluation.summary.slices] == [("", 2), ("x", 1), ("y", 1)]
    assert evaluation.summary.pair_slices is None


def test_a_weak_pair_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    camera, site = rng.integers(0, 4, 4000), rng.integers(0, 3, 4000)
    weak = (camera == 1) & (site == 2)
    right = rng.random(4000) < np.where(weak, 0.7, 0.9)
    evaluation = evaluated(tmp_path, right, camera=[f"c{n}" for n in camera], site=[f"s{n}" for n in site])
    found = evaluation.summary.pair_slices
    assert found is not None
    assert (found.tested, found.found) == (12, 1)
    (part,) = found.weakest
    images, hits = int(weak.sum()), int(right[weak].sum())
    assert (part.columns, part.values, part.images) == (("camera", "site"), ("c1", "s2"), images)
    assert part.accuracy.value == hits / images
    assert part.difference == pytest.approx(hits / images - right[~weak].mean())
    (weight,) = size_weights(np.bincount(camera * 3 + site), right.mean())[[1 * 3 + 2]]
    assert part.p_value == pytest.approx(12 * hypergeom.cdf(hits, 4000, right.sum(), images) / weight)
    parts = {(part.dimension, part.value): part.images for part in evaluation.summary.slices}
    assert parts["camera", "c1"] == (camera == 1).sum()


def test_no_slice_is_found_if_none_is_weak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for run in range(5):
        (tmp_path / str(run)).mkdir()
        columns = {name: rng.integers(0, 12, 3000).astype(str).tolist() for name in ("camera", "site")}
        found = evaluated(tmp_path / str(run), rng.random(3000) < 0.9, **columns).summary.pair_slices
        assert found is not None
        assert (found.found, found.weakest) == (0, ())


def test_every_value_of_a_column_is_tested(tmp_path: Path) -> None:
    """Of 300 cameras of three sizes, two of the smallest and one of the middle are weak."""
    sizes = np.repeat((60, 40, 12), 100)
    weak = {150: 18, 210: 0, 290: 1}
    hits = np.array([weak.get(camera, size - size // 10) for camera, size in enumerate(sizes)])
    right = np.concatenate([np.arange(size) < some for size, some in zip(sizes, hits, strict=True)])
    cameras = np.repeat([f"c{camera:03}" for camera in range(300)], sizes)
    evaluation = evaluated(tmp_path, right, ("camera",), camera=cameras.tolist())
    raw = [
        fisher_exact([[some, size - some], [right.sum() - some, (~right).sum() - size + some]]).pvalue
        for size, some in zip(sizes, hits, strict=True)
    ]
    adjusted = multipletests(raw, method="holm")[1]
    assert set(np.flatnonzero(adjusted < 0.05)) == set(weak)
    shown = [*sorted(weak, key=adjusted.__getitem__), *range(11)]
    rest = sorted(set(range(300)) - set(shown))
    parts = evaluation.summary.slices
    assert [(part.dimension, part.value, part.images, part.p_value) for part in parts] == [
        *(("camera", f"c{at:03}", sizes[at], pytest.approx(adjusted[at])) for at in shown),
        ("camera", "others (286)", sizes[rest].sum(), None),
    ]
    assert parts[-1].accuracy.value == hits[rest].sum() / sizes[rest].sum()
    assert parts[0].difference == pytest.approx(
        hits[shown[0]] / sizes[shown[0]] - (right.sum() - hits[shown[0]]) / (len(right) - sizes[shown[0]])
    )
    (note,) = [line for line in evaluation_terminal_text(evaluation).splitlines() if line.startswith("note: Weaker")]
    assert note == "note: Weaker on camera c150: 45.0% of 40 images, −45.0 points compared with the others."


def test_at_most_200_weak_values_are_shown(tmp_path: Path) -> None:
    right = np.repeat(np.arange(460) >= 230, 20)
    cameras = np.repeat([f"c{camera:03}" for camera in range(460)], 20)
    parts = evaluated(tmp_path, right, ("camera",), camera=cameras.tolist()).summary.slices
    assert [part.value for part in parts] == [*(f"c{camera:03}" for camera in range(200)), "others (260)"]


def test_unknown_columns_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'lens' to slice by; the own columns are camera"):
        evaluated(tmp_path, np.array([True]), ("lens",), camera=["x"])


def test_large_slices_are_found_among_many_small_ones(tmp_path: Path) -> None:
    """Without weights, the adjusted p-value is 0.0091, and nothing is listed if none is below 0.001."""
    sizes = np.repeat((20, 300), (1000, 13))
    hits = np.where(sizes == 20, 16, 240)
    hits[1005] = 208
    right = np.concatenate([np.arange(size) < some for size, some in zip(sizes, hits, strict=True)])
    cameras = [f"c{number % 25}" for number in np.repeat(np.arange(1013), sizes)]
    sites = [f"s{number // 25}" for number in np.repeat(np.arange(1013), sizes)]
    found = evaluated(tmp_path, right, camera=cameras, site=sites).summary.pair_slices
    assert found is not None
    assert (found.tested, [(part.values, part.images) for part in found.weakest]) == (1013, [(("c5", "s40"), 300)])


def test_weights_are_equal_for_equal_sizes_and_never_below_a_half() -> None:
    assert size_weights(np.full(9, 50), 0.9) == pytest.approx(np.ones(9))
    weights = size_weights(np.array([20, 50, 100, 500, 5000]), 0.8)
    assert weights.mean() == pytest.approx(1)
    assert (weights >= 0.5).all()
    assert (np.diff(weights) > 0).all()
    assert size_weights(np.array([20, 20]), 1.0) == pytest.approx(np.ones(2))
    assert size_weights(np.zeros(0, np.int64), 0.8).tolist() == []


def test_adjusted_p_values_equal_scipy() -> None:
    p_values = np.random.default_rng(0).random(50) ** 3
    assert benjamini_hochberg(p_values) == pytest.approx(false_discovery_control(p_values))

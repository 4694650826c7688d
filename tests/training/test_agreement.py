"""Comparison of an exported file with the trained model."""

from pathlib import Path

import numpy as np
import pytest

from batchland.errors import ModelError
from batchland.training.agreement import Agreement, compare_batches, require_accuracy, require_agreement

OUT = Path("model.onnx")


def test_batches_of_each_size_are_compared_on_different_images() -> None:
    pixels = np.arange(46, dtype=np.uint8).reshape(46, 1, 1, 1)
    seen: list[list[int]] = []

    def score(batch: np.ndarray) -> np.ndarray:
        seen.append(batch.ravel().tolist())
        return np.tile(np.array([[0.6, 0.4]], np.float32), (len(batch), 1))

    def differ(batch: np.ndarray) -> np.ndarray:
        answers = score(batch)
        answers[batch.ravel() == 40] = [0.4, 0.6]
        return answers

    assert compare_batches(score, differ, pixels) == (
        Agreement(1, 1, 0.0),
        Agreement(32, 32, 0.0),
        Agreement(13, 12, pytest.approx(0.2)),
    )
    assert seen[::2] == seen[1::2] == [[0], list(range(1, 33)), list(range(33, 46))]
    assert [each.batch for each in compare_batches(score, score, pixels[:3])] == [1, 32, 13]


def test_fp32_may_differ_by_rounding_only() -> None:
    require_agreement(OUT, "fp32", (Agreement(32, 32, 5e-4),))
    require_agreement(OUT, "fp32", (Agreement(32, 31, 1e-5),))  # two classes were equally likely
    with pytest.raises(ModelError) as caught:
        require_agreement(OUT, "fp32", (Agreement(1, 1, 0.0), Agreement(32, 31, 0.002)))
    assert caught.value.advice == "report_disagreement"
    assert str(caught.value) == (
        "model.onnx: not written, the fp32 file disagrees with PyTorch on a batch of 32 validation images: 1 with "
        "another first class, largest difference 0.002 (allowed 0.001)"
    )


def test_lower_precision_may_differ_more_but_never_by_nan() -> None:
    require_agreement(OUT, "int8", (Agreement(32, 31, 0.1),))
    require_agreement(OUT, "fp16", (Agreement(32, 31, 0.01),))
    for precision, difference in (("fp16", 0.1), ("int8", 0.5), ("int8", float("nan")), ("fp32", float("nan"))):
        with pytest.raises(ModelError, match=f"the {precision} file disagrees"):
            require_agreement(OUT, precision, (Agreement(32, 32, difference),))  # type: ignore[arg-type]


def test_accuracy_may_drop_by_the_allowed_points() -> None:
    require_accuracy(OUT, "int8", 0.8, 0.795, 0.5)
    require_accuracy(OUT, "int8", 0.8, 0.9, 0.0)
    with pytest.raises(ModelError) as caught:
        require_accuracy(OUT, "int8", 0.8, 0.79, 0.5)
    assert str(caught.value) == (
        "model.onnx: not written, int8 loses 1.00 points of top-1 on the validation images (79.00% after 80.00%), more "
        "than the 0.5 allowed"
    )

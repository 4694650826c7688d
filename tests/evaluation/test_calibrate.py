"""A model that says which of its answers to accept."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from batchland import ScoreOptions, score
from batchland.cli.main import main
from batchland.evaluation.calibrate import conformal_threshold
from batchland.models.decisions import AcceptThresholds, PredictionSets, decide, prediction_sets
from batchland.models.session import open_session

PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.3, 0.4, 0.3], [0.2, 0.1, 0.7]], np.float32)


@pytest.fixture
def scored(tmp_path: Path, toy_model: Path) -> Path:
    """120 pictures of three colours, and their predictions."""
    rng = np.random.default_rng(0)
    for number in range(120):
        colour = np.zeros((8, 8, 3), np.uint8)
        colour[..., number % 3] = rng.integers(120, 255)
        folder = tmp_path / "photos" / ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colour).save(folder / f"{number}.png")
    score(tmp_path / "photos", tmp_path / "preds.parquet", ScoreOptions(model=toy_model, batch_size=32))
    return tmp_path


def run(folder: Path, model: Path, *arguments: str) -> tuple[int, str]:
    command = ["calibrate", str(folder / "preds.parquet"), "--labels", str(folder / "photos"), "--model", str(model)]
    result = CliRunner().invoke(main, [*command, "--out", str(folder / "calibrated.onnx"), *arguments])
    return result.exit_code, result.output


def test_score_writes_the_decisions_of_a_calibrated_model(scored: Path, toy_model: Path) -> None:
    code, output = run(scored, toy_model, "--promise", "error <= 5%", "--sets", "0.9")
    assert code == 0, output
    card = open_session(scored / "calibrated.onnx", "cpu").card
    assert card.decision is not None
    assert card.prediction_sets is not None
    assert (card.decision.promise, card.decision.images, card.prediction_sets.coverage) == ("error <= 5%", 120, 0.9)
    options = ScoreOptions(model=scored / "calibrated.onnx", batch_size=32)
    score(scored / "photos", scored / "again.parquet", options)
    table = pq.read_table(scored / "again.parquet")
    accepted = table["probability"].to_numpy() >= np.float32(card.decision.threshold)
    assert table["decision"].to_pylist() == ["accept" if each else "ask" for each in accepted]
    assert accepted.sum() >= 59
    hits = [folder.split(".")[1].split("/")[0].replace("_", " ") for folder in table["image"].to_pylist()]
    covered = [label in found for label, found in zip(hits, table["prediction_set"].to_pylist(), strict=True)]
    assert np.mean(covered) >= 0.9
    before = pq.read_table(scored / "preds.parquet")
    assert before["decision"].null_count == before["prediction_set"].null_count == 120


def test_too_few_images_give_no_promise(scored: Path, toy_model: Path) -> None:
    code, output = run(scored, toy_model, "--promise", "error <= 2%")
    assert (code, (scored / "calibrated.onnx").exists()) == (2, False)
    assert output.strip() == (
        "batchland: error <= 2%: with 120 labelled images, no threshold is sure to keep this promise; at least 149 "
        "confident answers without a mistake are needed: label more images, or promise less"
    )


def test_nothing_to_calibrate(scored: Path, toy_model: Path) -> None:
    assert run(scored, toy_model) == (
        2,
        "batchland: nothing to calibrate: no promise, no prediction sets, no known; give --promise, --sets, --known or "
        "several of them\n",
    )  # fmt: skip


def test_decisions() -> None:
    rule = {"promise": "error <= 2%", "confidence": 0.95, "images": 9, "labels_fingerprint": ""}
    labels = ("a", "b", "c")
    assert decide(AcceptThresholds(**rule, threshold=0.7), labels, PROBABILITIES) == ["accept", "ask", "accept"]
    per_class = AcceptThresholds(**rule, per_class={"a": 0.95, "b": 0.4})
    assert decide(per_class, labels, PROBABILITIES) == ["ask", "accept", "ask"]


@pytest.mark.parametrize(("threshold", "expected"), [(0.3, [[0], [1, 0, 2], [2]]), (0.95, [[0], [1], [2]])])
def test_prediction_sets(threshold: float, expected: list[list[int]]) -> None:
    rule = PredictionSets(coverage=0.9, threshold=threshold, images=9)
    assert [each.tolist() for each in prediction_sets(rule, PROBABILITIES)] == expected


@pytest.mark.parametrize("images", [30, 200])
def test_prediction_sets_have_their_coverage(images: int) -> None:
    """Over 400 splits, 90% of new images on average; never promised of 8 images."""
    rng = np.random.default_rng(0)
    true = rng.beta(2, 1, 20_000).astype(np.float32)
    covered = []
    for _ in range(400):
        at = rng.choice(len(true), images + 500, replace=False)
        threshold = conformal_threshold(true[at[:images]], 0.9)
        assert threshold is not None
        covered.append((true[at[images:]] >= np.float32(threshold)).mean())
    assert 0.9 - 3 * np.std(covered) / 20 < np.mean(covered) < 0.9 + 1 / images + 3 * np.std(covered) / 20
    assert conformal_threshold(true[:8], 0.9) is None

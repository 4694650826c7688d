"""Which images to label, and the accuracy that they show."""

from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from click.testing import CliRunner
from commands import batchland
from evaluation_data import write_arrays

from batchland.cli.main import main
from batchland.errors import UsageError
from batchland.evaluation.label_plan import LabelPlanOptions, allot, estimated_accuracy, plan_labels
from batchland.models.card import class_names


def predictions(folder: Path, sure: np.ndarray) -> Path:
    """Of two classes; `sure`: probability of class `a`, the first choice."""
    names = [f"{number:05}.jpg" for number in range(len(sure))]
    return write_arrays(folder / "p.parquet", class_names(["a", "b"]), names, np.c_[sure, 1 - sure].astype(np.float32))


def mixed(images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(images) < 0.75, rng.uniform(0.97, 1, images), rng.uniform(0.51, 0.8, images))


def test_a_plan_chooses_uncertain_images_and_weights_them(tmp_path: Path) -> None:
    sure = mixed(4000)
    planned = plan_labels(predictions(tmp_path, sure), LabelPlanOptions(budget=200))
    table = planned.table
    assert (planned.plan.images, planned.plan.chosen, planned.plan.pays) == (4000, 200, True)
    assert planned.plan.random_labels > 250
    assert len(set(table["image"].to_pylist())) == table.num_rows == 200
    assert table["weight"].to_numpy().sum() == pytest.approx(4000)
    assert (table["probability"].to_numpy() < 0.9).mean() > 1.4 * (sure < 0.9).mean()
    chosen = [int(name[:5]) for name in table["image"].to_pylist()]
    assert table["probability"].to_pylist() == pytest.approx(sure[chosen].tolist(), abs=1e-6)


@pytest.mark.parametrize("budget", [40, 200])
def test_a_plan_of_a_very_sure_model_expects_the_interval_that_it_gives(budget: int) -> None:
    """All answers are right, as expected."""
    probability = np.full(2000, 0.99997, np.float32)
    stratum, labels, plan = allot(probability, budget)
    right = np.ones(budget, bool)
    found = estimated_accuracy(np.repeat(np.arange(len(labels)), labels), right, np.bincount(stratum).astype(float))
    assert found.low is not None
    assert 2 * plan.half_width == pytest.approx(1 - found.low, rel=0.01)
    assert (plan.random_labels, plan.pays) == (pytest.approx(budget, rel=0.05), False)


def test_a_plan_is_not_worth_it_if_the_model_is_equally_confident(tmp_path: Path) -> None:
    sure = np.random.default_rng(0).uniform(0.75, 0.85, 1000)
    assert not plan_labels(predictions(tmp_path, sure), LabelPlanOptions(budget=100)).plan.pays


@pytest.mark.parametrize("uncertain", [0, 1])
def test_probabilities_of_exactly_1_give_a_plan(tmp_path: Path, uncertain: int) -> None:
    sure = np.r_[np.full(1000, 1.0), np.full(uncertain, 0.6)]
    path = tmp_path / "plan.csv"
    result = batchland("label-plan", predictions(tmp_path, sure), "--budget", "100", "--out", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "This plan is not worth it: the model is about equally confident everywhere. Choose images at random."
    ]
    table = pyarrow.csv.read_csv(path)
    assert table.num_rows == 100
    assert sum(table["weight"].to_pylist()) == pytest.approx(len(sure))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.5])
def test_probabilities_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    sure = np.r_[np.full(99, 0.9), value]
    with pytest.raises(UsageError, match=r"p\.parquet: has probabilities that are not from 0 to 1; score the images"):
        plan_labels(predictions(tmp_path, sure), LabelPlanOptions(budget=40))


def test_few_images_are_all_labelled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 50 scored images, less than twice the 40 to label; label all of them"):
        plan_labels(predictions(tmp_path, mixed(50)), LabelPlanOptions(budget=40))


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_intervals_cover_the_accuracy(tmp_path: Path, shift: float) -> None:
    """Of 60 plans of one set, whether the model is calibrated or 10 points overconfident."""
    sure = mixed(3000)
    right = np.random.default_rng(1).random(3000) < sure - shift
    path, covered, values = predictions(tmp_path, sure), 0, []
    for seed in range(60):
        table = plan_labels(path, LabelPlanOptions(budget=100, seed=seed)).table
        chosen = np.array([int(name[:5]) for name in table["image"].to_pylist()])
        stratum = table["stratum"].to_numpy()
        found = estimated_accuracy(stratum, right[chosen], np.bincount(stratum, table["weight"].to_numpy()))
        covered += (found.low or 0) <= right.mean() <= (found.high or 1)
        values.append(found.value)
    assert covered >= 53
    assert np.mean(values) == pytest.approx(right.mean(), abs=0.012)


def test_the_command_plans_and_evaluates(tmp_path: Path) -> None:
    path, plan = predictions(tmp_path, mixed(2000)), tmp_path / "plan.csv"
    result = CliRunner().invoke(main, ["label-plan", str(path), "--budget", "100", "--out", str(plan)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{plan}: 100 images of 2,000 to label; if the probabilities are right, ")
    table = pyarrow.csv.read_csv(plan)
    labels = pyarrow.array(["a"] * 90 + ["b"] * 5 + [""] * 5)
    pyarrow.csv.write_csv(table.set_column(1, "label", labels), plan)
    result = CliRunner().invoke(main, ["label-plan", str(path), "--labelled", str(plan)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("accuracy 9")
    assert result.output.splitlines()[1:] == [
        "note: the plan was no better than a random choice of as many images",
        "note: 5 of 100 rows of the plan have no label",
    ]
    again = CliRunner().invoke(main, ["label-plan", str(path), "--out", str(plan)])
    assert (again.exit_code, again.output) == (
        2, f"batchland: {plan}: exists, and may hold labels; give another --out\n",
    )  # fmt: skip

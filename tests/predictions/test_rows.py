"""Rows: whole tables, ties, failures and values that are not finite."""

from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import entropy
from toys import toy_card

from batchland.images.batch import Batch, Outcome
from batchland.images.signals import SIGNAL_DTYPE, SIGNALS, measure
from batchland.images.sources.refs import ImageRef
from batchland.predictions.rows import best_first, to_rows
from batchland.predictions.schema import PREDICTIONS

WHEN = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
US = round(WHEN.timestamp() * 1e6)
OK = Outcome(width=30, height=20, file_size=99, modified_us=US, sha256="0a")
CARD = toy_card(folders=tuple(map(str, range(20))))
MEASURED = [signal.name for signal in SIGNALS]
DECIDED = ["decision", "prediction_set"]
ANSWER = ["entropy", "logsumexp", "top_logit", "log_probabilities"]


def batch(*outcomes):
    refs = [ImageRef(f"{index}.jpg", b"") for index in range(len(outcomes))]
    return Batch(refs, np.zeros((len(outcomes), 8, 8, 3), np.uint8), outcomes)


def test_a_whole_table():
    failed = Outcome(file_size=3, modified_us=US, sha256="0b", error=("truncated", "half of it"))
    probabilities = np.array([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05], [0.125, 0.125, 0.75]], np.float32)
    rows = to_rows(batch(OK, failed, OK), probabilities, toy_card(), top_k=2)
    assert rows.schema == PREDICTIONS
    assert rows["decision"].null_count == rows["prediction_set"].null_count == 3  # see test_calibrate
    empty = dict.fromkeys(("label", "class_index", "probability", "margin", "top_k", "width", "height"))
    facts = {"file_size": 99, "modified_at": WHEN, "sha256": "0a"}
    fine = {"status": "ok", "error_code": None, "error_message": None, "width": 30, "height": 20} | facts
    assert rows.drop_columns([*ANSWER, *DECIDED, *MEASURED]).to_pylist() == [
        fine | {
            "image": "0.jpg", "label": "Green Hill", "class_index": 1, "probability": 0.5, "margin": 0.25,
            "top_k": [
                {"label": "Green Hill", "class_index": 1, "probability": 0.5},
                {"label": "Red Tower", "class_index": 0, "probability": 0.25},
            ],
        },
        empty | {
            "image": "1.jpg", "status": "failed", "error_code": "truncated", "error_message": "half of it",
            "file_size": 3, "modified_at": WHEN, "sha256": "0b",
        },
        fine | {
            "image": "2.jpg", "label": "Blue Lake", "class_index": 2, "probability": 0.75, "margin": 0.625,
            "top_k": [
                {"label": "Blue Lake", "class_index": 2, "probability": 0.75},
                {"label": "Red Tower", "class_index": 0, "probability": 0.125},
            ],
        },
    ]  # fmt: skip


def test_a_batch_without_a_single_picture_needs_no_probabilities():
    rows = to_rows(batch(Outcome(error=("empty", "e")), Outcome(error=("vanished", "v"))), None, toy_card(), 5)
    assert rows["error_code"].to_pylist() == ["empty", "vanished"]
    assert rows["label"].null_count == rows["top_k"].null_count == 2


def test_a_row_without_probabilities_is_a_failed_row():
    probabilities = np.array([[np.nan, 0.5, 0.5], [0, 1, 0], [np.inf, 0, 0], [0, 0, 0], [3, -1, -1]], np.float32)
    rows = to_rows(batch(OK, OK, OK, OK, OK), probabilities, toy_card(), 1)
    assert rows["error_code"].to_pylist() == ["model_output", None, *["model_output"] * 3]
    assert rows["error_message"][0].as_py() == "the model's outputs are not probabilities that sum to 1"
    assert rows["label"].to_pylist() == [None, "Green Hill", None, None, None]


def test_top_k_is_capped_by_the_number_of_classes():
    rows = to_rows(batch(OK), np.array([[0.2, 0.3, 0.5]], np.float32), toy_card(), 99)
    assert [entry["class_index"] for entry in rows["top_k"][0].as_py()] == [2, 1, 0]


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_margin_does_not_depend_on_top_k(top_k):
    rows = to_rows(batch(OK), np.array([[0.125, 0.625, 0.25]], np.float32), toy_card(), top_k)
    assert rows["margin"].to_pylist() == [0.375]
    assert [entry["class_index"] for entry in rows["top_k"][0].as_py()] == [1, 2, 0][:top_k]


def test_one_class_has_its_whole_probability_as_margin():
    rows = to_rows(batch(OK), np.array([[1]], np.float32), toy_card(folders=("only",)), 5)
    assert rows["margin"].to_pylist() == [1.0]


def test_figures_of_the_answer_are_those_of_its_logits():
    logits = np.random.default_rng(1).normal(0, 3, (4, 20))
    rows = to_rows(batch(OK, Outcome(error=("empty", "e")), OK, OK), softmax(logits, axis=1).astype("f4"), CARD, 5)
    assert [rows[name].null_count for name in ANSWER] == [1, 1, 1, 1]
    assert all(rows[name][1].as_py() is None for name in ANSWER)
    for row in (0, 2, 3):
        centred = logits[row] - logits[row].mean()
        kept = np.array(rows["log_probabilities"][row].as_py())
        assert kept == pytest.approx(log_softmax(logits[row]), rel=2**-11)
        assert rows["entropy"][row].as_py() == pytest.approx(entropy(softmax(logits[row])), rel=1e-5)
        assert rows["logsumexp"][row].as_py() == pytest.approx(logsumexp(centred), rel=1e-5)
        assert rows["top_logit"][row].as_py() == pytest.approx(centred.max(), rel=1e-5)


def test_a_certain_answer_has_finite_figures():
    rows = to_rows(batch(OK), np.array([[1, 0, 0]], np.float32), toy_card(), 3)
    floor = -87.3365  # ln of the smallest normal 32-bit number
    kept = [0.0, -87.3125, -87.3125]
    figures = [pytest.approx(0, abs=1e-30), *[pytest.approx(-floor * 2 / 3)] * 2, kept]
    assert [rows[name][0].as_py() for name in ANSWER] == figures


@pytest.mark.parametrize(("keep", "kept"), [("auto", 3), ("all", 3), ("top", None)])
def test_all_probabilities_are_kept_if_wanted(keep, kept):
    column = to_rows(batch(OK), np.eye(1, 3, dtype=np.float32), toy_card(), 1, keep)["log_probabilities"]
    assert [value and len(value) for value in column.to_pylist()] == [kept]


@pytest.mark.parametrize(("classes", "kept"), [(1024, True), (1025, False)])
def test_very_many_probabilities_are_not_kept_by_default(classes, kept):
    card = toy_card(folders=tuple(map(str, range(classes))))
    column = to_rows(batch(OK), np.eye(1, classes, dtype=np.float32), card, 1)["log_probabilities"]
    assert (column.null_count == 0) is kept


def test_figures_of_a_picture_are_columns():
    pictures = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8) for seed in range(2)]
    measured = [measure(picture) for picture in pictures]
    first, second = (OK._replace(signals=np.array([row], SIGNAL_DTYPE).tobytes()) for row in measured)
    rows = to_rows(batch(first, Outcome(error=("empty", "e")), second), np.eye(3, dtype=np.float32), toy_card(), 1)
    rows.validate(full=True)
    expected = [{name: pytest.approx(value) for name, value in zip(MEASURED, row, strict=True)} for row in measured]
    for row, values in zip(expected, measured, strict=True):
        row |= dict(zip(MEASURED[-2:], values[-2:], strict=True))  # exact: the hash and the thumbnail
    assert rows.select(MEASURED).to_pylist() == [expected[0], dict.fromkeys(MEASURED), expected[1]]


def test_a_row_does_not_depend_on_its_neighbours():
    probabilities = softmax(np.random.default_rng(2).normal(0, 4, (64, 20)), axis=1).astype("f4")
    together = to_rows(batch(*[OK] * 64), probabilities, CARD, 5).drop_columns(["image"])
    for row in range(64):
        alone = to_rows(batch(OK), probabilities[row : row + 1], CARD, 5).drop_columns(["image"])
        assert alone.equals(together.slice(row, 1))


@pytest.mark.parametrize(("classes", "levels"), [(30, 4), (400, 4), (400, 100), (400, 100_000)])
def test_ties_break_by_class_index(classes, levels):
    values = np.random.default_rng(0).integers(0, levels, (200, classes)).astype(np.float32)
    values[3] = 0
    expected = [sorted(range(classes), key=lambda index, row=row: (-row[index], index))[:7] for row in values]
    assert best_first(values, 7).tolist() == expected


def test_text_of_any_kind_survives():
    names = ["é.jpg", "", "new\nline", "日本.png"]
    outcomes = (OK,) * 4
    rows = to_rows(
        batch(*outcomes)._replace(refs=[ImageRef(n, b"") for n in names]), np.eye(4, 3, dtype=np.float32), toy_card(), 1
    )
    rows.validate(full=True)
    assert rows["image"].to_pylist() == names

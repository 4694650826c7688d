"""Rows: whole tables, ties, failures and values that are not finite."""

from datetime import UTC, datetime

import numpy as np
from toys import toy_card

from batchland.images.loader import Batch, Outcome
from batchland.images.sources.refs import ImageRef
from batchland.predictions.rows import best_first, to_rows
from batchland.predictions.schema import PREDICTIONS

WHEN = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
US = round(WHEN.timestamp() * 1e6)
OK = Outcome(width=30, height=20, file_size=99, modified_us=US)


def batch(*outcomes):
    refs = [ImageRef(f"{index}.jpg", b"") for index in range(len(outcomes))]
    return Batch(refs, np.zeros((len(outcomes), 8, 8, 3), np.uint8), outcomes)


def test_a_whole_table():
    failed = Outcome(file_size=3, modified_us=US, error=("truncated", "half of it"))
    probabilities = np.array([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05], [0.125, 0.125, 0.75]], np.float32)
    rows = to_rows(batch(OK, failed, OK), probabilities, toy_card(), top_k=2)
    assert rows.schema == PREDICTIONS
    empty = dict.fromkeys(("label", "class_index", "probability", "margin", "top_k", "width", "height"))
    facts = {"file_size": 99, "modified_at": WHEN}
    fine = {"status": "ok", "error_code": None, "error_message": None, "width": 30, "height": 20} | facts
    assert rows.to_pylist() == [
        fine | {
            "image": "0.jpg", "label": "Green Hill", "class_index": 1, "probability": 0.5, "margin": 0.25,
            "top_k": [
                {"label": "Green Hill", "class_index": 1, "probability": 0.5},
                {"label": "Red Tower", "class_index": 0, "probability": 0.25},
            ],
        },
        empty | {
            "image": "1.jpg", "status": "failed", "error_code": "truncated", "error_message": "half of it",
            "file_size": 3, "modified_at": WHEN,
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


def test_one_class_has_its_whole_probability_as_margin():
    rows = to_rows(batch(OK), np.array([[1]], np.float32), toy_card(folders=("only",)), 5)
    assert rows["margin"].to_pylist() == [1.0]


def test_ties_break_by_class_index():
    values = np.random.default_rng(0).integers(0, 4, (200, 30)).astype(np.float32)
    expected = [sorted(range(30), key=lambda index, row=row: (-row[index], index))[:7] for row in values]
    assert best_first(values, 7).tolist() == expected


def test_text_of_any_kind_survives():
    names = ["é.jpg", "", "new\nline", "日本.png"]
    outcomes = (OK,) * 4
    rows = to_rows(
        batch(*outcomes)._replace(refs=[ImageRef(n, b"") for n in names]), np.eye(4, 3, dtype=np.float32), toy_card(), 1
    )
    rows.validate(full=True)
    assert rows["image"].to_pylist() == names

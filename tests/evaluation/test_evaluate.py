"""Predictions and labels joined and accounted for; the whole evaluation."""

import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import Row, add_log_probabilities, write_label_folders, write_predictions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import picture

import batchland
from batchland.embeddings.duplicates import find_duplicates
from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.schema import LabelAccount

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
RED, GREEN, BLUE = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)
NOTHING = {
    "unlabelled": 0, "unlabelled_examples": (), "unpredicted": 0, "unpredicted_examples": (), "missing_classes": (),
    "unknown_classes": {}, "renamed_classes": {}, "empty_folders": (), "loose_images": 0, "blank_labels": 0,
}  # fmt: skip


def predictions(tmp_path: Path, *rows: Row) -> Path:
    return write_predictions(tmp_path / "preds.parquet", FOLDERS, rows)


def labels(tmp_path: Path, *names: str) -> Path:
    return write_label_folders(tmp_path / "labels", names)


def refusal(predictions: Path, labels: Path, options: EvaluateOptions | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        evaluate(predictions, labels, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def top1(evaluation: Evaluation) -> float | None:
    return evaluation.summary.figures.top1 and evaluation.summary.figures.top1.value


def test_all_images_match(tmp_path: Path) -> None:
    names = ("00.Red_Tower/1.jpg", "01.Green_Hill/1.jpg", "02.Blue_Lake/1.jpg")
    scored = predictions(tmp_path, *(Row(name, answer) for name, answer in zip(names, (RED, BLUE, BLUE), strict=True)))
    evaluation = evaluate(scored, labels(tmp_path, *names))
    assert evaluation.summary.account == LabelAccount(predicted=3, labelled=3, scored=3, failed=0, **NOTHING)
    assert top1(evaluation) == 2 / 3


def test_images_and_classes_that_do_not_match_are_counted(tmp_path: Path) -> None:
    source = labels(
        tmp_path, "07.Red_Tower/1.jpg", "07.Red_Tower/2.jpg", "01.Green_Hill/1.jpg", "Atlantis/1.jpg", "loose.png"
    )
    (source / "02.Blue_Lake").mkdir()
    rows = (
        Row("07.Red_Tower/1.jpg", RED),
        Row("01.Green_Hill/1.jpg", error_code="truncated"),
        Row("Atlantis/1.jpg", RED),
        Row("somewhere/else.jpg", BLUE),
        Row("loose.png", BLUE),
    )
    evaluation = evaluate(predictions(tmp_path, *rows), source, EvaluateOptions(ignore_unknown_classes=True))
    assert evaluation.summary.account == LabelAccount(
        predicted=5,
        labelled=4,
        scored=1,
        failed=1,
        unlabelled=2,
        unlabelled_examples=("somewhere/else.jpg", "loose.png"),
        unpredicted=1,
        unpredicted_examples=("07.Red_Tower/2.jpg",),
        missing_classes=("Blue Lake",),
        unknown_classes={"Atlantis": 1},
        renamed_classes={"07.Red_Tower": "00.Red_Tower"},
        empty_folders=("02.Blue_Lake",),
        loose_images=1,
        blank_labels=0,
    )
    assert [group.model_dump() for group in evaluation.summary.failures] == [
        {"error_code": "truncated", "images": 1, "examples": ("01.Green_Hill/1.jpg",)}
    ]


@pytest.mark.parametrize("blank", ["", "  "])
def test_labels_that_no_image_has_are_no_classes(tmp_path: Path, blank: str) -> None:
    """A blank label, and a category without rows, as a table of pandas may have."""
    names = pa.DictionaryArray.from_arrays([0, 2, 0], pa.array(["00.Red_Tower", "No_Such_Tower", blank]))
    pq.write_table(pa.table({"image": ["a", "b", "c"], "label": names}), tmp_path / "l.parquet")
    found = evaluate(predictions(tmp_path, Row("a", RED), Row("b", RED), Row("c", GREEN)), tmp_path / "l.parquet")
    account = found.summary.account
    assert (account.labelled, account.blank_labels, account.unknown_classes) == (2, 1, {})
    assert top1(found) == 0.5


def test_an_unknown_class_is_an_error_that_lists_both_sides(tmp_path: Path) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg", "01.Green_Hil/1.jpg")
    assert refusal(predictions(tmp_path, Row("00.Red_Tower/1.jpg", RED)), source) == (
        f"{source}: 1 class name that the model does not have: '01.Green_Hil' (did you mean '01.Green_Hill'?); the "
        "model's classes are 'Red Tower', 'Green Hill', 'Blue Lake'; correct the names"
    )


def test_only_unknown_classes_is_an_error(tmp_path: Path) -> None:
    source = labels(tmp_path, "Atlantis/1.jpg")
    options = EvaluateOptions(ignore_unknown_classes=True)
    message = refusal(predictions(tmp_path, Row("Atlantis/1.jpg", RED)), source, options)
    assert "1 class name that the model does not have: 'Atlantis'" in message


def test_a_common_prefix_is_reported_and_stripped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg")
    scored = predictions(tmp_path, Row("test/00.Red_Tower/1.jpg", RED))
    assert refusal(scored, source) == (
        f"{scored}: no predicted image has a label: predictions have 'test/00.Red_Tower/1.jpg', {source} has "
        "'00.Red_Tower/1.jpg'; the predictions' names start with test/"
    )
    assert top1(evaluate(scored, source, EvaluateOptions(strip_prefix="test/"))) == 1.0
    assert not caplog.messages
    plain = predictions(tmp_path, Row("00.Red_Tower/1.jpg", RED))
    assert top1(evaluate(plain, source, EvaluateOptions(strip_prefix="test/"))) == 1.0
    assert caplog.messages == [f"{plain}: no image's name begins with test/"]


def test_a_star_strips_the_name_of_every_tar_shard(tmp_path: Path) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg", "00.Red_Tower/2.jpg")
    rows = [Row("s-001.tar/test/00.Red_Tower/1.jpg", RED), Row("s-002.tar/test/00.Red_Tower/2.jpg", RED)]
    scored = predictions(tmp_path, *rows, Row("s-003.tar/", error_code="unreadable"))
    assert refusal(scored, source).endswith("; the predictions' names start with *.tar/test/")
    evaluation = evaluate(scored, source, EvaluateOptions(strip_prefix="*.tar/test/"))
    assert top1(evaluation) == 1.0
    assert evaluation.outcomes["image"].to_pylist() == [row.image for row in rows]
    account = evaluation.summary.account
    assert (account.scored, account.unlabelled_examples) == (2, ("s-003.tar/",))


def test_a_prefix_that_makes_names_equal_is_rejected(tmp_path: Path) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg")
    scored = predictions(tmp_path, Row("a.tar/00.Red_Tower/1.jpg", RED), Row("b.tar/00.Red_Tower/1.jpg", RED))
    assert refusal(scored, source, EvaluateOptions(strip_prefix="*.tar/")) == (
        f"{scored}: without the prefix *.tar/, several images are called '00.Red_Tower/1.jpg'; give a table of labels "
        f"with the images' names as in the predictions"
    )


def test_the_most_frequent_prefix_is_reported(tmp_path: Path) -> None:
    names = [f"00.Red_Tower/{number}.jpg" for number in range(3)]
    rows = [Row(f"test/{names[0]}", RED), *(Row(f"train/{name}", RED) for name in names)]
    message = refusal(predictions(tmp_path, *rows), labels(tmp_path, *names))
    assert message.endswith("; the predictions' names start with train/")


def test_a_prefix_of_the_labels_is_reported(tmp_path: Path) -> None:
    source = labels(tmp_path, "test/00.Red_Tower/1.jpg")
    scored = predictions(tmp_path, Row("00.Red_Tower/1.jpg", RED))
    message = refusal(scored, source)
    assert message.endswith("; the labels' names start with test/: give that folder, or names without it")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labelled=st.dictionaries(st.integers(0, 12), st.sampled_from(["00.Red_Tower", "Blue Lake", "7.Blue_Lake", "Mars"])),
    predicted=st.dictionaries(st.integers(0, 12), st.sampled_from([RED, GREEN, BLUE, ()])),
)
def test_the_account_adds_up(tmp_path: Path, labelled: dict[int, str], predicted: dict[int, tuple[float, ...]]) -> None:
    """For all labels and predictions, each image is counted exactly once per side."""
    rows = [Row(f"{number}.jpg", answer, None if answer else "empty") for number, answer in predicted.items()]
    path = predictions(tmp_path, *rows)
    table = tmp_path / "l.csv"
    table.write_text("image,label\n" + "".join(f"{number}.jpg,{name}\n" for number, name in labelled.items()))
    options = EvaluateOptions(ignore_unknown_classes=True, resamples=200)
    known = {number for number, name in labelled.items() if name != "Mars"}
    if not known & set(predicted):
        with pytest.raises(UsageError):
            evaluate(path, table, options)
        return
    evaluation = evaluate(path, table, options)
    account = evaluation.summary.account
    both = known & set(predicted)
    assert evaluation.outcomes["image"].to_pylist() == [f"{number}.jpg" for number in predicted if number in both]
    assert account.scored == sum(bool(predicted[number]) for number in both)
    assert account.failed == len(both) - account.scored
    unknown = account.unknown_classes.get("Mars", 0)
    assert account.labelled == account.scored + account.failed + account.unpredicted + unknown
    assert account.unlabelled == len(set(predicted) - set(labelled))
    assert account.unpredicted == len(known - set(predicted))


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ((Row("x.jpg", RED),), ("a/y.jpg",), "no predicted image has a label: predictions have 'x.jpg'"),
        (
            (Row("x.jpg", RED),),
            ("a/readme.txt",),
            "holds no labelled image",
        ),
        ((), ("a/y.jpg",), "holds no predictions; there is nothing to evaluate"),
    ],
)
def test_nothing_in_common(tmp_path: Path, rows: tuple[Row, ...], names: tuple[str, ...], message: str) -> None:
    assert message in refusal(predictions(tmp_path, *rows), labels(tmp_path, *names))


def test_invalid_predictions_are_rejected(tmp_path: Path) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg")
    path = tmp_path / "x.parquet"
    assert refusal(path, source) == f"{path}: does not exist; give predictions that `batchland score` wrote"
    path.write_bytes(b"not Parquet at all")
    assert refusal(path, source).startswith(f"{path}: cannot be read as Parquet (")
    assert refusal(source, source) == (
        f"{source}: holds no _manifest.json, so no finished run of `batchland score`; run it again to finish it"
    )
    (source / "_manifest.json").write_text("[]")
    assert "not a manifest that this version of batchland can read; restore it, or delete" in refusal(source, source)
    report = evaluate(predictions(tmp_path, Row("00.Red_Tower/1.jpg", RED)), source)
    import pyarrow.parquet as pq

    pq.write_table(report.outcomes, path)
    assert refusal(path, source) == (
        f"{path}: not a predictions file (no column 'error_message'); give predictions that `batchland score` wrote"
    )


@pytest.mark.parametrize("probabilities", [(0.9, 0.1, -0.2), (0.9, float("nan"), 0), (1.5, 0, 0), None])
def test_impossible_probabilities_are_rejected(tmp_path: Path, probabilities: tuple[float, ...] | None) -> None:
    rows = [Row("00.Red_Tower/1.jpg", RED), Row("00.Red_Tower/2.jpg", probabilities or RED)]
    path = predictions(tmp_path, *rows)
    if probabilities is None:
        add_log_probabilities(path, np.array([[0.8, 0.1, 0.1], [0.8, np.nan, 0.1]]))
    assert refusal(path, labels(tmp_path, *(row.image for row in rows))) == (
        f"{path}: has probabilities that are not from 0 to 1; score the images again"
    )


def test_duplicate_images_are_rejected(tmp_path: Path) -> None:
    scored = predictions(tmp_path, Row("00.Red_Tower/1.jpg", RED), Row("00.Red_Tower/1.jpg", BLUE))
    assert "holds 00.Red_Tower/1.jpg twice; score each image once" in refusal(
        scored, labels(tmp_path, "00.Red_Tower/1.jpg")
    )


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_image_names_match(tmp_path: Path, forms: tuple[str, str]) -> None:
    scored, labelled = (unicodedata.normalize(form, "Cafés/é.jpg") for form in forms)
    table = tmp_path / "l.csv"
    table.write_text(f"image,label\n{labelled},Red Tower\n")
    evaluation = evaluate(predictions(tmp_path, Row(scored, RED)), table)
    assert evaluation.outcomes["image"].to_pylist() == [scored]


def test_two_images_that_differ_by_their_unicode_form_are_two_images(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    table = tmp_path / "l.csv"
    table.write_text(f"image,label\n{names[0]},Red Tower\n{names[1]},Blue Lake\n")
    evaluation = evaluate(predictions(tmp_path, Row(names[0], RED), Row(names[1], BLUE)), table)
    assert evaluation.outcomes["correct"].to_pylist() == [True, True]


def test_the_labels_fingerprint_is_independent_of_the_class_order(tmp_path: Path) -> None:
    source = labels(tmp_path, "00.Red_Tower/1.jpg", "01.Green_Hill/1.jpg")
    rows = (Row("00.Red_Tower/1.jpg", RED), Row("01.Green_Hill/1.jpg", RED))
    one = write_predictions(tmp_path / "1.parquet", FOLDERS, rows)
    other = write_predictions(tmp_path / "2.parquet", FOLDERS[::-1], rows[::-1])
    fewer = write_predictions(tmp_path / "3.parquet", FOLDERS, rows[:1])
    prints = [evaluate(path, source).summary.labels.fingerprint for path in (one, other, fewer)]
    assert prints[0] == prints[1] != prints[2]


def test_folders_of_shards_or_partitions_are_rejected(tmp_path: Path) -> None:
    source, out = labels(tmp_path, "00.Red_Tower/1.jpg"), tmp_path / "out"
    (out / "shard-00000-of-00002").mkdir(parents=True)
    assert refusal(out, source) == f"{out}: holds shards; run `batchland merge`, and give its output"
    with pytest.raises(UsageError, match="holds shards; run `batchland merge`"):
        find_duplicates([out])
    (out / "shard-00000-of-00002").rmdir()
    for day in (24, 23):
        (out / f"date=2026-11-{day}").mkdir()
    assert refusal(out, source) == (
        f"{out}: holds the partitions of a job, each of them a separate run; give one, like date=2026-11-24"
    )


def test_the_same_seed_gives_the_same_evaluation(tmp_path: Path) -> None:
    source = labels(tmp_path, *(f"00.Red_Tower/{number}.jpg" for number in range(9)))
    rows = [Row(f"00.Red_Tower/{number}.jpg", RED if number % 3 else BLUE) for number in range(9)]
    scored = predictions(tmp_path, *rows)
    kept = [evaluate(scored, source).summary.model_dump(exclude={"created_at"}) for _ in range(2)]
    assert kept[0] == kept[1]
    other = evaluate(scored, source, EvaluateOptions(seed=1)).summary.figures
    assert other.top1 == evaluate(scored, source).summary.figures.top1


@pytest.mark.parametrize(
    "options",
    [{"confidence": 1.0}, {"confidence": 0.1}, {"resamples": 10}, {"bins": 1}, {"seed": -1}, {"confidense": 0.9}],
)
def test_invalid_options_are_rejected(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        EvaluateOptions(**options)  # type: ignore[arg-type]


def test_the_toy_model_is_scored_and_evaluated_as_file_and_as_folder(
    tmp_path: Path, toy_model: Path, colour_folders: Path
) -> None:
    """Red, green and blue are named right; a blue picture among the green and a broken file are not."""
    (colour_folders / "01.Green_Hill" / "9.png").write_bytes(picture((0, 0, 255), kind="PNG"))
    (colour_folders / "02.Blue_Lake" / "9.jpg").write_bytes(picture()[:300])
    found = []
    for out in ("preds.parquet", "parts"):
        options = batchland.ScoreOptions(model=toy_model, part_size=4, batch_size=2)
        batchland.score(colour_folders, tmp_path / out, options)
        found.append(batchland.evaluate(tmp_path / out, colour_folders))
    one, other = found
    assert one.summary.figures == other.summary.figures
    assert one.outcomes.equals(other.outcomes)
    assert one.summary.account == LabelAccount(predicted=11, labelled=11, scored=10, failed=1, **NOTHING)
    assert top1(one) == 0.9
    assert one.mistakes.select(["image", "true_label", "predicted_label"]).to_pylist() == [
        {"image": "01.Green_Hill/9.png", "true_label": "Green Hill", "predicted_label": "Blue Lake"}
    ]
    assert [group.error_code for group in one.summary.failures] == ["truncated"]
    assert one.summary.model.name == "toy"
    assert one.image_root == colour_folders.resolve()

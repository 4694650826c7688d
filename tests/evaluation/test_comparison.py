"""Two evaluations of the same images: paired by name, figures with intervals, classes, images that changed."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import Row, delivery, random_case, write_arrays, write_label_folders, write_predictions
from scipy.stats import bootstrap
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from batchland.errors import UsageError
from batchland.evaluation.comparison import Comparison, compare
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import CompareOptions
from batchland.evaluation.report_names import different_names
from batchland.evaluation.saved import read_report
from batchland.evaluation.schema import CLASS_CHANGES, FLIPS, PairAccount
from batchland.models.card import class_names
from batchland.report.comparison_text import comparison_terminal_text
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
RED, GREEN, BLUE = (0.8, 0.1, 0.1), (0.1, 0.7, 0.2), (0.1, 0.3, 0.6)


def evaluation(folder: Path, *rows: Row, folders: tuple[str, ...] = FOLDERS, model: str = "toy") -> Evaluation:
    predictions = write_predictions(folder / "preds.parquet", folders, rows, model=model)
    labels = write_label_folders(folder / "labels", [row.image for row in rows])
    return evaluate(predictions, labels)


def changed(tmp_path: Path) -> Comparison:
    """Of Red 2 and Green 3 images: one broken, two fixed (one of them surely wrong before), one moved, one alike."""
    before = (
        Row("00.Red_Tower/1.jpg", RED),
        Row("00.Red_Tower/2.jpg", RED),
        Row("01.Green_Hill/1.jpg", BLUE),
        Row("01.Green_Hill/2.jpg", RED),
        Row("01.Green_Hill/3.jpg", RED),
    )
    answers = (RED, GREEN, GREEN, GREEN, BLUE)
    after = [Row(row.image, answer) for row, answer in zip(before, answers, strict=True)]
    return compare(evaluation(tmp_path / "a", *before), evaluation(tmp_path / "b", *after, model="other"))


def test_flips(tmp_path: Path) -> None:
    comparison = changed(tmp_path)
    names = ("image", "true_label", "change", "predicted_a", "probability_a", "predicted_b", "probability_b")
    assert [tuple(row.values()) for row in comparison.flips.select(names).to_pylist()] == [
        ("00.Red_Tower/2.jpg", "Red Tower", "broken", "Red Tower", *approx(0.8), "Green Hill", *approx(0.7)),
        ("01.Green_Hill/2.jpg", "Green Hill", "fixed", "Red Tower", *approx(0.8), "Green Hill", *approx(0.7)),
        ("01.Green_Hill/1.jpg", "Green Hill", "fixed", "Blue Lake", *approx(0.6), "Green Hill", *approx(0.7)),
        ("01.Green_Hill/3.jpg", "Green Hill", "moved", "Red Tower", *approx(0.8), "Blue Lake", *approx(0.6)),
    ]
    assert comparison.flips["true_probability_a"].to_pylist() == pytest.approx([0.8, 0.1, 0.3, 0.1])
    assert comparison.flips["file_size"].to_pylist() == [50_000] * 4
    assert comparison.flips.schema.equals(FLIPS)
    assert comparison.summary.flips == {"broken": 1, "fixed": 2, "moved": 1}


def approx(value: float) -> tuple[object]:
    return (pytest.approx(value),)


def test_intervals_of_differences_stay_between_minus_one_and_one(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.jpg" for folder in FOLDERS for number in (1, 2)]
    right = (RED, RED, GREEN, GREEN, BLUE, BLUE)
    wrong = (GREEN, GREEN, RED, RED, RED, BLUE)
    pair = [evaluation(tmp_path / side, *map(Row, names, answers)) for side, answers in (("a", right), ("b", wrong))]
    figures = dict(compare(*pair).summary.figures)
    lows = {name: change.low for name, change in figures.items() if change and change.low is not None}
    assert lows["balanced_accuracy"] == -1
    assert min(low for name, low in lows.items() if name != "log_loss") >= -1


def test_agreement(tmp_path: Path) -> None:
    agreement = changed(tmp_path).summary.agreement
    assert agreement.model_dump() == {
        "both_right": 1, "only_a_right": 1, "only_b_right": 2, "both_wrong": 1, "p_value": 1.0,
    }  # fmt: skip


def test_per_class_table(tmp_path: Path) -> None:
    table = changed(tmp_path).per_class
    assert table.schema.equals(CLASS_CHANGES)
    rows = table.to_pylist()
    bounds = [(row.pop("difference_low"), row.pop("difference_high")) for row in rows]
    assert rows == [
        {
            "label": "Red Tower", "support": 2, "accuracy_a": 1.0, "accuracy_b": 0.5, "difference": -0.5,
            "only_a_right": 1, "only_b_right": 0, "p_value": 1.0, "p_adjusted": 1.0,
            "f1_a": pytest.approx(2 / 3), "f1_b": pytest.approx(2 / 3),
        },
        {
            "label": "Green Hill", "support": 3, "accuracy_a": 0.0, "accuracy_b": pytest.approx(2 / 3),
            "difference": pytest.approx(2 / 3), "only_a_right": 0, "only_b_right": 2, "p_value": 0.5,
            "p_adjusted": 1.0, "f1_a": 0.0, "f1_b": pytest.approx(2 / 3),
        },
        {
            "label": "Blue Lake", "support": 0, "accuracy_a": None, "accuracy_b": None, "difference": None,
            "only_a_right": 0, "only_b_right": 0, "p_value": None, "p_adjusted": None, "f1_a": None, "f1_b": None,
        },
    ]  # fmt: skip
    assert bounds[2] == (None, None)
    assert bounds[0][0] < -0.5 < bounds[0][1]


def test_images_that_cannot_be_compared_are_counted(tmp_path: Path) -> None:
    labels = tmp_path / "l.csv"
    names = ("both", "alone", "broken in a", "broken in b", "broken in both", "relabelled")
    labels.write_text("image,label\n" + "".join(f"{name},Red Tower\n" for name in names))
    bad = {"error_code": "empty"}
    one = write_predictions(
        tmp_path / "a.parquet", FOLDERS,
        [
            Row("both", RED), Row("alone", RED), Row("broken in a", **bad), Row("broken in b", RED),
            Row("broken in both", **bad), Row("relabelled", RED),
        ],
    )  # fmt: skip
    a = evaluate(one, labels)
    labels.write_text(labels.read_text().replace("relabelled,Red Tower", "relabelled,Sea") + "new,Red Tower\n")
    two = write_predictions(
        tmp_path / "b.parquet", ("00.Red_Tower", "05.Sea"),
        [
            Row("both", (0.2, 0.8)), Row("broken in a", (0.2, 0.8)), Row("broken in b", **bad),
            Row("broken in both", **bad), Row("relabelled", (0.2, 0.8)), Row("new", (0.2, 0.8)),
        ],
    )  # fmt: skip
    comparison = compare(a, evaluate(two, labels))
    assert comparison.summary.account == PairAccount(
        images_a=6,
        images_b=6,
        paired=1,
        only_a=1,
        only_b=1,
        relabelled=1,
        failed_a=1,
        failed_b=1,
        failed_both=1,
        classes=4,
        classes_only_a=("Green Hill", "Blue Lake"),
        classes_only_b=("Sea",),
    )
    assert comparison.flips.select(["image", "change", "predicted_a", "predicted_b"]).to_pylist() == [
        {"image": "both", "change": "broken", "predicted_a": "Red Tower", "predicted_b": "Sea"}
    ]


def test_evaluations_without_a_common_image_are_rejected(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "a", Row("00.Red_Tower/1.jpg", RED))
    other = evaluation(tmp_path / "b", Row("00.Red_Tower/2.jpg", RED))
    with pytest.raises(UsageError) as caught:
        compare(one, other)
    assert str(caught.value) == (
        f"{tmp_path}/a/preds.parquet and {tmp_path}/b/preds.parquet: no image was scored with the same label in both "
        "(1 and 1 images, 0 of them in both); compare runs over the same images"
    )


def test_the_same_predictions_with_other_labels_are_told_apart(tmp_path: Path) -> None:
    one = evaluation(tmp_path, Row("00.Red_Tower/1.jpg", RED))
    (tmp_path / "labels.csv").write_text("image,label\n00.Red_Tower/1.jpg,01.Green_Hill\n")
    other = evaluate(tmp_path / "preds.parquet", tmp_path / "labels.csv")
    with pytest.raises(UsageError) as caught:
        compare(one, other)
    assert str(caught.value) == (
        f"{tmp_path}/preds.parquet with labels {tmp_path}/labels and {tmp_path}/preds.parquet with labels "
        f"{tmp_path}/labels.csv: no image was scored with the same label in both (1 and 1 images, 1 of them in both); "
        "compare runs over the same images"
    )
    assert different_names([one, other]) == ["labels", "labels.csv"]


def test_classes_are_matched_by_label(tmp_path: Path) -> None:
    """Model B has the classes in reverse: by index all would be wrong, by name nothing has changed."""
    rows = [Row(f"{FOLDERS[index % 3]}/{index}.jpg", (RED, GREEN, BLUE)[index % 3]) for index in range(9)]
    reverse = [Row(row.image, row.probabilities[::-1]) for row in rows]
    a, b = evaluation(tmp_path / "a", *rows), evaluation(tmp_path / "b", *reverse[::-1], folders=FOLDERS[::-1])
    comparison = compare(a, b)
    assert comparison.flips.num_rows == 0
    assert comparison.per_class["label"].to_pylist() == ["Red Tower", "Green Hill", "Blue Lake"]
    assert [change.difference for _, change in comparison.summary.figures if change] == [0.0] * 10


def test_composed_and_decomposed_labels_are_one_class(tmp_path: Path) -> None:
    """Of models trained on Linux and on a Mac."""
    folders, others = (("Caf\u00e9", *FOLDERS[1:]), ("Cafe\u0301", *FOLDERS[1:]))
    rows = [Row(f"{folders[index % 3]}/{index}.jpg", (RED, GREEN, BLUE)[index % 3]) for index in range(9)]
    a, b = (evaluation(tmp_path / name, *rows, folders=each) for name, each in (("a", folders), ("b", others)))
    comparison = compare(a, b)
    account = comparison.summary.account
    assert (account.paired, account.relabelled, account.classes_only_a, account.classes_only_b) == (9, 0, (), ())
    assert comparison.per_class["label"].to_pylist() == ["Caf\u00e9", "Green Hill", "Blue Lake"]


def _answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, and A's and B's probabilities, of 800 images of 6 classes."""
    truth, first = random_case(6, 800, accuracy=0.4, seed=1)
    noise = np.random.default_rng(2).normal(0, 1, first.shape)
    second = first**0.9 * np.exp(noise)
    second[np.arange(800), truth] *= 1.6
    second /= second.sum(axis=1, keepdims=True)
    return truth, first, second


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> list[Evaluation]:
    """Evaluations of A and B, all probabilities kept."""
    folder = tmp_path_factory.mktemp("case")
    truth, *answers = _answers()
    names = [f"{index}.jpg" for index in range(800)]
    labels = folder / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{n},{'abcdef'[t]}\n" for n, t in zip(names, truth, strict=True)))
    sides = []
    for name, probabilities in zip("ab", answers, strict=True):
        path = write_arrays(
            folder / f"{name}.parquet", class_names(list("abcdef")), names, probabilities.astype(np.float32), top_k=6
        )
        sides.append(evaluate(path, labels))
    return sides


@pytest.fixture(scope="module")
def case(sides: list[Evaluation]) -> tuple[np.ndarray, np.ndarray, np.ndarray, Comparison]:
    """(truth, A's and B's predictions, their comparison)."""
    truth, first, second = _answers()
    return truth, first.argmax(1), second.argmax(1), compare(*sides)


def test_figures_equal_those_of_the_evaluations(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    truth, a, b, comparison = case
    figures = comparison.summary.figures
    assert (figures.top1.a, figures.top1.b) == pytest.approx(((a == truth).mean(), (b == truth).mean()))
    assert (figures.macro_f1.a, figures.macro_f1.b) == pytest.approx(
        [f1_score(truth, each, average="macro") for each in (a, b)]
    )
    for _, change in figures:
        assert change is not None
        assert change.difference == pytest.approx(change.b - change.a)
        assert change.low is None or change.low <= change.difference <= change.high


def test_accuracy_interval_equals_scipy_s_paired_bootstrap(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    """Ours keeps each class's number of images, which changes little here."""
    truth, a, b, comparison = case
    sides = ((a == truth).astype(float), (b == truth).astype(float))
    theirs = bootstrap(
        sides, lambda x, y, axis: y.mean(axis) - x.mean(axis), paired=True, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    top1 = comparison.summary.figures.top1
    assert (top1.low, top1.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_macro_f1_interval_equals_a_bootstrap_of_images(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    truth, a, b, comparison = case
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(truth == index) for index in range(6)]

    def macro_f1(answers: np.ndarray, images: np.ndarray) -> float:
        counts = np.bincount(6 * truth[images] + answers[images], minlength=36).reshape(6, 6)
        return float((2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))).mean())

    samples = []
    for _ in range(300):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        samples.append(macro_f1(b, drawn) - macro_f1(a, drawn))
    change = comparison.summary.figures.macro_f1
    assert (change.low, change.high) == pytest.approx(np.quantile(samples, [0.025, 0.975]).tolist(), abs=0.008)


def test_p_values_equal_statsmodels(case: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison]) -> None:
    truth, a, b, comparison = case

    def exact(images: np.ndarray) -> float:
        right_a, right_b = (a == truth)[images], (b == truth)[images]
        table = [[(right_a & right_b).sum(), (right_a & ~right_b).sum()], [(~right_a & right_b).sum(), 0]]
        return float(mcnemar(table, exact=True).pvalue)

    assert comparison.summary.agreement.p_value == pytest.approx(exact(np.ones(800, bool)))
    raw = [exact(truth == index) for index in range(6)]
    assert comparison.per_class["p_value"].to_pylist() == pytest.approx(raw)
    assert comparison.per_class["p_adjusted"].to_pylist() == pytest.approx(
        multipletests(raw, method="holm")[1].tolist()
    )


def test_saved_reports_compare_like_their_evaluations(tmp_path: Path) -> None:
    rows = [Row(f"00.Red_Tower/{index}.jpg", RED if index % 3 else GREEN) for index in range(12)]
    a = evaluation(tmp_path / "a", *rows)
    b = evaluation(tmp_path / "b", *(Row(row.image, RED) for row in rows))
    for side, name in ((a, "report-a"), (b, "report-b")):
        write_report(side, tmp_path / name)
    direct, read = compare(a, b), compare(read_report(tmp_path / "report-a"), read_report(tmp_path / "report-b"))
    assert direct.summary.figures == read.summary.figures
    assert direct.flips.equals(read.flips)
    assert direct.per_class.equals(read.per_class)
    assert (direct.summary.a.report, read.summary.a.report) == (None, str(tmp_path / "report-a"))


def test_names_of_the_sides(tmp_path: Path) -> None:
    row = Row("00.Red_Tower/1.jpg", RED)
    same = [evaluation(tmp_path / night, row) for night in ("monday", "tuesday")]
    summary = compare(*same).summary
    assert (summary.a.name, summary.b.name) == ("monday", "tuesday")  # one model, one file name, two folders
    other = evaluation(tmp_path / "x", row, model="transfer")
    summary = compare(same[0], other).summary
    assert (summary.a.name, summary.b.name) == ("toy", "transfer")
    summary = compare(same[0], same[0]).summary
    assert (summary.a.name, summary.b.name) == ("toy (1)", "toy (2)")


def test_the_same_seed_gives_the_same_intervals(tmp_path: Path) -> None:
    one, two = changed(tmp_path / "1"), changed(tmp_path / "2")
    assert one.summary.figures == two.summary.figures
    alike = evaluation(tmp_path / "3", Row("00.Red_Tower/1.jpg", RED))
    summary = compare(alike, alike, CompareOptions(resamples=300)).summary
    assert (summary.figures.mean_confidence.low, summary.resamples) == (0.0, 300)


def test_images_of_a_renamed_delivery_are_paired_by_content(tmp_path: Path) -> None:
    red, green = "00.Red_Tower", "01.Green_Hill"
    a = {f"{red}/1.jpg": "c1", f"{red}/2.jpg": "c2", f"{red}/3.jpg": "c3", f"{red}/4.jpg": "c3", f"{green}/5.jpg": "c5",
         f"{red}/6.jpg": None}  # fmt: skip
    b = {f"{red}/1.jpg": "new", f"{red}/b.jpg": "c2", f"{red}/c.jpg": "c3", f"{red}/e.jpg": "c5", f"{red}/f.jpg": None}
    comparison = compare(delivery(tmp_path / "a", FOLDERS, a, RED), delivery(tmp_path / "b", FOLDERS, b, GREEN))
    account = comparison.summary.account
    assert (account.paired, account.by_content, account.only_a, account.only_b, account.relabelled) == (3, 3, 2, 1, 1)
    assert sorted(comparison.flips["image"].to_pylist()) == [f"{red}/{number}.jpg" for number in (1, 2, 3)]
    text = comparison_terminal_text(comparison)
    assert "note: 3 images with different paths, but the same content, compared with each other.\n" in text


def test_swapped_sides_give_the_mirrored_comparison(sides: list[Evaluation]) -> None:
    ahead, back = compare(*sides).summary.figures, compare(*sides[::-1]).summary.figures
    for (name, change), (_, other) in zip(ahead, back, strict=True):
        assert change is not None, name
        assert other is not None, name
        expected = (change.b, change.a, -change.difference, -change.high, -change.low)
        assert (other.a, other.b, other.difference, other.low, other.high) == pytest.approx(expected, abs=1e-12), name


def test_identical_sides_differ_by_exactly_nothing(sides: list[Evaluation]) -> None:
    comparison = compare(sides[0], sides[0])
    assert {(each.difference, each.low, each.high) for _, each in comparison.summary.figures} == {(0.0, 0.0, 0.0)}
    columns = ("difference", "difference_low", "difference_high")
    assert {tuple(row.values()) for row in comparison.per_class.select(columns).to_pylist()} == {(0.0, 0.0, 0.0)}

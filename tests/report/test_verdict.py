"""The verdict: by gates and baseline, against chance, what changed, what to do; nothing beyond what chance explains."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import Row, write_label_folders, write_predictions
from scipy.stats import binomtest, fisher_exact

from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.gates import check_gates, parse_gate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.saved import read_report
from batchland.report.changes import Baseline, changes
from batchland.report.evaluation_text import evaluation_markdown, evaluation_terminal_text
from batchland.report.verdict import verdict
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")


def made(
    folder: Path, right: dict[int, tuple[int, int]], *, model: str = "toy", start: int = 0, failed: int = 0
) -> Evaluation:
    """right: class -> (right, all); wrong ones are given the next class with little confidence."""
    rows = [
        Row(f"{FOLDERS[index]}/{start + number}.jpg", np.roll((0.6, 0.3, 0.1), index + (number >= hits)))
        for index, (hits, of) in right.items()
        for number in range(of)
    ]
    rows += [Row(f"{FOLDERS[0]}/broken{number}.jpg", error_code="truncated") for number in range(failed)]
    predictions = write_predictions(folder / f"{model}{start}.parquet", FOLDERS, rows, model=model)
    labels = write_label_folders(folder / f"labels{start}", [row.image for row in rows])
    return evaluate(predictions, labels)


GOOD = {0: (90, 100), 1: (90, 100), 2: (90, 100)}
WORSE = {0: (90, 100), 1: (60, 100), 2: (89, 100)}


def judge(evaluation: Evaluation, *gates: str, baseline: Baseline | None = None) -> tuple[str, str]:
    found = verdict(evaluation, check_gates([parse_gate(text) for text in gates], evaluation), baseline)
    return found.kind, found.text


def test_gates_alone(tmp_path):
    good = made(tmp_path, GOOD)
    assert judge(good) == ("open", "No gates were set, so only you can say whether this is good enough.")
    assert judge(good, "top1 < 0.5") == ("passed", "Passes the gate.")
    assert judge(good, "top1 < 0.5", "failed > 3") == ("passed", "Passes all 2 gates.")
    assert judge(good, "top1 < 0.95", "failed > 3") == ("failed", "Fails 1 of 2 gates.")


def test_against_the_baseline(tmp_path):
    good, worse = made(tmp_path, GOOD, model="a"), made(tmp_path, WORSE, model="b")
    before = Baseline(good, "monday")
    p = binomtest(31, 31).pvalue  # only the earlier one is right for 31 images, the later one for none
    text = "Worse than monday by more than chance: 90.0% to 79.7% of the same 300, \u221210.3 points (p < 0.001)."
    assert p < 0.001
    assert judge(worse, baseline=before) == ("failed", text)
    assert judge(worse, "top1 < 0.5", baseline=before) == ("warning", "Passes the gate, but is worse than monday.")
    assert judge(worse, "top1 < 0.9", baseline=before) == ("failed", "Fails the gate.")
    found = changes(worse, before)
    assert found is not None
    assert (found.worse, found.paired, found.p_value) == (True, True, pytest.approx(p))
    assert [*found.sentences] == [
        text,
        "Worse by more than chance, classes: Green Hill (90.0% to 60.0%).",
        "The model is the same, the images are the same.",
    ]
    better = changes(good, Baseline(worse, "monday"))
    assert better is not None
    assert (better.worse, better.text[:35]) == (False, "Better than monday by more than cha")
    assert judge(good, baseline=Baseline(worse, "monday")) == ("passed", "Not worse than monday by more than chance.")


def test_images_that_are_not_compared_with_the_baseline_are_counted(tmp_path):
    good = made(tmp_path, GOOD)
    corrections = tmp_path / "c.csv"
    corrections.write_text("path,label,decision\n00.Red_Tower/99.jpg,Green Hill,wrong\n")
    evaluation = evaluate(tmp_path / "toy0.parquet", tmp_path / "labels0", EvaluateOptions(corrections=corrections))
    found = changes(evaluation, Baseline(good, "monday"))
    assert found is not None
    assert "90.3% to 90.3% of the same 299" in found.text
    assert found.cause == "The model is the same, 299 images are the same. Not compared: 1 image with different labels."
    failed = changes(made(tmp_path, GOOD, failed=2), Baseline(evaluation, "monday"))
    assert failed is not None
    assert failed.cause == (
        "The model is the same, 299 images are the same. Not compared: 1 image with different labels, "
        "2 images that only one of the two scored."
    )


@pytest.mark.parametrize(("failed", "why"), [(0, ""), (2, "was scored in both and ")])
def test_nothing_is_compared_if_all_labels_are_different(tmp_path, failed, why):
    """Even if the accuracies differ by more than chance, as after a shift of the classes."""
    names = [f"{folder}/{number}.jpg" for folder in FOLDERS for number in range(100)]
    names += [f"{FOLDERS[0]}/broken{number}.jpg" for number in range(failed)]
    good = made(tmp_path, GOOD, failed=failed)
    table = tmp_path / "shifted.csv"
    shifted = {name: FOLDERS[(FOLDERS.index(name[: name.index("/")]) + ("broken" not in name)) % 3] for name in names}
    table.write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in shifted.items()))
    other = evaluate(tmp_path / "toy0.parquet", table)
    text = f"Nothing can be compared with monday: none of the same {300 + failed} {why}has the same label."
    same = f"The model is the same, {300 + failed} images are the same."
    for evaluation, before in ((other, good), (good, other)):
        found = verdict(evaluation, (), Baseline(before, "monday"))
        assert (found.kind, found.text) == ("open", text)
        assert found.changed == (f"{same} Not compared: 300 images with different labels.",)
        assert found.changes is not None
        assert (found.changes.worse, found.changes.p_value) == (False, None)
        assert judge(evaluation, "top1 < 0.01", baseline=Baseline(before, "monday")) == ("passed", "Passes the gate.")


def test_a_difference_within_chance_is_none(tmp_path):
    good, similar = made(tmp_path, GOOD), made(tmp_path, GOOD | {2: (88, 100)}, model="b")
    p = binomtest(2, 2).pvalue
    found = changes(similar, Baseline(good, "monday"))
    assert found is not None
    assert (found.worse, found.classes) == (False, ())
    assert found.text == (
        "Not different from monday by more than chance: 90.0% to 89.3% of the same 300, \u22120.7 points "
        f"(p = {p:.3f})."
    )


def test_other_images_are_compared_as_independent_samples(tmp_path):
    good, other = made(tmp_path, GOOD), made(tmp_path, {0: (90, 100), 1: (75, 100), 2: (90, 100)}, start=1000)
    p = fisher_exact([[270, 30], [255, 45]]).pvalue
    found = changes(other, Baseline(good, "monday"))
    assert p > 0.05
    assert found is not None
    assert (found.worse, found.paired, found.p_value) == (False, False, pytest.approx(p))
    assert [*found.sentences] == [
        "Not different from monday by more than chance: 90.0% to 85.0% of other images, \u22125.0 points "
        f"(p = {p:.3f}).",
        "Worse by more than chance, classes: Green Hill (90.0% to 75.0%).",
        "The model is the same, the images are others.",
    ]
    p_class = fisher_exact([[90, 10], [75, 25]]).pvalue
    assert p_class < 0.05 / 3


def test_a_part_of_the_baseline_is_compared_image_by_image(tmp_path):
    """The baseline has 300 images; 200 of them are evaluated again, then 200 of them and 100 others."""
    good, part = made(tmp_path, GOOD), made(tmp_path, {0: (90, 100), 1: (90, 100)}, model="b")
    found = changes(part, Baseline(good, "monday"))
    assert found is not None
    assert (found.paired, found.before, found.now, found.p_value) == (True, 0.9, 0.9, 1)
    assert found.cause == (
        "The model is the same, 200 images are the same. Not compared: 100 images that only one of the two scored."
    )
    found = changes(good, Baseline(part, "monday"))
    assert found is not None
    assert [*found.sentences] == [
        "Not different from monday by more than chance: 90.0% to 90.0% of partly other images, 0.0 points (p = 1.000).",
        "The model is the same, only 200 of 300 images are the same.",
    ]


@pytest.mark.slow
def test_chance_alone_is_rarely_a_change(tmp_path):
    """Of 200 pairs of test sets of the same model, 5% may differ in accuracy, and 5% in some class."""
    rng = np.random.default_rng(1)

    class Drawn:
        def __init__(self) -> None:
            right = rng.binomial(50, 0.8, 3)
            self.evaluation = made_counts(right)

    def made_counts(right):
        base = made(tmp_path, {0: (1, 2), 1: (1, 2), 2: (1, 2)}, start=int(rng.integers(1_000_000)))
        table = base.per_class
        columns = {"support": [50, 50, 50], "correct": right.tolist()}
        for name, values in columns.items():
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), [values])
        return type("Counts", (), {"summary": base.summary, "per_class": table, "outcomes_file": base.outcomes_file})()

    found = [changes(Drawn().evaluation, Baseline(Drawn().evaluation, "x")) for _ in range(60)]
    assert sum(each.text.startswith(("Worse", "Better")) for each in found if each) <= 8
    assert sum(bool(each.classes) for each in found if each) <= 8


def test_against_always_the_same_answer(tmp_path):
    lopsided = made(tmp_path, {0: (95, 100), 1: (2, 5), 2: (1, 5)})
    p = binomtest(3, 8).pvalue  # right alone: the model for 3 images, the constant answer for 5
    assert verdict(lopsided).reasons == (
        f"Not better than always answering Red Tower, which would be right for 90.9%, by more than chance "
        f"(p = {p:.3f}).",
        "110 images are too few to know the accuracy: its interval is 12 points wide.",
    )
    assert verdict(made(tmp_path, GOOD)).reasons == (
        "Better than always answering Red Tower, which would be right for 33.3%.",
    )


def test_what_to_do(tmp_path):
    small = made(tmp_path, {0: (8, 10), 1: (1, 10), 2: (8, 10)}, failed=2)
    gates = check_gates([parse_gate("top1 < 0.9")], small)
    assert verdict(small, gates).actions == (
        "Do not use these answers before the failed gates are explained: begin with the mistakes below.",
        "Repair the 2 failed images (truncated 2), and score again.",
        "Add training images of Green Hill: below the average by more than chance.",
        "Label at most 355 images more: then the accuracy is known within 5 points.",
    )
    assert verdict(made(tmp_path, {0: (1000, 1000), 1: (1000, 1000), 2: (1000, 1000)})).actions == ()


def test_without_a_scored_image(tmp_path):
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, [Row("00.Red_Tower/1.jpg", error_code="empty")])
    labels = write_label_folders(tmp_path / "labels", ["00.Red_Tower/1.jpg"])
    found = evaluate(predictions, labels)
    assert verdict(found).model_dump() == {
        "kind": "failed",
        "text": "No image was scored, so there is nothing to judge.",
        "reasons": (),
        "changed": (),
        "actions": ("Repair the 1 failed image (empty 1), and score again.",),
        "changes": None,
    }
    assert verdict(made(tmp_path, GOOD), (), Baseline(found, "monday")).changed == ()


@pytest.fixture
def said(tmp_path: Path) -> tuple[Evaluation, Baseline]:
    write_report(made(tmp_path, GOOD, model="a"), tmp_path / "report")
    return made(tmp_path, WORSE, model="b"), Baseline(read_report(tmp_path / "report"), "report")


def test_the_terminal_says_the_same(said):
    worse, before = said
    assert evaluation_terminal_text(worse, baseline=before).splitlines()[1:7] == [
        "verdict: Failed. Worse than report by more than chance: 90.0% to 79.7% of the same 300, \u221210.3 points "
        "(p < 0.001).",
        "  Better than always answering Red Tower, which would be right for 33.3%.",
        "  Worse by more than chance, classes: Green Hill (90.0% to 60.0%).",
        "  The model is the same, the images are the same.",
        "to do: Find out what changed before you use these answers.",
        "to do: Add training images of Green Hill: below the average by more than chance.",
    ]


def test_markdown_says_the_same(said):
    worse, before = said
    assert evaluation_markdown(worse, baseline=before).splitlines()[:9] == [
        "## b: evaluation",
        "",
        "**Failed.** Worse than report by more than chance: 90.0% to 79.7% of the same 300, \u221210.3 points "
        "(p \\< 0.001). The first choice is right for 239 of 300 images: 79.7% (95% interval 74.8 to 83.8%).",
        "",
        "- Worse by more than chance, classes: Green Hill (90.0% to 60.0%).",
        "- The model is the same, the images are the same.",
        "- Better than always answering Red Tower, which would be right for 33.3%.",
        "- To do: Find out what changed before you use these answers.",
        "- To do: Add training images of Green Hill: below the average by more than chance.",
    ]

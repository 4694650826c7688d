"""Gates: parsing, checking and error messages."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_data import Row, write_label_folders, write_predictions

from batchland.errors import GateFailedError, UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.gates import Gate, check_gates, parse_gate, raise_if_failed
from batchland.evaluation.saved import Report, read_report
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Sea < Sky")
NO_GATE = 'must be NAME < NUMBER (or <=, >, >=), like "top1 < 0.70" or "drop(top1) > 2%"'
RED, GREEN = (0.8, 0.15, 0.05), (0.1, 0.8, 0.1)


def evaluation(tmp_path: Path, *rows: Row) -> Evaluation:
    predictions = write_predictions(tmp_path / "preds.parquet", FOLDERS, rows, top_k=2)
    return evaluate(predictions, write_label_folders(tmp_path / "labels", [row.image for row in rows]))


@pytest.fixture
def tonight(tmp_path: Path) -> Evaluation:
    """Red: 2 of 2 right; Green: 1 of 2 right, 1 failed; so top1 is 0.75."""
    return evaluation(
        tmp_path / "tonight",
        Row("00.Red_Tower/1.jpg", RED),
        Row("00.Red_Tower/2.jpg", RED),
        Row("01.Green_Hill/1.jpg", GREEN),
        Row("01.Green_Hill/2.jpg", RED),
        Row("01.Green_Hill/3.jpg", error_code="empty"),
    )


@pytest.fixture
def last_night(tmp_path: Path) -> Report:
    """A report in which all five images are right."""
    rows = [Row(f"00.Red_Tower/{number}.jpg", RED) for number in (1, 2)]
    rows += [Row(f"01.Green_Hill/{number}.jpg", GREEN) for number in (1, 2, 3)]
    write_report(evaluation(tmp_path / "last", *rows), tmp_path / "report")
    return read_report(tmp_path / "report")


def verdict(text: str, evaluation: Evaluation, baseline: Report | None = None) -> tuple[bool, str]:
    result = check_gates([parse_gate(text)], evaluation, baseline)[0]
    return result.failed, result.message


@pytest.mark.parametrize(
    ("text", "right", "message"),
    [
        ("top1 < 99.97%", 2999, "top1 is 99.967% (fails if top1 < 99.97%)"),
        ("top1 < 0.9997", 2999, "top1 is 0.99967 (fails if top1 < 0.9997)"),
        ("top1 <= 99.97%", 2999, "top1 is 99.967% (fails if top1 <= 99.97%)"),
        ("failed_rate > 0", 3000, "failed_rate is 0 (fails if failed_rate > 0)"),
        ("top1 < 100%", 2999, "top1 is 99.97% (fails if top1 < 100%)"),
        ("scored < 1e6", 3000, "scored is 3000 (fails if scored < 1e6)"),
        ("drop(top1) > 0.03%", 2999, "top1 went from 100% to 99.967% (fails if drop(top1) > 0.03%)"),
    ],
)
def test_messages_have_the_digits_that_show_the_difference(tmp_path: Path, text: str, right: int, message: str) -> None:
    def made(right: int) -> Report:
        rows = [Row(f"00.Red_Tower/{n}.jpg", RED if n < right else GREEN) for n in range(3)]
        found = evaluation(tmp_path, *rows)
        figures = found.summary.figures
        assert figures.top1 is not None
        top1 = figures.top1.model_copy(update={"value": right / 3000})
        account = found.summary.account.model_copy(update={"scored": 3000})
        summary = found.summary.model_copy(
            update={"figures": figures.model_copy(update={"top1": top1}), "account": account}
        )
        return replace(found, summary=summary)

    assert verdict(text, made(right), made(3000))[1] == message


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("top1 < 0.70", ("top1", False, "<", 0.7)),
        ("  macro_f1<=70%", ("macro_f1", False, "<=", 0.7)),
        ("failed > 10", ("failed", False, ">", 10)),
        ("drop( top1 ) >= 2 %", ("top1", True, ">=", 0.02)),
        ("class[Eiffel Tower].recall < .5", ("class[Eiffel Tower].recall", False, "<", 0.5)),
        ("class[A < B].f1 < 1e-1", ("class[A < B].f1", False, "<", 0.1)),
        ("drop(class[Sea].precision) > 0", ("class[Sea].precision", True, ">", 0)),
        ("drop(top1) > -1%", ("top1", True, ">", -0.01)),
        ("log_loss > 2.5", ("log_loss", False, ">", 2.5)),
    ],
)
def test_gates_are_parsed(text: str, gate: tuple[str, bool, str, float]) -> None:
    assert parse_gate(text) == Gate(text.strip(), *gate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top1", f"gate 'top1': {NO_GATE}"),
        ("top1 == 0.7", f"gate 'top1 == 0.7': {NO_GATE}"),
        ("top1 =< 0.7", f"gate 'top1 =< 0.7': {NO_GATE}"),
        ("class[A < B].f1 <> 1", f"gate 'class[A < B].f1 <> 1': {NO_GATE}"),
        ("top1 < 99", "gate 'top1 < 99': top1 lies between 0 and 1; write 99%"),
        ("class[Sea].f1 < 50", "gate 'class[Sea].f1 < 50': f1 lies between 0 and 1; write 50%"),
        ("drop(top1) > 5", "gate 'drop(top1) > 5': top1 lies between 0 and 1; write 5%"),
        ("drop(top1) > -1", "gate 'drop(top1) > -1': always fails, because drop(top1) lies between -1 and 1"),
        ("drop(top1) < 100%", "gate 'drop(top1) < 100%': always fails, because drop(top1) lies between -1 and 1"),
        ("top1 >= 0", "gate 'top1 >= 0': always fails, because top1 lies between 0 and 1"),
        ("failed >= 0", "gate 'failed >= 0': always fails, because failed is at least 0"),
        ("top1 < 110%", "gate 'top1 < 110%': top1 lies between 0 and 1"),
        ("ece > -1", "gate 'ece > -1': ece lies between 0 and 1"),
        ("brier > 3", "gate 'brier > 3': brier lies between 0 and 2"),
        ("top1 > 100%", "gate 'top1 > 100%': never fails, because top1 lies between 0 and 1"),
        ("brier < 0", "gate 'brier < 0': never fails, because brier lies between 0 and 2"),
        ("failed < -1", "gate 'failed < -1': failed is at least 0"),
        ("scored < 0", "gate 'scored < 0': never fails, because scored is at least 0"),
        ("drop(top1) < -1", "gate 'drop(top1) < -1': never fails, because drop(top1) lies between -1 and 1"),
        ("failed > 5%", "gate 'failed > 5%': failed is a number of images; use failed_rate"),
        (
            "class[Sea].failed > 5%",
            "gate 'class[Sea].failed > 5%': failed is a number of images; leave the % out",
        ),
        ("top1 < 0.7.1", "gate 'top1 < 0.7.1': '0.7.1' is not a number"),
        ("macro_f < 0.7", "gate 'macro_f < 0.7': unknown figure 'macro_f' (did you mean 'macro_f1'?)"),
        ("class[Sea].recal < 1", "gate 'class[Sea].recal < 1': unknown figure 'recal' (did you mean 'recall'?)"),
        (
            "class[Sea].x < 1",
            "gate 'class[Sea].x < 1': unknown figure 'x' (known: accuracy, recall, precision, f1, mean_confidence, "
            "support, failed)",
        ),
    ],
)  # fmt: skip
def test_invalid_gates_are_rejected(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "failed", "found"),
    [
        ("top1 < 0.75", False, "top1 is 0.75"),
        ("top1 <= 75%", True, "top1 is 75%"),
        ("top1 > 0.7", True, "top1 is 0.75"),
        ("failed >= 1", True, "failed is 1"),
        ("unpredicted > 0", False, "unpredicted is 0"),
        ("class[Green Hill].recall < 60%", True, "class[Green Hill].recall is 50%"),
        ("class[00.Red_Tower].precision < 60%", False, "class[00.Red_Tower].precision is 66.67%"),
        ("class[00.Red_Tower].precision < 0.6", False, "class[00.Red_Tower].precision is 0.6667"),
        ("class[Sea < Sky].support > 0", False, "class[Sea < Sky].support is 0"),
    ],
)
def test_gates_are_checked(tonight: Evaluation, text: str, failed: bool, found: str) -> None:
    assert verdict(text, tonight) == (failed, f"{found} (fails if {text})")


def test_drops_compare_with_the_baseline(tonight: Evaluation, last_night: Report) -> None:
    assert verdict("drop(top1) > 0.25", tonight, last_night) == (
        False,
        "top1 went from 1 to 0.75 (fails if drop(top1) > 0.25)",
    )
    assert verdict("drop(class[Green Hill].recall) > 20%", tonight, last_night) == (
        True,
        "class[Green Hill].recall went from 100% to 50% (fails if drop(class[Green Hill].recall) > 20%)",
    )


def test_a_drop_on_another_test_set_is_mentioned(tmp_path: Path, last_night: Report) -> None:
    other = evaluation(tmp_path / "other", Row("00.Red_Tower/7.jpg", GREEN))
    assert verdict("drop(top1) > 0", other, last_night) == (
        True,
        "top1 went from 1 to 0, on other images or labels (fails if drop(top1) > 0)",
    )


def test_a_drop_needs_a_baseline(tonight: Evaluation) -> None:
    with pytest.raises(UsageError, match=r"a drop needs an earlier report as baseline"):
        verdict("drop(top1) > 0.1", tonight)


def test_an_unknown_class_is_an_error(tonight: Evaluation) -> None:
    with pytest.raises(UsageError, match=r"the model has no class 'Green Hil'; did you mean 'Green Hill'\?"):
        verdict("class[Green Hil].recall < 1", tonight)


def test_a_class_may_be_written_with_decomposed_characters(tmp_path: Path) -> None:
    rows = [Row("Caf\u00e9/1.jpg", RED), Row("01.Green_Hill/1.jpg", GREEN)]
    folders = ("Caf\u00e9", *FOLDERS[1:])
    predictions = write_predictions(tmp_path / "preds.parquet", folders, rows, top_k=2)
    found = evaluate(predictions, write_label_folders(tmp_path / "labels", [row.image for row in rows]))
    assert not verdict("class[Cafe\u0301].recall < 1", found)[0]


@pytest.mark.parametrize("text", ["class[Sea < Sky].recall < 0.1", "log_loss > 9", "top3 < 0.1"])
def test_a_missing_figure_fails_its_gate(tonight: Evaluation, text: str) -> None:
    failed, message = verdict(text, tonight)
    assert failed
    assert message == f"{parse_gate(text).name} is not available (fails if {text})"


def test_all_gates_fail_without_a_readable_image(tmp_path: Path, last_night: Report) -> None:
    night = evaluation(tmp_path / "broken", Row("00.Red_Tower/1.jpg", error_code="empty"))
    assert verdict("top1 < 0.1", night) == (True, "top1 is not available (fails if top1 < 0.1)")
    assert verdict("drop(top1) > 0.5", night, last_night)[0]


def test_failing_gates_are_one_line(tonight: Evaluation, tmp_path: Path) -> None:
    gates = [parse_gate(text) for text in ("top1 < 0.8", "failed > 3", "failed > 0")]
    results = check_gates(gates, tonight)
    with pytest.raises(GateFailedError) as caught:
        raise_if_failed(results, Path("report"))
    assert str(caught.value) == (
        "gate failed: top1 is 0.75 (fails if top1 < 0.8) (and 1 more: failed is 1 (fails if failed > 0)); "
        "see report/report.html"
    )
    assert caught.value.exit_code == 4
    raise_if_failed(results[1:2], Path("report"))


def test_areas_of_other_choices_are_not_compared(tmp_path: Path, tonight: Evaluation, last_night: Report) -> None:
    """Both reports have two choices of three classes; then the baseline has all probabilities, or one choice."""
    assert verdict("macro_auroc < 0.5", tonight) == (
        False,
        "macro_auroc is 0.75, from top-2 choices (fails if macro_auroc < 0.5)",
    )
    gate = "drop(macro_auroc) > 0.5"
    assert verdict(gate, tonight, last_night)[0] is False
    of_all = last_night._replace(summary=last_night.summary.model_copy(update={"areas_of": "all"}))
    now = "but is computed from top-2 choices now"
    unknown = "so the drop is unknown; score all images of both with the probabilities of all classes"
    assert verdict(gate, tonight, of_all) == (
        True,
        f"macro_auroc went from 1 to 0.75, {now} and all classes before, {unknown} (fails if {gate})",
    )
    earlier = last_night.summary.model_copy(update={"areas_of": None, "top_k": 1})
    assert verdict(gate, tonight, last_night._replace(summary=earlier)) == (
        True,
        f"macro_auroc went from 1 to 0.75, {now} and top-1 choices before, {unknown} (fails if {gate})",
    )
    some = last_night._replace(summary=last_night.summary.model_copy(update={"areas_of": "some"}))
    of_some = replace(tonight, summary=tonight.summary.model_copy(update={"areas_of": "some"}))
    assert verdict(gate, of_some, some) == (
        True,
        f"macro_auroc went from 1 to 0.75, but is computed from some images with all classes now and "
        f"some images with all classes before, {unknown} (fails if {gate})",
    )
    assert verdict("drop(top1) > 0.5", tonight, of_all)[0] is False

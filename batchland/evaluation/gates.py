"""Gates for cron and CI: conditions on a report's figures that make a run fail.

top1 < 0.70        class[Eiffel Tower].recall < 50%        drop(top1) > 0.02        failed > 10
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from batchland.errors import GateFailedError, UsageError
from batchland.evaluation.schema import EvaluationSummary, Figure, Figures, LabelAccount
from batchland.models.class_match import find_name, name_indices
from batchland.system.text import near_miss

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report

OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CLASS_FIGURES: Final = ("accuracy", "recall", "precision", "f1", "mean_confidence", "support", "failed")
"""Figures of a class that a gate can name; recall is another name of accuracy."""
COUNTS: Final = tuple(name for name, field in LabelAccount.model_fields.items() if field.annotation is int)
_AREAS: Final = ("macro_average_precision", "macro_auroc")
_CLASS_COUNTS: Final = ("support", "failed")
_MAX_VALUES: Final = {"log_loss": math.inf, "brier": 2.0}
"""Largest possible value of the figures that can exceed 1."""
_GATE: Final = re.compile(r"(?P<name>.+?)\s*(?P<operator><=|>=|<|>)\s*(?P<limit>[0-9.eE+-]+)\s*(?P<percent>%?)")
_DROP: Final = re.compile(r"drop\(\s*(.+?)\s*\)")
_CLASS: Final = re.compile(r"class\[(.+)\]\.(\w+)")


class Gate(NamedTuple):
    """A condition under which the evaluation fails."""

    text: str
    name: str
    """A figure, a count, or `class[LABEL].figure`."""
    drop: bool
    """Whether the value is the baseline's figure minus the current one."""
    operator: str
    limit: float


class GateResult(NamedTuple):
    """A gate, and whether it failed."""

    gate: Gate
    failed: bool
    value: float | None
    """The value compared with the limit; None if the figure is missing, which fails the gate."""
    message: str
    """One line: the value, in the limit's unit, and the condition."""


def parse_gate(text: str) -> Gate:
    """Read `top1 < 0.70`, `class[Eiffel Tower].recall < 50%` or `drop(top1) > 0.02`. Raises UsageError."""
    found = _GATE.fullmatch(text.strip())
    if not found or re.search("[=!<>]", _CLASS.sub("", found["name"])):
        raise UsageError(
            f'gate {text!r}: must be NAME < NUMBER (or <=, >, >=), like "top1 < 0.70" or "drop(top1) > 2%"'
        )
    try:
        limit = float(found["limit"]) / (100 if found["percent"] else 1)
    except ValueError as error:
        raise UsageError(f"gate {text!r}: {found['limit']!r} is not a number") from error
    drop = _DROP.fullmatch(found["name"])
    name = drop[1] if drop else found["name"]
    of_class = _CLASS.fullmatch(name)
    known = CLASS_FIGURES if of_class else (*Figures.model_fields, *COUNTS)
    asked = of_class[2] if of_class else name
    if asked not in known:
        near = near_miss(asked, known)
        remedy = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"gate {text!r}: unknown figure {asked!r} ({remedy})")
    gate = Gate(text.strip(), name, drop is not None, found["operator"], limit)
    _check_limit(gate, asked, counts=_CLASS_COUNTS if of_class else COUNTS)
    return gate


def check_gates(
    gates: Sequence[Gate], evaluation: "Evaluation | Report", baseline: "Evaluation | Report | None" = None
) -> tuple[GateResult, ...]:
    """Check each gate; the results are in the same order. baseline: an earlier report, needed for `drop(...)`.

    A gate fails if its figure is missing, as all accuracy figures are if no image could be read. Raises UsageError if a
    gate names a class that the model does not have, or if a drop has no baseline.
    """
    return tuple(_check(gate, evaluation, baseline) for gate in gates)


def raise_if_failed(results: Sequence[GateResult], report: Path) -> None:
    """Raise one GateFailedError that names all gates that failed, if any did."""
    failed = [result.message for result in results if result.failed]
    if failed:
        more = f" (and {len(failed) - 1} more: {'; '.join(failed[1:])})" if len(failed) > 1 else ""
        raise GateFailedError(f"gate failed: {failed[0]}{more}; see {report / 'report.html'}")


def _check_limit(gate: Gate, asked: str, counts: Sequence[str]) -> None:
    """Raise UsageError if the figure cannot cross the limit, or if a count has a percent sign."""
    largest = _MAX_VALUES.get(asked, 1.0)
    if asked in counts:
        largest = math.inf
        if _in_percent(gate):
            remedy = "use failed_rate" if gate.name == "failed" else "leave the % out"
            raise UsageError(f"gate {gate.text!r}: {asked} is a number of images; {remedy}")
    least = -largest if gate.drop else 0
    bounds = "is at least 0" if largest == math.inf else f"lies between {{:g}} and {largest:g}"
    shown = f"drop({gate.name})" if gate.drop else gate.name
    if not least <= gate.limit <= largest:
        remedy = f"; write {gate.limit:g}%" if largest == 1 < gate.limit <= 100 and not _in_percent(gate) else ""
        raise UsageError(f"gate {gate.text!r}: {asked} {bounds.format(0)}{remedy}")
    never = ((least, "<"), (largest, ">"))
    always = ((least, ">="), (largest, "<="), *(((least, ">"), (largest, "<")) if gate.drop else ()))
    for word, cases in (("never", never), ("always", always)):
        if (gate.limit, gate.operator) in cases:
            raise UsageError(f"gate {gate.text!r}: {word} fails, because {shown} {bounds.format(least)}")


def _in_percent(gate: Gate) -> bool:
    return gate.text.endswith("%")


def _check(gate: Gate, evaluation: "Evaluation | Report", baseline: "Evaluation | Report | None") -> GateResult:
    value = _value(gate, evaluation.summary, evaluation.per_class)
    message = f"{gate.name} is {_texts(gate, value)[0]}"
    if gate.drop:
        if baseline is None:
            raise UsageError(f"gate {gate.text!r}: a drop needs an earlier report as baseline", advice="baseline")
        before = _value(gate, baseline.summary, baseline.per_class)
        message = "{} went from {} to {}".format(gate.name, *_texts(gate, before, value))
        if baseline.summary.labels.fingerprint != evaluation.summary.labels.fingerprint:
            message += ", on other images or labels"
        now, earlier = _choices(evaluation.summary), _choices(baseline.summary)
        if gate.name in _AREAS and (now != earlier or now.startswith("some")):
            message += (
                f", but is computed from {now} now and {earlier} before, so the drop is unknown; score all images of "
                f"both with the probabilities of all classes"
            )
            before = None
        # Rounded, because 0.80 - 0.78 > 0.02 in floating point.
        value = None if value is None or before is None else round(before - value, 12)
    elif gate.name in _AREAS:
        message += f", from {_choices(evaluation.summary)}"
    failed = value is None or OPERATORS[gate.operator](value, gate.limit)
    return GateResult(gate, failed, value, f"{message} (fails if {gate.text})")


def _choices(summary: EvaluationSummary) -> str:
    """The probabilities that the areas under the curves are computed from."""
    if summary.areas_of == "all" or summary.top_k >= len(summary.classes):
        return "all classes"
    return "some images with all classes" if summary.areas_of == "some" else f"top-{summary.top_k} choices"


def _value(gate: Gate, summary: EvaluationSummary, per_class: pa.Table) -> float | None:
    of_class = _CLASS.fullmatch(gate.name)
    if of_class:
        return _class_value(gate, of_class[1], of_class[2].replace("recall", "accuracy"), per_class)
    if gate.name in COUNTS:
        return float(getattr(summary.account, gate.name))
    figure: Figure | None = getattr(summary.figures, gate.name)
    return figure.value if figure else None


def _class_value(gate: Gate, name: str, column: str, per_class: pa.Table) -> float | None:
    labels, folders = per_class["label"].to_pylist(), per_class["folder"].to_pylist()
    found = (find_name(name_indices(names), name) for names in (labels, folders))
    row = next((index for index in found if index is not None), None)
    if row is None:
        near = near_miss(name, [*labels, *folders])
        remedy = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"gate {gate.text!r}: the model has no class {name!r}{remedy}")
    return per_class[column][row].as_py()


def _texts(gate: Gate, *values: float | None) -> list[str]:
    """Values in the unit of the limit, with enough digits to see whether they, or their difference, cross it."""
    unit, scale, digits = ("%", 100, 2) if _in_percent(gate) else ("", 1, 4)
    scaled = [value * scale for value in values if value is not None]

    def side(digits: int) -> int:
        shown = [round(value, digits) for value in scaled]
        beyond = round((shown[0] - shown[1] if gate.drop else shown[0]) - scale * gate.limit, 12)
        return (beyond > 0) - (beyond < 0)

    if len(scaled) == 1 + gate.drop:
        digits = next((each for each in range(digits, 12) if side(each) == side(12)), 12)
    texts = [None if value is None else f"{value * scale:.{digits}f}".rstrip("0").rstrip(".") for value in values]
    return ["not available" if text is None else f"{text}{unit}" for text in texts]

"""The verdict on an evaluation: good enough by gates, baseline and chance; what changed; what to do."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from batchland.evaluation.intervals import mcnemar_exact, z_score
from batchland.evaluation.schema import EvaluationSummary
from batchland.report.changes import Baseline, Changes, changes
from batchland.report.findings import LEVEL, significantly_weak_classes
from batchland.system.documents import Document
from batchland.system.text import count, counted, first_few, images, p_value, percent, points, visible

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult

VerdictKind = Literal["passed", "warning", "failed", "open"]
WIDE_INTERVAL: Final = 0.1
"""If the interval of the accuracy is at least this wide, the test set is called too small."""
MANY_SUSPECTED: Final = 0.1
"""If at least this share of the mistakes may be wrong labels, reviewing them comes first."""


class Verdict(Document):
    """Whether the model is good enough, judged by gates, baseline and chance."""

    kind: VerdictKind
    text: str
    reasons: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """What is different from the baseline."""
    actions: tuple[str, ...] = ()
    """What to do, the most urgent first."""
    changes: Changes | None = None
    """The comparison with the baseline, if there is one."""


def verdict(evaluation: "Evaluation", gates: Sequence["GateResult"] = (), baseline: Baseline | None = None) -> Verdict:
    """Judge by gates and baseline, against always giving the most frequent class, and by the number of images."""
    summary = evaluation.summary
    if summary.figures.top1 is None:
        text = "No image was scored, so there is nothing to judge."
        return Verdict(kind="failed", text=text, actions=tuple(_failures(summary)))
    found = changes(evaluation, baseline) if baseline else None
    kind, text = _result(gates, found, baseline)
    return Verdict(
        kind=kind,
        text=text,
        reasons=(*_against_chance(evaluation), *_too_few(summary)),
        changed=tuple(sentence for sentence in found.sentences if sentence != text) if found else (),
        actions=tuple(_actions(evaluation, gates, found)),
        changes=found,
    )


def _result(gates: Sequence["GateResult"], found: Changes | None, baseline: Baseline | None) -> tuple[VerdictKind, str]:
    failed = sum(result.failed for result in gates)
    number = counted(len(gates), "gate")
    if failed:
        return "failed", "Fails the gate." if len(gates) == 1 else f"Fails {count(failed)} of {number}."
    passes = f"Passes {'the gate' if len(gates) == 1 else f'all {number}'}" if gates else ""
    if found and baseline and found.p_value is not None:
        if found.worse:
            return ("warning", f"{passes}, but is worse than {baseline.name}.") if gates else ("failed", found.text)
        also = f"not worse than {baseline.name} by more than chance."
        return "passed", f"{passes}, and is {also}" if gates else f"{also[0].upper()}{also[1:]}"
    if gates:
        return "passed", f"{passes}."
    if found:
        return "open", found.text
    return "open", "No gates were set, so only you can say whether this is good enough."


def _against_chance(evaluation: "Evaluation") -> Iterator[str]:
    """Against always giving the most frequent class, by the exact McNemar test."""
    support = evaluation.per_class["support"].to_numpy()
    correct = evaluation.per_class["correct"].to_numpy()
    frequent, share = int(support.argmax()), float(support.max() / support.sum())
    if share == 1:
        return
    label = visible(evaluation.per_class["label"][frequent].as_py())
    only_model = int(correct.sum() - correct[frequent])
    only_constant = int(support[frequent] - correct[frequent])
    p = mcnemar_exact(only_constant, only_model)
    what = f"always answering {label}, which would be right for {percent(share)}"
    if p >= LEVEL:
        yield f"Not better than {what}, by more than chance ({p_value(p)})."
    elif only_model > only_constant:
        yield f"Better than {what}."
    else:
        yield f"Worse than {what}."


def _too_few(summary: EvaluationSummary) -> Iterator[str]:
    top1 = summary.figures.top1
    assert top1 is not None
    assert top1.low is not None
    assert top1.high is not None
    if top1.high - top1.low > WIDE_INTERVAL:
        wide = f"its interval is {100 * (top1.high - top1.low):.0f} points wide"
        verb = "is" if summary.account.scored == 1 else "are"
        yield f"{images(summary.account.scored)} {verb} too few to know the accuracy: {wide}."


def _actions(evaluation: "Evaluation", gates: Sequence["GateResult"], found: Changes | None) -> Iterator[str]:
    summary = evaluation.summary
    if found and found.worse:
        yield "Find out what changed before you use these answers."
    elif any(result.failed for result in gates):
        yield "Do not use these answers before the failed gates are explained: begin with the mistakes below."
    yield from _failures(summary)
    errors = summary.label_errors
    if errors and errors.suspected and errors.suspected >= MANY_SUSPECTED * errors.mistakes:
        gain = points(errors.suspected / summary.account.scored).removeprefix("+")
        yield (
            f"Review the {counted(errors.suspected, 'suspected label')}: if all are wrong and the model is right, the "
            f"accuracy is {gain} higher."
        )
    if weak := significantly_weak_classes(evaluation):
        names = first_few([visible(each.label) for each in weak])
        yield f"Add training images of {names}: below the average by more than chance."
    top1 = summary.figures.top1
    if top1 and top1.low is not None and top1.high is not None and top1.high - top1.low > WIDE_INTERVAL:
        share = min(max(0.5, top1.low), top1.high)  # of the possible accuracies, the one that needs the most labels
        confidence = summary.options.get("confidence", 0.95)
        wanted = int(z_score(confidence) ** 2 * share * (1 - share) / (WIDE_INTERVAL / 2) ** 2) + 1
        more = wanted - summary.account.scored
        if more > 0:
            yield f"Label at most {images(more)} more: then the accuracy is known within {WIDE_INTERVAL * 50:g} points."


def _failures(summary: EvaluationSummary) -> Iterator[str]:
    if summary.failures:
        codes = first_few([f"{visible(group.error_code)} {count(group.images)}" for group in summary.failures])
        yield f"Repair the {counted(summary.account.failed, 'failed image')} ({codes}), and score again."

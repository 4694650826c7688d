"""Promote a version of a model, if it passes gates on a labelled set, compared with the version in use."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from batchland.errors import UsageError
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.gates import GateResult, check_gates, parse_gate
from batchland.evaluation.options import EvaluateOptions
from batchland.models.registry import Change, FolderRegistry, Reference
from batchland.nightly.job_fields import checked_by
from batchland.report.write import write_report, write_side_by_side
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import score
from batchland.system.options import Options


class PromoteOptions(Options):
    """The check before a promotion."""

    labels: Path | None = None
    """Labelled set: a folder of class folders, or a CSV or Parquet file with the columns image and label."""
    images: Path | None = None
    """Folder of its images. Default: the labels."""
    gates: tuple[Annotated[str, AfterValidator(checked_by(parse_gate))], ...] = ("drop(top1) > 1%",)
    """Conditions under which the version is refused. A drop is measured against the version that has the alias now."""
    device: str = "auto"
    """Where the models run."""
    reason: str = ""
    """Recorded in the history."""


class Promotion(NamedTuple):
    """The result of a promotion."""

    change: Change
    """With the action `refuse` if a gate failed."""
    results: tuple[GateResult, ...]
    report: Path | None


def promote(registry: FolderRegistry, reference: Reference, alias: str, options: PromoteOptions) -> Promotion:
    """Give the alias to a version if no gate fails; if one does, the alias stays and the history says so.

    Without labels the version is promoted unchecked, and the history shows no checks. Raises ModelError,
    UsageError, also if the version has the alias already, and LockedError if the alias was changed during the check.
    """
    model = registry.read(reference.name)
    number = registry.version(reference).version
    before = model.aliases.get(alias)
    if before == number:
        raise UsageError(f"{registry.folder}: {reference.name} {number} already has the alias {alias}")
    if options.labels is None:
        return Promotion(registry.promote(reference, alias, reason=options.reason, seen=model), (), None)
    checks = Path("checks", f"{alias}-{datetime.now():%Y%m%dT%H%M%S}")
    report = registry.folder / reference.name / str(number) / checks
    with TemporaryDirectory() as scratch:
        evaluated = _evaluator(registry, reference.name, options, Path(scratch))
        candidate = evaluated(number)
        present = evaluated(before) if before is not None else None
        gates = [parse_gate(text) for text in options.gates]
        results = check_gates([gate for gate in gates if present or not gate.drop], candidate, present)
        if present:
            write_side_by_side(present, candidate, report, gates=results)
        else:
            write_report(candidate, report, gates=results)
    change = registry.promote(
        Reference(reference.name, str(number)),
        alias,
        reason=options.reason,
        checks=(_summary(candidate), *(f"{'failed' if each.failed else 'passed'}: {each.message}" for each in results)),
        report=str(Path(str(number)) / checks),
        refused=any(result.failed for result in results),
        seen=model,
    )
    return Promotion(change, results, report)


def _evaluator(
    registry: FolderRegistry, name: str, options: PromoteOptions, scratch: Path
) -> Callable[[int], Evaluation]:
    assert options.labels is not None
    labels, images = options.labels, options.images or options.labels

    def evaluated(number: int) -> Evaluation:
        out = scratch / f"{name}-{number}.parquet"
        model = registry.find(Reference(name, str(number))).file
        score(images, out, ScoreOptions(model=model, device=options.device))
        return evaluate(out, labels, EvaluateOptions())

    return evaluated


def _summary(evaluation: Evaluation) -> str:
    top1 = evaluation.summary.figures.top1
    shown = f"top-1 accuracy {top1.value:.1%}" if top1 else "no accuracy"
    return f"{shown} on {evaluation.summary.account.scored} images of {evaluation.summary.labels.path}"

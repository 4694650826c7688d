"""Names and folders of the reports of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


def different_names(reports: "Sequence[Report | Evaluation]") -> list[str]:
    """A name for each report: the first of these kinds of names that are all different.

    The model's name; the name of the predictions file, of its folder, of the report's folder, of the labels; the
    model's name together with one of these; the model's name with a number.
    """
    models = [report.summary.model.name for report in reports]
    files = [Path(report.summary.predictions) for report in reports]
    folders = [report_folder(report) for report in reports]
    candidates = [
        [path.stem for path in files],
        [path.parent.name for path in files],
        [Path(folder).name if folder else "" for folder in folders],
        [Path(report.summary.labels.path).name for report in reports],
    ]
    joined = [[f"{model}, {place}" for model, place in zip(models, each, strict=True) if place] for each in candidates]
    for names in (models, *candidates, *joined):
        if len(set(names)) == len(reports) and all(names):
            return names
    return [f"{model} ({number})" for number, model in enumerate(models, 1)]


def different_sources(reports: "Sequence[Report | Evaluation]") -> list[str]:
    """For messages: the predictions; if these are equal, the reports' folders, or the predictions with the labels."""
    predictions = [report.summary.predictions for report in reports]
    folders = [report_folder(report) or "" for report in reports]
    for sources in (predictions, folders):
        if len(set(sources)) == len(reports) and all(sources):
            return sources
    return [f"{report.summary.predictions} with labels {report.summary.labels.path}" for report in reports]


def report_folder(report: "Report | Evaluation") -> str | None:
    """The folder that the report was read from."""
    folder = getattr(report, "folder", None)
    return str(folder) if folder else None

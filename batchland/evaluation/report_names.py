"""Names and folders of the reports of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


def different_names(reports: "Sequence[Report | Evaluation]") -> list[str]:
    """The models' names, else names of files or folders, else models with these, else models with numbers.

    The files are the predictions; the folders are theirs, then those of the reports; last are the labels.
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
    """For messages: the predictions; where they are the same, the reports' folders, or the predictions with labels."""
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

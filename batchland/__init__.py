"""Batch inference and evaluation for image classifiers: ONNX in, Parquet and reports out.

from batchland import ScoreOptions, evaluate, score, write_report

    summary = score("photos/", "preds.parquet", ScoreOptions(model="models/scratch.onnx"))
    evaluation = evaluate("preds.parquet", "data/test")
    files = write_report(evaluation, "report/")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from batchland._version import __version__ as __version__

if TYPE_CHECKING:
    from batchland.demo.sample import draw_sample
    from batchland.evaluation.comparison import Comparison, compare
    from batchland.evaluation.evaluate import Evaluation, evaluate
    from batchland.evaluation.frames import read
    from batchland.evaluation.gates import Gate, GateResult, check_gates, parse_gate
    from batchland.evaluation.options import CompareOptions, EvaluateOptions
    from batchland.evaluation.saved import Report, read_report
    from batchland.models.adopt import adopt
    from batchland.models.adopt_options import AdoptOptions
    from batchland.models.session import Session, open_session
    from batchland.nightly.job import Job, load_job
    from batchland.nightly.record_files import read_runs
    from batchland.nightly.run_record import RunRecord
    from batchland.nightly.runner import NightResult, run_night
    from batchland.report.options import ReportOptions
    from batchland.report.write import ReportFiles, write_comparison, write_report, write_side_by_side
    from batchland.scoring.account import Progress
    from batchland.scoring.merge.in_place import merge_in_place
    from batchland.scoring.merge.merge import merge
    from batchland.scoring.options import ScoreOptions, Shard
    from batchland.scoring.plan.write import make_plan
    from batchland.scoring.predict import predict
    from batchland.scoring.score import RunSummary, score
    from batchland.training.export import export
    from batchland.training.options import ExportOptions, TrainOptions
    from batchland.training.train import TrainedModel, train


# Module -> public names in it. It is imported when one is first used, so that `import batchland` is fast.
_PUBLIC = {
    "demo.sample": ("draw_sample",),
    "evaluation.comparison": ("Comparison", "compare"),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "evaluation.frames": ("read",),
    "evaluation.gates": ("Gate", "GateResult", "check_gates", "parse_gate"),
    "evaluation.options": ("CompareOptions", "EvaluateOptions"),
    "evaluation.saved": ("Report", "read_report"),
    "models.adopt": ("adopt",),
    "models.adopt_options": ("AdoptOptions",),
    "models.session": ("Session", "open_session"),
    "nightly.job": ("Job", "load_job"),
    "nightly.record_files": ("read_runs",),
    "nightly.run_record": ("RunRecord",),
    "nightly.runner": ("NightResult", "run_night"),
    "report.options": ("ReportOptions",),
    "report.write": ("ReportFiles", "write_comparison", "write_report", "write_side_by_side"),
    "scoring.account": ("Progress",),
    "scoring.merge.in_place": ("merge_in_place",),
    "scoring.merge.merge": ("merge",),
    "scoring.options": ("ScoreOptions", "Shard"),
    "scoring.plan.write": ("make_plan",),
    "scoring.predict": ("predict",),
    "scoring.score": ("RunSummary", "score"),
    "training.export": ("export",),
    "training.options": ("ExportOptions", "TrainOptions"),
    "training.train": ("TrainedModel", "train"),
}
__all__ = [
    "AdoptOptions",
    "CompareOptions",
    "Comparison",
    "EvaluateOptions",
    "Evaluation",
    "ExportOptions",
    "Gate",
    "GateResult",
    "Job",
    "NightResult",
    "Progress",
    "Report",
    "ReportFiles",
    "ReportOptions",
    "RunRecord",
    "RunSummary",
    "ScoreOptions",
    "Session",
    "Shard",
    "TrainOptions",
    "TrainedModel",
    "adopt",
    "check_gates",
    "compare",
    "draw_sample",
    "evaluate",
    "export",
    "load_job",
    "make_plan",
    "merge",
    "merge_in_place",
    "open_session",
    "parse_gate",
    "predict",
    "read",
    "read_report",
    "read_runs",
    "run_night",
    "score",
    "train",
    "write_comparison",
    "write_report",
    "write_side_by_side",
]


def __getattr__(name: str) -> object:
    for module, names in _PUBLIC.items():
        if name in names:
            return getattr(import_module(f"batchland.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

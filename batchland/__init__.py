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


# Public name -> module, imported when the name is first used, so that `import batchland` is fast.
_PUBLIC = {
    "AdoptOptions": "batchland.models.adopt_options",
    "CompareOptions": "batchland.evaluation.options",
    "Comparison": "batchland.evaluation.comparison",
    "EvaluateOptions": "batchland.evaluation.options",
    "Evaluation": "batchland.evaluation.evaluate",
    "ExportOptions": "batchland.training.options",
    "Gate": "batchland.evaluation.gates",
    "GateResult": "batchland.evaluation.gates",
    "Job": "batchland.nightly.job",
    "NightResult": "batchland.nightly.runner",
    "Progress": "batchland.scoring.account",
    "Report": "batchland.evaluation.saved",
    "ReportFiles": "batchland.report.write",
    "ReportOptions": "batchland.report.options",
    "RunRecord": "batchland.nightly.run_record",
    "RunSummary": "batchland.scoring.score",
    "ScoreOptions": "batchland.scoring.options",
    "Session": "batchland.models.session",
    "Shard": "batchland.scoring.options",
    "TrainOptions": "batchland.training.options",
    "TrainedModel": "batchland.training.train",
    "adopt": "batchland.models.adopt",
    "check_gates": "batchland.evaluation.gates",
    "compare": "batchland.evaluation.comparison",
    "draw_sample": "batchland.demo.sample",
    "evaluate": "batchland.evaluation.evaluate",
    "export": "batchland.training.export",
    "load_job": "batchland.nightly.job",
    "make_plan": "batchland.scoring.plan.write",
    "merge": "batchland.scoring.merge.merge",
    "merge_in_place": "batchland.scoring.merge.in_place",
    "open_session": "batchland.models.session",
    "parse_gate": "batchland.evaluation.gates",
    "predict": "batchland.scoring.predict",
    "read": "batchland.evaluation.frames",
    "read_report": "batchland.evaluation.saved",
    "read_runs": "batchland.nightly.record_files",
    "run_night": "batchland.nightly.runner",
    "score": "batchland.scoring.score",
    "train": "batchland.training.train",
    "write_comparison": "batchland.report.write",
    "write_report": "batchland.report.write",
    "write_side_by_side": "batchland.report.write",
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
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

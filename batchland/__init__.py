"""Batch inference and evaluation for image classifiers: ONNX in, Parquet and reports out.

from batchland import ScoreOptions, score

    summary = score("photos/", "preds.parquet", ScoreOptions(model="models/scratch.onnx"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchland.scoring import Progress, RunSummary, ScoreOptions, score

__version__ = "0.1.0"

# Public name -> module, imported when the name is first used, so that `import batchland` costs nothing.
_PUBLIC = {
    "Progress": "batchland.scoring",
    "RunSummary": "batchland.scoring",
    "ScoreOptions": "batchland.scoring",
    "score": "batchland.scoring",
}
__all__ = ["Progress", "RunSummary", "ScoreOptions", "score"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

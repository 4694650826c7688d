"""Write schemas/*.json, which describe every file and JSON output of batchland, from the code: `make schemas`.

JSON documents get a JSON Schema, tables the list of their columns. Nothing else imports this module.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel

from batchland.cli.documents import (
    DoctorResult,
    ErrorResult,
    EvaluateResult,
    History,
    JobCheck,
    RegistryContent,
    RunResult,
)
from batchland.embeddings.duplicates import DUPLICATES, Duplicates
from batchland.embeddings.similar import Similar
from batchland.evaluation.label_plan import LABEL_PLAN
from batchland.evaluation.schema import (
    CLASS_CHANGES,
    CONFUSION,
    CURVES,
    FLIPS,
    MISTAKES,
    OUTCOMES,
    PER_CLASS,
    ComparisonSummary,
    EvaluationSummary,
)
from batchland.evaluation.several import SeveralCompared
from batchland.models.canaries import CANARIES, CanaryInfo
from batchland.models.card import ModelCard
from batchland.models.registry import RegisteredModel
from batchland.monitoring.schema import Estimator
from batchland.nightly.job_schema import job_schema
from batchland.nightly.notifications.message import Notification
from batchland.nightly.run_record import RunRecord
from batchland.predictions.schema import (
    KNOWN,
    PREDICTIONS,
    SHARD_PREDICTIONS,
    Manifest,
    PredictionsInfo,
    features_column,
)
from batchland.scoring.plan.schema import PLANNED, Plan
from batchland.system.field_texts import DescribedJsonSchema
from batchland.trend.schema import TREND

OWN: Final = "Further columns of the image list or label table follow."
DOCUMENTS: Final[dict[str, tuple[type[BaseModel], str]]] = {
    "canaries_metadata": (CanaryInfo, "The metadata `batchland` of a model's canaries."),
    "estimator": (Estimator, "NAME.estimator.json beside a model: what estimates its accuracy without labels."),
    "model_card": (ModelCard, "The metadata `batchland` of an ONNX model."),
    "predictions_metadata": (PredictionsInfo, "The metadata `batchland` of a predictions file."),
    "manifest": (
        Manifest,
        "The manifest beside predictions; `score --json` and `merge --json` print it.",
    ),
    "plan": (Plan, "plan.json of a plan. Printed by `batchland plan --json`."),
    "summary": (EvaluationSummary, "summary.json of a report."),
    "comparison_summary": (ComparisonSummary, "summary.json of a comparison. Printed by `compare --json`."),
    "several_summary": (
        SeveralCompared,
        "summary.json of a comparison of three or more reports. Printed by `compare --json`.",
    ),
    "history": (History, "Printed by `batchland history --json`."),
    "notification": (Notification, "What `webhook` of [notify] in a job file gets by POST."),
    "registry": (RegisteredModel, "registry.json of a model in a registry. Printed by `batchland models show --json`."),
    "registry_content": (RegistryContent, "Printed by `batchland models list --json`."),
    "run": (RunRecord, "run.json of a night: runs/NAME/DATE/run.json."),
    "run_result": (RunResult, "Printed by `batchland run --json`."),
    "job_check": (JobCheck, "Printed by `batchland job check --json`."),
    "error": (ErrorResult, "Printed by any command with `--json` that fails before it has a result."),
    "evaluate_result": (EvaluateResult, "Printed by `batchland evaluate --json`."),
    "duplicates": (Duplicates, "Printed by `batchland duplicates --json`."),
    "similar": (Similar, "Printed by `batchland similar --json`."),
    "doctor": (DoctorResult, "Printed by `batchland doctor --json`."),
}
TABLES: Final[dict[str, tuple[pa.Schema, str]]] = {
    "canaries": (CANARIES, "NAME.canaries.parquet beside a model: image files and its probabilities for them."),
    "predictions": (
        pa.schema([*PREDICTIONS, KNOWN, features_column(1)]),
        f"One row per listed image, in listing order. {OWN}",
    ),
    "shard_predictions": (SHARD_PREDICTIONS, f"A part of a shard: one row per image of it, in listing order. {OWN}"),
    "planned_images": (PLANNED, f"The lists of a plan: one row per listed image, in listing order. {OWN}"),
    "per_class": (PER_CLASS, "per_class.parquet and per_class.csv: one row per class of the model."),
    "confusion": (CONFUSION, "The confusion matrix without its zeros."),
    "curves": (CURVES, "Points of each class's precision-recall and ROC curve."),
    "duplicate_images": (DUPLICATES, "The table of `batchland duplicates --out`: one row per image that has copies."),
    "label_plan": (LABEL_PLAN, "The CSV file of `batchland label-plan`: one row per image to label."),
    "outcomes": (OUTCOMES, f"One row per image with a label and a prediction. {OWN}"),
    "mistakes": (MISTAKES, f"The scored images that were named wrong, the most confident first. {OWN}"),
    "comparison_per_class": (CLASS_CHANGES, "per_class.parquet and per_class.csv of a comparison: one row per class."),
    "flips": (FLIPS, "The images that both scored and gave another first choice."),
    "trend": (TREND, "trend.parquet: one row per night and model of a job."),
}


def schema_files() -> dict[str, str]:
    """File name to content, of every file in schemas/."""
    documents = {name: _document(*entry) for name, entry in DOCUMENTS.items()} | {"job": job_schema()}
    tables = {name: _table(name, *entry) for name, entry in TABLES.items()}
    return {
        f"{name}.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in sorted((documents | tables).items())
    }


def _document(model: type[BaseModel], description: str) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization", schema_generator=DescribedJsonSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"description": description}


def _table(name: str, schema: pa.Schema, description: str) -> dict[str, Any]:
    columns = [
        {
            "name": field.name,
            "type": str(field.type).replace("[1]", "[N]"),
            "nullable": field.nullable,
            "description": field.metadata[b"description"].decode(),
        }
        for field in schema
    ]
    return {"title": f"{name}.parquet", "description": description, "columns": columns}


def main(folder: Path) -> None:
    """Write the files, and remove those of former documents."""
    folder.mkdir(exist_ok=True)
    files = schema_files()
    for path in folder.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""schemas/*.json are current, and describe the files that are really written."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from jsonschema import Draft202012Validator

from batchland import ScoreOptions, score
from batchland.predictions.schema import METADATA_KEY
from schemas.generate import main, schema_files

FOLDER = Path(__file__).parents[2] / "schemas"


def test_the_files_are_current():
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == schema_files(), "run: make schemas"


def test_every_field_and_column_is_described():
    for name, text in schema_files().items():
        for column in json.loads(text).get("columns", []):
            assert column["description"], (name, column)


def test_files_of_a_run_are_valid(tmp_path, toy_model, colour_folders):
    summary = score(colour_folders, tmp_path / "preds.parquet", ScoreOptions(model=toy_model))
    metadata = pq.read_schema(summary.out).metadata[METADATA_KEY]
    for name, document in (("manifest", summary.manifest_path.read_bytes()), ("predictions_metadata", metadata)):
        schema = json.loads((FOLDER / f"{name}.json").read_text())
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(json.loads(document))


def test_files_of_former_schemas_are_removed(tmp_path):
    (tmp_path / "gone.json").write_text("{}")
    main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(schema_files())

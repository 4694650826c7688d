"""Find the configuration of a foreign model: files beside it, and its metadata."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx

from batchland.errors import ModelError, UsageError
from batchland.models.class_list import labels_of
from batchland.models.foreign import declared_sides
from batchland.models.foreign_preprocess import ForeignPreprocess, Sides, of_config, of_ultralytics
from batchland.system.json_text import parse_literal, read_json

CONFIGS: Final = ("preprocessor_config.json", "config.json")
"""Hugging Face's files; timm has the second only."""


@dataclass(frozen=True)
class Found:
    """Preprocessing and labels, and where they were found."""

    preprocess: ForeignPreprocess | None = None
    preprocess_from: str = ""
    problem: UsageError | None = None
    """Why the preprocessing that was found cannot be used."""
    labels: tuple[str, ...] | None = None
    labels_from: str = ""
    labels_problem: str = ""
    """Why the labels that were found cannot be used."""


def found_with(path: Path, model: onnx.ModelProto) -> Found:
    """Preprocessing and labels that come with a model.

    Raises ModelError if they say that the model is no classifier, or gives several labels to one image.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "task" in metadata and "names" in metadata:
        return _ultralytics_metadata(path, metadata)
    found, sides = Found(), declared_sides(model)
    for folder in (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,):
        for name in CONFIGS:
            try:
                values = _read(folder / name)
            except UsageError as error:
                problem = found.problem or (error if found.preprocess is None else None)
                found = replace(found, problem=problem, labels_problem=str(error))
            else:
                found = _add_config(found, folder / name, values, sides)
    return found


def _add_config(found: Found, file: Path, values: dict[str, Any], sides: Sides) -> Found:
    if found.preprocess is None and found.problem is None:
        try:
            if config := of_config(str(file), values, sides, ours=False):
                found = replace(found, preprocess=config[0], preprocess_from=f"{file.name} ({config[1]})")
        except UsageError as error:
            found = replace(found, problem=error)
    if values.get("problem_type") == "multi_label_classification":
        raise ModelError(f"{file}: its model gives several labels to one image (problem_type); only one can be scored")
    try:
        if found.labels is None and (names := _labels(file, values)):
            found = replace(found, labels=names, labels_from=file.name)
    except UsageError as error:
        found = replace(found, labels_problem=str(error))
    return found


def _read(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is no such file. Raises UsageError, InputError."""
    values = read_json(file) if file.exists() else {}
    if not isinstance(values, dict):
        raise UsageError(f"{file}: is not a JSON object; correct it")
    return values


def _labels(file: Path, values: dict[str, Any]) -> tuple[str, ...] | None:
    """`id2label` of Hugging Face, or `label_names` of timm with their descriptions. Raises UsageError."""
    if names := values.get("id2label"):
        return _required_labels(f"{file}: id2label", names)
    names = values.get("label_names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        texts = values.get("label_descriptions") or {}
        return tuple(str(texts.get(name, name)) if isinstance(texts, dict) else name for name in names)
    return None


def _required_labels(where: str, names: Any) -> tuple[str, ...]:
    """See `labels_of`. Raises UsageError if there are none."""
    labels = labels_of(names)
    if labels is None:
        raise UsageError(f"{where} does not give a label for each index from 0; correct it")
    return tuple(labels)


def _ultralytics_metadata(path: Path, metadata: dict[str, str]) -> Found:
    if metadata["task"] != "classify":
        raise ModelError(f"{path}: its metadata says task {metadata['task']}; only classifiers can be adopted")
    where = "the model's metadata (Ultralytics)"
    names, size = _literal(metadata["names"]), _literal(metadata.get("imgsz", ""))
    sides = size if isinstance(size, list | tuple) else [size, size]
    labels, problem = None, ""
    try:
        labels = _required_labels(f"{path}: names in its metadata", names)
    except UsageError as error:
        problem = str(error)
    known = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    preprocess = of_ultralytics(*sides) if known else None
    return Found(preprocess, where if preprocess else "", None, labels, where if labels else "", problem)


def _literal(text: str) -> Any:
    try:
        return parse_literal(text)
    except ValueError:
        return None

"""Find the configuration of a foreign model: files beside it, and its metadata."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx

from batchland.errors import ModelError, UsageError
from batchland.models.foreign import declared_sides
from batchland.models.foreign_preprocess import ForeignPreprocess, Sides, of_config, of_ultralytics
from batchland.system.json_text import DuplicateKeyError, parse_json, parse_literal
from batchland.system.regular_files import read_regular

_log = logging.getLogger("batchland")

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
            if (values := _read(folder / name)) is not None:
                found = _add_config(found, folder / name, values, sides)
    return found


def _add_config(found: Found, file: Path, values: Any, sides: Sides) -> Found:
    if found.preprocess is None and found.problem is None:
        try:
            if config := of_config(str(file), values, sides, ours=False):
                found = replace(found, preprocess=config[0], preprocess_from=f"{file.name} ({config[1]})")
        except UsageError as error:
            found = replace(found, problem=error)
    if isinstance(values, dict) and values.get("problem_type") == "multi_label_classification":
        raise ModelError(f"{file}: its model gives several labels to one image (problem_type); only one can be scored")
    if found.labels is None and (names := _labels(file, values)):
        found = replace(found, labels=names, labels_from=file.name)
    return found


def _read(file: Path) -> Any:
    """The content of a JSON file; None if there is none, or it is something else."""
    try:
        return parse_json(read_regular(file))
    except DuplicateKeyError as error:
        raise UsageError(f"{file}: {error}; correct it") from error
    except (OSError, ValueError, RecursionError):
        return None


def _labels(file: Path, values: Any) -> tuple[str, ...] | None:
    """`id2label` of Hugging Face, or `label_names` of timm with their descriptions.

    A warning says that an `id2label` cannot be used.
    """
    if not isinstance(values, dict):
        return None
    if isinstance(names := values.get("id2label"), dict):
        if (labels := _labels_by_index(names)) is None and names:
            _log.warning("%s: id2label is not used, because it does not give each index from 0 on its label", file)
        return labels
    names = values.get("label_names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        texts = values.get("label_descriptions") or {}
        return tuple(str(texts.get(name, name)) if isinstance(texts, dict) else name for name in names)
    return None


def _labels_by_index(names: dict[Any, Any]) -> tuple[str, ...] | None:
    by_index = {str(index): str(name) for index, name in names.items()}
    labels = [by_index.get(str(index)) for index in range(len(by_index))]
    known = tuple(label for label in labels if label)
    return known if known and len(known) == len(labels) else None


def _ultralytics_metadata(path: Path, metadata: dict[str, str]) -> Found:
    if metadata["task"] != "classify":
        raise ModelError(f"{path}: its metadata says task {metadata['task']}; only classifiers can be adopted")
    where = "the model's metadata (Ultralytics)"
    try:
        names, size = _literal(metadata["names"]), _literal(metadata.get("imgsz", ""))
    except DuplicateKeyError as error:
        raise ModelError(f"{path}: its metadata {error}; export the model again") from error
    sides = size if isinstance(size, list | tuple) else [size, size]
    labels = _labels_by_index(names) if isinstance(names, dict) else None
    known = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    preprocess = of_ultralytics(*sides) if known else None
    return Found(preprocess, where if preprocess else "", None, labels, where if labels else "")


def _literal(text: str) -> Any:
    try:
        return parse_literal(text)
    except DuplicateKeyError:
        raise
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None

"""Describe a run: its fingerprint, the metadata of its Parquet files, and its manifest."""

import hashlib
import json
import platform
import socket
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from batchland._version import __version__
from batchland.images.sources.source import Source
from batchland.models.session import OpenModel
from batchland.predictions.schema import Execution, Manifest, ModelInfo, PredictionsInfo
from batchland.predictions.writer import Survey
from batchland.scoring.options import ScoreOptions
from batchland.system.cores import usable_cores
from batchland.system.names import display_path
from batchland.system.packages import installed_version

CONTENT_OPTIONS: Final = ("top_k", "probabilities", "signals", "features", "batch_size", "intra_op_threads")
"""The options that the content of a row depends on."""
ROW_OPTIONS: Final = (*CONTENT_OPTIONS, "include", "exclude", "all_files", "follow_links")
"""The options that the rows depend on: their content, and which images have one."""
_PACKAGES: Final = ("onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "simplejpeg", "cykooz-resizer", "pyarrow")


def fingerprint(source: Source, own: pa.Schema, options: ScoreOptions, model: OpenModel) -> dict[str, Any]:
    """Everything that the rows depend on, except the images. own: further columns of the output."""
    columns = {"own": {field.name: str(field.type) for field in own}} if len(own) else {}
    return columns | {
        "schema_version": 1,
        "model": model.sha256,
        "provider": model.provider,
        "decoder": model.decoder,
        "images": source.name,
        "options": _chosen(options.model_dump(mode="json"), ROW_OPTIONS),
        "versions": versions(),
    }


def row_fingerprint(options: ScoreOptions, model: OpenModel) -> dict[str, Any]:
    """Everything that an image's row depends on, except its file."""
    return {
        "model": model.sha256,
        "provider": model.provider,
        "decoder": model.decoder,
        "versions": versions(),
        "options": _chosen(options.model_dump(mode="json"), CONTENT_OPTIONS),
    }


def stored_row_fingerprint(manifest: Manifest) -> dict[str, Any]:
    """The row_fingerprint of an earlier run."""
    return {
        "model": manifest.model.sha256,
        "provider": manifest.provider,
        "decoder": manifest.decoder,
        "versions": manifest.versions,
        "options": _chosen(manifest.config, CONTENT_OPTIONS),
    }


def _chosen(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Some of the options. `features` is left out if it is false, as in runs of earlier versions."""
    return {name: values.get(name) for name in names if name != "features" or values.get(name)}


def run_id(run: dict[str, Any], input_fingerprint: str) -> str:
    """The id of the output of such a run over this input."""
    return hashlib.sha256((json.dumps(run, sort_keys=True) + input_fingerprint).encode()).hexdigest()[:16]


def predictions_info(
    source: Source, own: pa.Schema, options: ScoreOptions, model: OpenModel, survey: Survey
) -> PredictionsInfo:
    """For the metadata of the Parquet files. own: their further columns."""
    return PredictionsInfo(
        run_id=run_id(fingerprint(source, own, options, model), survey.input_fingerprint),
        model=ModelInfo(
            name=model.card.name,
            architecture=model.card.architecture,
            sha256=model.sha256,
            file=display_path(model.path),
            features_of=model.card.features_of,
        ),
        classes=model.card.classes,
        images=source.name,
        device=model.device,
        provider=model.provider,
        decoder=model.decoder,
        batch_size=options.batch_size,
        top_k=min(options.top_k, len(model.card.classes)),
        counts=survey.counts,
        versions=versions(),
    )


def config(options: ScoreOptions, **locations: str | Path | None) -> dict[str, object]:
    """All options, and `locations` without their credentials."""
    named = {name: location and display_path(location) for name, location in locations.items()}
    return options.model_dump(mode="json") | named | {"reuse": [display_path(each) for each in options.reuse]}


def execution(model: OpenModel, decoded_on_gpu: int) -> Execution | None:
    """How GPUs ran the model; None on the CPU."""
    if not model.nodes:
        return None
    return Execution(
        nodes=dict(model.nodes),
        cpu_nodes=model.cpu_nodes,
        settings=dict(model.settings),
        decoded_on_gpu=decoded_on_gpu,
    )


def versions() -> dict[str, str]:
    """Versions of Python, batchland and the packages that decide what the rows are."""
    return dict(_installed_versions())


@cache
def _installed_versions() -> dict[str, str]:
    """Read once: finding the version of a package takes milliseconds."""
    found = {"python": platform.python_version(), "batchland": __version__}
    return found | {package: number for package in _PACKAGES if (number := installed_version(package))}


def complete_manifest(info: PredictionsInfo, survey: Survey, **facts: Any) -> Manifest:
    """The manifest of a complete output. facts: the fields that neither `info` nor `survey` gives."""
    return Manifest(
        **info.model_dump(include={"run_id", "model", "images", "device", "provider", "decoder", "versions"}),
        created_at=datetime.now(UTC).isoformat("T", "seconds"),
        input_fingerprint=survey.input_fingerprint,
        counts=survey.counts,
        host=socket.gethostname(),
        cores=usable_cores(),
        **facts,
    )

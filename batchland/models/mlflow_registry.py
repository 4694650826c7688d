"""Models from an MLflow registry by URL (extra `mlflow`). A version is downloaded once, into this user's cache."""

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from batchland.errors import ModelError
from batchland.models.contract import tensor_outside
from batchland.models.registry import Found, Reference
from batchland.system.folders import cache_folder, new_folder
from batchland.system.text import first_line
from batchland.system.urls import display_url


def find_in_mlflow(url: str, reference: Reference) -> Found:
    """The version that a reference means in the registry at `url`, downloaded. Raises ModelError."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow
    except ImportError as error:
        raise ModelError(f"{display_url(url)}: an MLflow registry needs the extra mlflow; install it") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(url)  # `models:/` URIs use this global setting
    mlflow.set_registry_uri(url)
    try:
        version = _version(mlflow.MlflowClient(url, url), reference)
        cached = cache_folder() / "mlflow" / hashlib.sha256(url.encode()).hexdigest()[:16] / reference.name / version
        if not cached.exists():
            uri = f"models:/{reference.name}/{version}"
            with new_folder(cached) as folder:
                artifacts = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder / "artifacts"))
                _keep_model(Path(artifacts), folder, reference)
    except (mlflow.MlflowException, OSError) as error:
        reason = first_line(error).replace(url, display_url(url))  # it may hold a password
        raise ModelError(f"{display_url(url)}: {reference} cannot be fetched ({reason})") from error
    return Found(cached / f"{reference.name}.onnx", version, None)


def _version(client: Any, reference: Reference) -> str:
    if reference.version.isdecimal():
        return str(client.get_model_version(reference.name, reference.version).version)
    return str(client.get_model_version_by_alias(reference.name, reference.version).version)


def _keep_model(artifacts: Path, folder: Path, reference: Reference) -> None:
    """Keep the one ONNX file of the artifacts, with its canaries, under the model's name.

    Weights that mlflow.onnx has put into a second file are put back.
    """
    found = [path for path in artifacts.rglob("*.onnx") if path.is_file()]
    if len(found) != 1:
        raise ModelError(f"{reference}: has {len(found)} ONNX files among its artifacts; log one, as mlflow.onnx does")
    if tensor_outside(found[0].read_bytes()):
        import onnx

        from batchland.models.foreign import load_foreign

        onnx.save(load_foreign(found[0]), found[0])
    found[0].replace(folder / f"{reference.name}.onnx")
    for canaries in artifacts.rglob("*.canaries.parquet"):
        canaries.replace(folder / f"{reference.name}.canaries.parquet")
    shutil.rmtree(folder / "artifacts")

"""Find the version of a model that a reference means: in a folder, or at the URL of an MLflow server."""

from pathlib import Path

from batchland.models.registry import FolderRegistry, Found, Reference


def find_model_version(registry: Path | str, reference: Reference) -> Found:
    """The file and the number of the version. Raises ModelError if the registry does not have it."""
    if isinstance(registry, Path):
        return FolderRegistry(registry).find(reference)
    from batchland.models.mlflow_registry import find_in_mlflow  # an extra

    return find_in_mlflow(registry, reference)

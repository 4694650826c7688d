"""Keep a fitted reference in a file, because reading and fitting 60 nights takes longer than a verdict.

The file is a cache: if it is missing or damaged, the reference is fitted again.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchland.monitoring.orientation import Discriminants
from batchland.monitoring.reference import Reference
from batchland.monitoring.statistics import Pool
from batchland.system.files import write_file
from batchland.system.regular_files import open_regular

_KEY: Final = "key"
_PARTS: Final = {"pool": Pool, "discriminants": Discriminants}


def read_reference(path: Path, key: str) -> Reference | None:
    """The reference that was kept with this key; None if there is none, or if it cannot be read."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as stored:
            if str(stored[_KEY]) != key:
                return None
            parts = {name: kind(**_values(stored, f"{name}.")) for name, kind in _PARTS.items()}
            reference = Reference(**parts, **_values(stored, ""))
            figures = len(reference.pool.statistics)  # of a present program; an earlier one may have had fewer
            return reference if reference.night_figures.shape[1] == len(reference.between) == figures else None
    except Exception:  # zipfile and numpy raise almost anything on damage
        return None


def write_reference(path: Path, key: str, reference: Reference) -> None:
    """Keep a reference. Raises OutputError."""
    arrays = dict(_arrays(reference, ""))
    arrays[_KEY] = np.array(key)
    write_file(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def _arrays(record: Any, prefix: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _arrays(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", np.asarray(value)


def _values(stored: Any, prefix: str) -> dict[str, Any]:
    """The fields of a record; numbers are arrays without dimensions."""
    names = [name for name in stored if name != _KEY and name.rpartition(".")[0] == prefix.rstrip(".")]
    arrays = ((name.removeprefix(prefix), stored[name]) for name in names)
    return {name: array if array.ndim else array.item() for name, array in arrays}

"""Cache small results on disk, by the values that they depend on."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from batchland.errors import OutputError
from batchland.system.files import write_file

Value = TypeVar("Value")


def cached(folder: Path, key: Mapping[str, object], make: Callable[[], Any], parse: Callable[[Any], Value]) -> Value:
    """The parsed result of `make`, from a file in `folder` if there is one for the same `key`.

    make: returns what JSON can hold. parse: raises TypeError, ValueError or AttributeError for a damaged result.
    The folder need not be writable.
    """
    text = json.dumps(key, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        found = json.loads(path.read_text())
        if found["key"] == json.loads(text):
            return parse(found["value"])
    value = make()
    with contextlib.suppress(OutputError):
        write_file(path, json.dumps({"key": key, "value": value}) + "\n")
    return parse(value)

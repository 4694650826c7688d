"""Parse JSON and Python literals that people write. A duplicate key is an error; Python's parsers keep the last one."""

import ast
import json
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from batchland.errors import UsageError
from batchland.system.files import read_error
from batchland.system.regular_files import read_regular


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UsageError, or InputError if the storage fails."""
    try:
        return parse_json(read_regular(path))
    except OSError as error:
        raise read_error(error, str(path), expected="a JSON file") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}; correct it") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError: `is not JSON (...)`, or `has the key 'a' 2 times`."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error


def parse_literal(text: str) -> Any:
    """The value of a Python literal. Raises ValueError, with the same message for a duplicate key."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"is not a Python literal ({error})") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _check(ast.literal_eval(key) for key in node.keys if key is not None)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        _check(key for key, _ in pairs)
    return values


def _check(keys: Iterable[Hashable]) -> None:
    key, times = next(iter(Counter(keys).most_common(1)), (None, 0))
    if times > 1:
        raise ValueError(f"has the key {key!r} {times} times")

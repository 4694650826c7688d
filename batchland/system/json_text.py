"""Parse JSON and Python literals that people write. A duplicate key is an error; Python's parsers keep the last one."""

import ast
import json
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any


class DuplicateKeyError(ValueError):
    """A dictionary contains a key more than once."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises DuplicateKeyError, or ValueError if it is no JSON."""
    return json.loads(text, object_pairs_hook=_unique)


def parse_literal(text: str) -> Any:
    """The value of a Python literal. Raises DuplicateKeyError, and what `ast.literal_eval` raises."""
    tree = ast.parse(text.strip(), mode="eval")
    value = ast.literal_eval(tree)
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
        raise DuplicateKeyError(f"has the key {key!r} {times} times")

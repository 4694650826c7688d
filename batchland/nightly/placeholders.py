"""Placeholders in a job file: `${NAME}` is a variable of the environment, `${file:PATH}` the content of a file.

`$${NAME}` gives the text `${NAME}`; a `${` that is not closed is an error. The values are secrets: they are neither
recorded nor printed. The exceptions are keys that records must contain (paths, patterns, gates): they show the value of
a variable, and files are refused there.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RECORDED: Final = frozenset(
    (
        "name", "root", "images", "include", "exclude", "model", "models", "output", "runs", "metrics", "ray_address",
        "delivery", "evaluation", "notify.link",
    )
)  # fmt: skip
"""Keys and tables with values that records or notifications must contain."""
_PLACEHOLDER: Final = re.compile(r"\$(\$\{)|\$\{(file:)?([^{}]*)(\}?)")
_MIN_HIDDEN_LENGTH: Final = 4
"""Characters. A shorter value is hidden only if it is a whole setting, because elsewhere it may be a common word."""


class Placeholders:
    """Fills placeholders in the strings of a job file, and hides the secret values again.

    folder: of the job file; relative paths of files begin there. extra: variables that take precedence over those of
    the environment.
    """

    def __init__(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = os.environ | dict(extra or {})
        self.variables: set[str] = set()
        """Names of the variables that the job file uses."""
        self._secrets: dict[str, str] = {}
        """Value -> placeholder."""

    @property
    def secret_variables(self) -> set[str]:
        """Names of the variables of the environment with secret values."""
        return {placeholder[2:-1] for placeholder in self._secrets.values() if not placeholder.startswith("${file:")}

    def fill(self, value: Any, keys: Sequence[str] = ()) -> Any:
        """`value` with all its strings filled, those of lists and tables included.

        keys: the path of the value in the job file. Raises ValueError, which names the key and the placeholder.
        """
        if isinstance(value, dict):
            return {key: self.fill(item, (*keys, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, keys) for item in value]
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda match: match[1] or self._value(match, keys), value)
        return value

    def hide(self, text: str) -> str:
        """The text with its secret values replaced by their placeholders."""
        for value in sorted(self._secrets, key=len, reverse=True):
            if text == value or len(value) >= _MIN_HIDDEN_LENGTH:
                text = text.replace(value, self._secrets[value])
        return text

    def hide_all(self, value: Any) -> Any:
        """A JSON value with `hide` applied to all its strings."""
        if isinstance(value, dict):
            return {key: self.hide_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide_all(item) for item in value]
        return self.hide(value) if isinstance(value, str) else value

    def _value(self, match: re.Match[str], keys: Sequence[str]) -> str:
        placeholder, in_file, source, closed = match[0], match[2], match[3], match[4]
        where = f'"{".".join(keys)}": {placeholder}'
        if not closed:
            raise ValueError(f"{where} has no closing brace; for this text itself write ${placeholder}")
        if not source.strip():
            raise ValueError(f"{where} names no {'file' if in_file else 'variable'}")
        recorded = keys and not RECORDED.isdisjoint((keys[0], ".".join(keys[:2])))
        if in_file and recorded:
            raise ValueError(f"{where} would be secret, but the records name this value; write it out")
        if not in_file:
            self.variables.add(source)
        value = self._read(where, source) if in_file else self._environment.get(source)
        if value is None:
            raise ValueError(f"{where} is not set in the environment; for this text itself write ${placeholder}")
        if value and not recorded:
            lines = filter(None, map(str.strip, value.splitlines()))
            for text in (value, repr(value)[1:-1], json.dumps(value)[1:-1], *lines):  # as messages show it, too
                self._secrets.setdefault(text, placeholder)
        return value

    def _read(self, where: str, source: str) -> str:
        try:
            value = (self._folder / source).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"{where} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text") from error
        if not value:
            raise ValueError(f"{where} is empty")
        return value

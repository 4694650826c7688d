"""Read the class labels of a foreign model: one label per line, or a dictionary or list as JSON or Python prints it."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Final

from batchland.errors import UsageError
from batchland.system.files import read_error
from batchland.system.json_text import DuplicateKeyError, parse_json, parse_literal
from batchland.system.names import composed
from batchland.system.regular_files import read_regular
from batchland.system.text import first_few

_log = logging.getLogger("batchland")

_ASSIGNMENT: Final = re.compile(r"\A\s*\w+\s*=\s*(?=[{\[])")
"""`labels = ` before a literal."""
_BYTE_ORDER_MARK: Final = "\ufeff"


def read_class_list(path: Path) -> list[str]:
    """Labels in the order of the model's outputs, in Unicode's composed form (NFC), each of them unique.

    Besides one label per line, the file may hold a list of labels, a dictionary from index to label or from label to
    index, or a dictionary with such a one as `id2label`. Equal labels get their index appended. Raises UsageError.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise read_error(error, str(path), expected="a file with one label per line") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text; give one label per line") from error
    text = _ASSIGNMENT.sub("", text).strip()
    if text.startswith(("{", "[")):
        labels = _labels_of(path, _literal(path, text))
    else:
        labels = [line.strip().removeprefix(_BYTE_ORDER_MARK) for line in re.split(r"\r\n?|\n", text)]
        if "" in labels:
            number = labels.index("") + 1
            raise UsageError(f"{path}: line {number} is empty; give one label per line, in the model's order")
        if marks := _marks(labels):
            raise UsageError(f"{path}: every line has {marks} besides the label; give one label per line, and no more")
    for number, label in enumerate(labels):
        if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in label):
            raise UsageError(f"{path}: label {number}, {label!r}, has control characters; give text in UTF-8")
    return unique_labels(path, labels)


def _marks(labels: Sequence[str]) -> str | None:
    """Text that all lines have besides the label: quotes of CSV, dashes of YAML, numbers. None if there is none."""
    if all(re.fullmatch(r"(\"[^\"]*\"|'[^']*'),?", label) for label in labels):
        return "quotes"
    if all(label.startswith("- ") for label in labels):
        return "a dash"
    for first in (0, 1):
        marks = r"\s*[:,;\t]" if first else r"\s*[:,;\s]"  # `1 euro`, `2 euro` may be labels
        if all(re.match(rf"0*{number}{marks}", label) for number, label in enumerate(labels, first)):
            return "its number"
    return "a comma at its end" if all(label.endswith(",") for label in labels) else None


def _literal(path: Path, text: str) -> Any:
    for parse in (parse_json, parse_literal):
        try:
            return parse(text)
        except DuplicateKeyError as error:
            raise UsageError(f"{path}: {error}; give each label once") from error
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    raise UsageError(f"{path}: begins like a dictionary or a list, but cannot be parsed; give one label per line")


def _labels_of(path: Path, value: Any) -> list[str]:
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = value["id2label"]
    if isinstance(value, dict) and value and all(type(index) is int for index in value.values()):
        value = {index: label for label, index in value.items()} if len(set(value.values())) == len(value) else {}
    if isinstance(value, dict):
        by_index = {str(index): label for index, label in value.items()}
        value = [by_index.get(str(index)) for index in range(len(value))]
    if not (isinstance(value, list) and value and all(isinstance(label, str) and label.strip() for label in value)):
        raise UsageError(
            f"{path}: is neither a list of labels nor a dictionary that gives each index from 0 on its label; give one "
            f"label a line, in the model's order"
        )
    return [label.strip() for label in value]


def unique_labels(path: Path, labels: Sequence[str]) -> list[str]:
    """Labels in Unicode's composed form (NFC), without invisible characters at their ends (with a warning).

    Labels that look the same get their index appended, with a warning.
    """
    written = [composed(label) for label in labels]
    labels = [_trimmed(label) for label in written]
    if changed := [label for label, before in zip(labels, written, strict=True) if label != before]:
        _log.warning("%s: invisible characters are left out at the ends of: %s", path, first_few(changed))
    looks = ["".join(sign for sign in label if not _is_invisible(sign)) for label in labels]
    counts = Counter(looks)
    duplicates = [look for look, count in counts.items() if count > 1]
    if duplicates:
        verb = "appears" if len(duplicates) == 1 else "appear"
        _log.warning("%s: %s %s more than once; their indices are appended", path, ", ".join(duplicates), verb)
    return [
        label if counts[look] == 1 else _with_index(label, index, counts)
        for index, (label, look) in enumerate(zip(labels, looks, strict=True))
    ]


def _with_index(label: str, index: int, taken: Container[str]) -> str:
    """The label with its index appended, more than once if the result is another label."""
    named = f"{label} ({index})"
    return _with_index(named, index, taken) if named in taken else named


def _trimmed(label: str) -> str:
    """Without invisible characters at both ends, unless there is nothing else."""
    begin = next((at for at, sign in enumerate(label) if not _is_invisible(sign)), 0)
    end = next((at for at, sign in enumerate(reversed(label)) if not _is_invisible(sign)), 0)
    return label[begin : len(label) - end]


def _is_invisible(sign: str) -> bool:
    """Whether it is a space of no width, a mark of the writing direction or the like."""
    return unicodedata.category(sign) == "Cf"

"""Read the class labels of a foreign model: lines of text, or a dictionary or list as JSON or Python prints it."""

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
_INDEX_FIRST: Final = re.compile(
    r'["(#]*(?P<index>-?[0-9]++)(?!\.[0-9])(?P<mark>"?[-,;:|=.)_/>\s]+)(?P<quote>"?)(?P<label>.+)(?P=quote)'
)
_INDEX_LAST: Final = re.compile(
    r'(?P<quote>"?)(?P<label>.+?)(?P=quote)(?P<mark>[-,;:|=(_/>\s]+"?)(?P<index>[0-9]++)[")]*'
)
_COLUMNS: Final = ",;:|=\t"
"""Characters that separate the columns of a table. A number behind or before one of them is not a part of a label."""
_HEADER: Final = re.compile(r"[\W_]*((category|categories|class|classes|id|idx|index|labels?|names?|number)[\W_]*)+")
"""The first line of a table, in lower case."""


def read_class_list(path: Path) -> list[str]:
    """Labels in the order of the model's outputs, in Unicode's composed form (NFC), each of them unique.

    The file has one label per line, or an index and a label per line (see `_labels_of_lines`), or holds a list of
    labels, a dictionary from index to label or from label to index, or a dictionary with such a one as `id2label`.
    Equal labels get their index appended. Raises UsageError.
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
        labels = _labels_of_lines(path, labels)
        if marks := _marks(labels):
            raise UsageError(f"{path}: every line has {marks} besides the label; give one label per line, and no more")
    return unique_labels(path, labels)


def _labels_of_lines(path: Path, lines: list[str]) -> list[str]:
    """The lines, or if every line has its index, the labels in the order of the indices. Raises UsageError.

    The indices are the numbers from 0 on, in any order, before the labels, or behind them and a comma or the like. A
    header may be above them. A number is a part of the label if most lines are equal without it, as `class 0` and
    `class 1` are, or if the numbers are others, as in `Boeing 747`. Whatever may be either is an error.
    """
    numbered = _numbered(lines)
    has_header = bool(_HEADER.fullmatch(lines[0].lower()))
    if numbered is None and len(lines) > 2:
        body = _numbered(lines[1:])
        if body and (has_header or _has_columns(body)):
            numbered = body
    if numbered is None:
        if has_header or (lines[0].startswith("# ") and not lines[-1].startswith("#")):
            raise UsageError(
                f"{path}: line 1, {lines[0]!r}, looks like a header; leave it out, or give a JSON list of the labels"
            )
        return lines
    by_index = {int(line["index"]): line["label"] for line in numbered}
    first, count = min(by_index), len(numbered)
    complete = len(by_index) == count and max(by_index) == first + count - 1 and first in (0, 1)
    are_folders = all(line["mark"] == "." for line in numbered)
    if are_folders and complete and (first == 0 or list(by_index) == sorted(by_index)):
        return [line.string for line in sorted(numbered, key=lambda line: int(line["index"]))]
    if not (complete or _has_columns(numbered)):
        return lines
    certain = numbered[0].re is _INDEX_FIRST or _has_columns(numbered)
    if not (complete and first == 0 and certain) or all(label.isdigit() for label in by_index.values()):
        raise UsageError(
            f"{path}: every line has a number that may be its index; give each line its index from 0 to {count - 1}, "
            f"a comma and its label, or give a JSON list of the labels"
        )
    separators = set.intersection(*(set(line["mark"]) & set(line["label"]) & set(",;|\t") for line in numbered))
    if separators:
        raise UsageError(f"{path}: has more than two columns; give one label per line, in the model's order")
    return [by_index[index] for index in range(count)]


def _numbered(lines: Sequence[str]) -> list[re.Match[str]] | None:
    """The indices and labels of all lines; None if not all have a number, or if most are equal without it."""
    for pattern in (_INDEX_FIRST, _INDEX_LAST):
        found = [match for line in lines if (match := pattern.fullmatch(line))]
        if len(found) == len(lines) < 2 * len({match["label"] for match in found}):
            return found
    return None


def _has_columns(lines: Sequence[re.Match[str]]) -> bool:
    return all(set(line["mark"]) & set(_COLUMNS) for line in lines)


def _marks(labels: Sequence[str]) -> str | None:
    """Text that all lines have besides the label: quotes of CSV, dashes of YAML. None if there is none."""
    if all(re.fullmatch(r"(\"[^\"]*\"|'[^']*'),?", label) for label in labels):
        return "quotes"
    if all(label.startswith("- ") for label in labels):
        return "a dash"
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

    Labels that look the same get their index appended, with a warning. Raises UsageError if one is not text.
    """
    for number, label in enumerate(labels):
        if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in label):
            raise UsageError(f"{path}: label {number}, {label!r}, has control characters; give text in UTF-8")
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

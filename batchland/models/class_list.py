"""Read the class labels of a foreign model: lines of text, or a dictionary or list as JSON or Python prints it."""

import csv
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

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
_INDEX: Final = re.compile("-?[0-9]{1,6}")
_INDEX_FIRST: Final = re.compile(
    r"(?P<index>-?[0-9]{1,6})(?P<mark>\s*([,;]|[|=:](?![0-9]))\s*|\s*[-.)]?\s+|\.(?![0-9]))(?P<label>.+)"
)
_INDEX_LAST: Final = re.compile(
    r"(?P<label>.*[^\s,;|=:])(?P<mark>\s*([,;]|(?<![0-9])[|=:])\s*|\s+)(?P<index>[0-9]{1,6})"
)
_COLUMNS: Final = ",;|=:\t"
"""Characters that separate the columns of a table."""
_HEADER: Final = re.compile(r"[\W_]*((category|categories|class|classes|id|idx|index|labels?|names?|number)[\W_]*)+")
"""The first line of a table, in lower case."""
_UNKNOWN_HEADER: Final = re.compile(rf"[^0-9]*[{_COLUMNS}][^0-9]*")


class _Line(NamedTuple):
    number: int
    mark: str
    """What separates index and label; it contains a quote if the cells are quoted as in CSV."""
    label: str
    is_first: bool
    """Whether the index is before the label."""


def read_class_list(path: Path) -> list[str]:
    """Labels in the order of the model's outputs, in Unicode's composed form (NFC), each of them unique.

    The file has one label per line, or an index and a label per line (see `_labels_by_index`), or holds a list of
    labels, a dictionary from index to label or from label to index, or a dictionary with one of these as `id2label`.
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
    """The lines, or their labels in the order of their indices, which may have a header. Raises UsageError."""
    has_header = bool(_HEADER.fullmatch(lines[0].lower()))
    is_table = bool(_UNKNOWN_HEADER.fullmatch(lines[0])) and _is_table(_numbered(lines[1:]))
    labels = _labels_by_index(path, lines[1:] if len(lines) > 2 and (has_header or is_table) else lines)
    if labels is None and (has_header or (lines[0].startswith("# ") and not lines[-1].startswith("#"))):
        raise UsageError(
            f"{path}: line 1, {lines[0]!r}, looks like a header; leave it out, or give a JSON list of the labels"
        )
    return labels or lines


def _labels_by_index(path: Path, lines: list[str]) -> list[str] | None:
    """Labels in the order of their indices, or None if numbers are parts of the labels. Raises UsageError.

    | numbers of n lines                                | result                      |
    | ------------------------------------------------- | --------------------------- |
    | some lines have none                              | None                        |
    | column of a table: 0 to n - 1, in any order       | labels                      |
    | column of a table: others                         | error                       |
    | at a blank or dot: with gaps                      | None (`Boeing 747`)         |
    | at a blank or dot: most lines are equal otherwise | None (`class 0`, `class 1`) |
    | before a dot without a blank: ascending           | None (`09.Lake`)            |
    | before a blank: 0 to n - 1, ascending             | labels                      |
    | at a blank or dot: others                         | error                       |

    Labels that `_unclear_label` finds are errors.
    """
    numbered = _numbered(lines)
    if not numbered:
        return None
    indices, count = [line.number for line in numbered], len(numbered)
    ascends, from_0 = indices == sorted(indices), sorted(indices) == list(range(count))
    is_certain = from_0
    if not _is_table(numbered):
        has_gaps = not from_0 and sorted(indices) != list(range(1, count + 1))
        are_folders = ascends and all(line.mark == "." for line in numbered)
        if has_gaps or are_folders or count >= 2 * len({line.label for line in numbered}):
            return None
        is_certain = from_0 and ascends and numbered[0].is_first
    if not is_certain:
        raise UsageError(
            f"{path}: every line has a number that may be its index; give each line its index from 0 to {count - 1}, "
            f"a comma and its label, or give a JSON list of the labels"
        )
    separators = [set() if '"' in line.mark else {*line.mark} & {*line.label} & {*",;|\t"} for line in numbered]
    if set.intersection(*separators):
        raise UsageError(f"{path}: has more than two columns; give one label per line, in the model's order")
    if unclear := _unclear_label(numbered):
        raise UsageError(
            f"{path}: every line has a number that may be its index or a part of its label: without it, {unclear!r} "
            f"begins or ends with a digit or separator, or is like another label; give a JSON list of the labels"
        )
    return [line.label for line in sorted(numbered)]


def _numbered(lines: Sequence[str]) -> list[_Line]:
    """Index and label of each line; empty if the lines do not all have an index on the same side."""
    for is_first in (True, False):
        found = [numbered for line in lines if (numbered := _quoted(line, is_first) or _unquoted(line, is_first))]
        if len(found) == len(lines):
            return found
    return []


def _unquoted(line: str, is_first: bool) -> _Line | None:
    match = (_INDEX_FIRST if is_first else _INDEX_LAST).fullmatch(line)
    return _Line(int(match["index"]), match["mark"], match["label"], is_first) if match else None


def _quoted(line: str, is_first: bool) -> _Line | None:
    """Two cells with quotes as in CSV; None if the line has no such cells."""
    for mark in f"{_COLUMNS} " if '"' in line else "":
        with suppress(csv.Error):
            cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True))
            index, label = (cells if is_first else cells[::-1]) if len(cells) == 2 else ("", "")
            if _INDEX.fullmatch(index) and label.strip():
                return _Line(int(index), f'"{mark}', label.strip(), is_first)
    return None


def _is_table(lines: Sequence[_Line]) -> bool:
    return bool(lines) and all(set(line.mark) & set(_COLUMNS) for line in lines)


def _unclear_label(lines: Sequence[_Line]) -> str | None:
    """The first label that may have its number as a part: it begins with a digit or separator, or ends with a digit.

    So may labels without a table that are equal but for digits.
    """
    looks = [re.sub("[0-9]", "", line.label) for line in lines]
    counts = Counter() if _is_table(lines) else Counter(looks)
    for (_, _, label, is_first), look in zip(lines, looks, strict=True):
        if counts[look] > 1 or re.match(r"[\d,;|=:.)>/-]", label) or (label[-1].isdigit() and not is_first):
            return label
    return None


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

    Labels that look the same get their index appended, with a warning. Raises UsageError if one is not text or is blank.
    """
    for number, label in enumerate(labels):
        if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in label):
            raise UsageError(f"{path}: label {number}, {label!r}, has control characters; give text in UTF-8")
    written = [composed(label) for label in labels]
    labels = [_trimmed(label) for label in written]
    if changed := [label for label, before in zip(labels, written, strict=True) if label != before]:
        _log.warning("%s: invisible characters are left out at the ends of: %s", path, first_few(changed))
    looks = ["".join(sign for sign in label if not _is_invisible(sign)) for label in labels]
    if blank := [number for number, look in enumerate(looks) if not look.strip()]:
        raise UsageError(f"{path}: label {blank[0]} is blank; give every class a name")
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

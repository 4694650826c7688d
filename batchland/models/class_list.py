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
from batchland.system.json_text import parse_json, parse_literal
from batchland.system.names import composed
from batchland.system.regular_files import read_regular

_log = logging.getLogger("batchland")

_ASSIGNMENT: Final = re.compile(r"\A\s*\w+\s*=\s*(?=[{\[])")
"""`labels = ` before a literal."""
_INDEXED: Final = re.compile(r'("?)(?P<index>\d{1,6})\1(?P<mark>\s*[,;\t]|[.:)]?\s)\s*(?P<label>.+)')
"""A line with an index before its label: in a table, or as text."""
_NUMBER: Final = r"(?>\d{1,6}(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_FIRST_NUMBER: Final = re.compile(rf"^\W*({_NUMBER})\W")
_LAST_NUMBER: Final = re.compile(rf"\W({_NUMBER})\W*$")
_NUMBER_CELL: Final = re.compile(rf'\W*{_NUMBER}[ "]*[,;\t].*|.*[,;\t][ "]*{_NUMBER}[ "]*')
"""A line of a table with a number in its first or last column."""
_HEADER: Final = re.compile(r"[^\d,;\t]*[,;\t]\D*")
_QUOTED: Final = re.compile(r"""(["'])(?P<label>[^"']+)\1""")


def read_class_list(path: Path) -> list[str]:
    """Labels in the order of the model's outputs, in Unicode's composed form (NFC), each of them unique.

    The file has one label per line, or an index and a label per line (see `_labels_of_lines`), or holds a list of
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
    if not text.startswith(("{", "[")):
        return unique_labels(path, _labels_of_lines(path, [line.strip() for line in re.split(r"\r\n?|\n", text)]))
    value = _literal(path, text)
    labels = labels_of(value.get("id2label", value) if isinstance(value, dict) else value)
    if labels is None:
        raise UsageError(
            f"{path}: is neither a list of labels nor a dictionary with a label for each index from 0; give one label "
            f"per line, in the model's order"
        )
    return unique_labels(path, labels)


def labels_of(value: Any) -> list[str] | None:
    """The labels of a list, or of a dictionary from index to label or from label to index; None for other values."""
    if isinstance(value, dict) and all(type(index) is int for index in value.values()):
        value = {index: label for label, index in value.items()} if len(set(value.values())) == len(value) else {}
    if isinstance(value, dict):
        by_index = {str(index): label for index, label in value.items()}
        value = [by_index.get(str(index)) for index in range(len(value))]
    if not (isinstance(value, list) and value and all(isinstance(label, str) and label.strip() for label in value)):
        return None
    return [label.strip() for label in value]


def _labels_of_lines(path: Path, lines: list[str]) -> list[str]:
    """The lines, or their labels in the order of their indices. Raises UsageError.

    The indices of a table (`2,cat`) may be in any order, those of text (`0 cat`) must ascend from 0. A table may have a
    header. Other numbers are parts of the labels, unless they are in a column of a table (`cat,0` or `0.0,cat`) or look
    like indices in another order: these are errors. Quotes around all lines are removed.
    """
    if "" in lines:
        number = lines.index("") + 1
        raise UsageError(f"{path}: line {number} is empty; give one label per line, in the model's order")
    if len(lines) > 2 and _HEADER.fullmatch(lines[0]) and all(map(_NUMBER_CELL.fullmatch, lines[1:])):
        lines = lines[1:]
    if all(quoted := [_QUOTED.fullmatch(line) for line in lines]):
        return [match["label"] for match in quoted if match]
    rest = [int(match["index"]) for line in lines[1:] if (match := _INDEXED.fullmatch(line))]
    if 0 in rest and len(rest) == len(lines) - 1 > 1 and not _INDEXED.fullmatch(lines[0]):
        raise UsageError(f"{path}: line 1, {lines[0]!r}, has no number like the others; remove it if it is a header")
    found = [match for line in lines if (match := _INDEXED.fullmatch(line))]
    indices, in_order = [int(match["index"]) for match in found], list(range(len(lines)))
    is_table = len(found) == len(lines) and all(match["mark"].strip(" ") in (*",;", "\t") for match in found)
    if are_indices := is_table or indices == in_order:
        is_unclear = sorted(indices) != in_order or all(re.fullmatch(_NUMBER, match["label"]) for match in found)
    else:
        is_unclear = _are_shuffled(_FIRST_NUMBER, lines) or all(map(_NUMBER_CELL.fullmatch, lines))
    if is_unclear or _are_shuffled(_LAST_NUMBER, lines):
        raise UsageError(
            f"{path}: every line has a number that may be its index; give each line its index from 0 to "
            f"{len(lines) - 1}, a comma and its label, or give a JSON list of the labels"
        )
    if not are_indices:
        return lines
    if is_table and any(re.search(r"[,;\t](\S|$)", match["label"]) and match["label"][0] != '"' for match in found):
        raise UsageError(f"{path}: has more than two columns; give an index, a comma and a label, in quotes if needed")
    labels = (re.sub('^"(.*)"$', r"\1", match["label"]).replace('""', '"') for match in found)
    return [label for _, label in sorted(zip(indices, labels, strict=True))]


def _are_shuffled(number: re.Pattern[str], lines: Sequence[str]) -> bool:
    """Whether the numbers of the lines are 0 to n - 1 or 1 to n in another order."""
    numbers = [float(match[1]) for line in lines if (match := number.search(line))]
    starts = (0, 1) if len(numbers) == len(lines) else ()
    return any(numbers != ordered == sorted(numbers) for ordered in (list(range(s, s + len(lines))) for s in starts))


def _literal(path: Path, text: str) -> Any:
    for parse in (parse_json, parse_literal):
        try:
            return parse(text)
        except ValueError as error:
            problem = str(error)
    if "has the key" not in problem:
        problem = "begins like a dictionary or a list, but cannot be parsed"
    raise UsageError(f"{path}: {problem}; give each label once, or one label per line")


def unique_labels(path: Path, labels: Sequence[str]) -> list[str]:
    """Labels in Unicode's composed form (NFC), without invisible characters at their ends.

    Labels that look the same get their index appended, with a warning. Raises UsageError if one is blank or not text.
    """
    for number, label in enumerate(labels):
        if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in label):
            raise UsageError(f"{path}: label {number}, {label!r}, has control characters; give text in UTF-8")
    labels = [_trimmed(composed(label)) for label in labels]
    looks = ["".join(sign for sign in label if not _is_invisible(sign)) for label in labels]
    if blank := [number for number, look in enumerate(looks) if not look.strip()]:
        raise UsageError(f"{path}: label {blank[0]} is blank; give every class a name")
    counts = Counter(looks)
    if duplicates := [look for look, count in counts.items() if count > 1]:
        verb = "appears" if len(duplicates) == 1 else "appear"
        _log.warning("%s: %s %s more than once; their indices are appended", path, ", ".join(duplicates), verb)
    return [
        label if counts[look] == 1 else _with_index(label, index, counts)
        for index, (label, look) in enumerate(zip(labels, looks, strict=True))
    ]


def _with_index(label: str, index: int, taken: Container[str]) -> str:
    """The label with its index appended, several times if other labels look like the result."""
    named = f"{label} ({index})"
    return _with_index(named, index, taken) if named in taken else named


def _trimmed(label: str) -> str:
    """Without invisible characters at both ends, such as byte order marks, unless there is nothing else."""
    shown = [at for at, sign in enumerate(label) if not _is_invisible(sign)] or [0, len(label) - 1]
    return label[shown[0] : shown[-1] + 1]


def _is_invisible(sign: str) -> bool:
    """Whether it is a space of no width, a mark of the writing direction or the like."""
    return unicodedata.category(sign) == "Cf"

"""Recognise files that are not lists of paths: text in another encoding, archives and other binary files."""

import codecs
import re
from typing import Final

COLUMNS: Final = ("image", "path", "file", "file_name", "filename", "url", "key")
"""Names of the column with the paths, in a table."""
_KINDS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32 text; save it as UTF-8",  # before UTF-16, which begins alike
    codecs.BOM_UTF32_BE: "UTF-32 text; save it as UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file (as .xlsx and .docx are)",
    b"7z\xbc\xaf": "a 7z file",
    b"Rar!": "a RAR file",
    b"PAR1": "a Parquet file; call it NAME.parquet",
}
"""By the bytes that a file begins with."""
_CONTROLS: Final = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAX_CONTROLS: Final = 0.02
"""Share of control characters above which content is binary. A strange file name has one or two."""


def kind_of(head: bytes) -> str | None:
    """The kind of a file that begins like text in another encoding or like an archive: `a zip file`."""
    return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)


def problem_with(head: bytes) -> str | None:
    """The kind of a file that begins with `head`, for messages; None if it may be a list or table of paths."""
    kind = kind_of(head)
    if not kind and (b"\0\0\0" in head or len(_CONTROLS.findall(head)) > _MAX_CONTROLS * len(head) + 1):
        kind = "binary"
    return kind and f"is {kind}"


def problem_with_lines(head: bytes) -> str | None:
    """The same for a list with one path per line."""
    if (problem := problem_with(head)) is not None:
        return problem
    if head.count(b"\n") > head.count(b"\0") > 0:
        return "has lines and zero bytes"
    first = next(iter(head.removeprefix(codecs.BOM_UTF8).splitlines()), b"")
    columns = [field.strip(b' "').lower().decode(errors="replace") for field in re.split(rb"[,;\t]", first)]
    if len(columns) > 1 and not set(COLUMNS).isdisjoint(columns) and not re.search(rb"[./\\]", first):
        return "is a table; call it NAME.csv"
    return None

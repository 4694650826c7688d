"""Recognise files that are not lists of paths: text in another encoding, archives, JSON, tables, pages, pictures."""

import codecs
import json
import re
from typing import Final

COLUMNS: Final = ("image", "path", "file", "file_name", "filename", "url", "key")
"""Names of the column with the paths, in a table."""
_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_MAGIC: Final = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip file (as .xlsx and .docx are)"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"PAR1", "a Parquet file; call it NAME.parquet"),
    (b"ARROW1", "an Arrow file"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"SQLite format 3\0", "a SQLite file"),
    (b"%PDF-", "a PDF file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x7fELF", "a program"),
)
_CONTROLS: Final = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAX_CONTROLS: Final = 0.02
"""Share of control characters above which content is binary. A strange file name has one or two."""
_MIN_ZEROS: Final = 0.4
"""If at least this share of every other byte is zero, content without a byte order mark is UTF-16."""
_TAR_MAGIC: Final = slice(257, 262)


def problem_with(head: bytes) -> str | None:
    """The kind of a file that begins with `head`, for messages; None if it may be a list or table of paths."""
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            return f"is {encoding} text; save it as UTF-8"
    if kind := kind_of(head):
        return f"is {kind}"
    if head[_TAR_MAGIC] == b"ustar":
        return "is a tar file"
    if _is_utf16(head):
        return "is UTF-16 text; save it as UTF-8"
    if len(_CONTROLS.findall(head)) > _MAX_CONTROLS * len(head) + 1:
        return "is binary"
    return None


def kind_of(head: bytes) -> str | None:
    """The kind of a file that begins with the signature of an archive, a document or a picture: `a zip file`."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def problem_with_lines(head: bytes) -> str | None:
    """The same for a list with one path per line: the name of another text format that its first line belongs to."""
    line = next(filter(None, map(bytes.strip, head.lstrip(codecs.BOM_UTF8).split(b"\n"))), b"")
    if re.match(rb"(?i)<(!doctype|html|head|body|\?xml|!--|svg|listbucketresult)", line):
        return "is HTML or XML"
    if line in (b"[", b"{") or _is_json(line):
        return "is JSON"
    fields = [field.strip().strip(b'"').lower().decode(errors="replace") for field in re.split(rb"[,;\t]", line)]
    if len(fields) > 1 and not re.search(rb"[./\\]", line) and any(name in fields for name in COLUMNS):
        return "is a table; call it NAME.csv"
    if head.count(b"\n") > head.count(b"\0") > 0:
        return "has lines and zero bytes"
    if len(line) > 2 and line[:1] == line[-1:] == b'"':
        return "has its paths in quotes"
    return None


def _is_utf16(head: bytes) -> bool:
    """Whether every other byte is zero, also around what paths have, unlike in `find -print0` of one-letter names.

    Also for a part: a shell may append UTF-16 to other text.
    """
    if any(re.search(rb"[./\\\n]\0", part) for part in re.findall(rb"(?:[^\0]\0){6,}", head)):
        return True
    return any(
        zeros.count(0) > _MIN_ZEROS * len(zeros) and re.search(sign, head)
        for zeros, sign in ((head[1::2], rb"[./\\\n]\0"), (head[0::2], rb"\0[./\\\n]"))
    )


def _is_json(line: bytes) -> bool:
    if line[:1] not in (b"{", b"["):
        return False
    if re.match(rb'\{\s*"|\[\s*[{"]', line):  # the line may go on after `head`
        return True
    try:
        return isinstance(json.loads(line.rstrip(b",")), dict | list)
    except ValueError:
        return False

"""File names and paths as valid UTF-8 text, for messages and tables, and back."""

import os
import re
import unicodedata
from typing import Final

from batchland.system.urls import display_url, is_url

_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
_LOOKS_ESCAPED: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")


def display_name(name: bytes) -> str:
    r"""A file name as valid UTF-8: invalid bytes become `\xNN`. Different names give different texts.

    (A backslash that stands before such an `xNN` in the name becomes `\x5c`.)
    """
    if b"\\x" in name:
        name = _LOOKS_ESCAPED.sub(rb"\\x5c", name)
    return name.decode("utf-8", "backslashreplace")


def is_utf8(name: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def display_path(path: str | os.PathLike[str]) -> str:
    """A path as valid UTF-8 (see `display_name`); a URL without its credentials."""
    return display_url(str(path)) if is_url(path) else display_name(os.fsencode(path))


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which equal names have equal characters."""
    return unicodedata.normalize("NFC", name)


def file_name(name: str) -> bytes:
    """The bytes of the name that `display_name` shows as `name`."""
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())

"""Error codes are stable and documented; messages are one line."""

import re
from pathlib import Path
from typing import get_args

import pytest

import batchland.errors as errors_module
from batchland.errors import BatchlandError, ErrorCode, ImageError, Interrupted, UsageError
from batchland.system.text import near_miss

DOCS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def test_the_documentation_explains_every_error_code():
    assert sorted(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)) == sorted(get_args(ErrorCode))


def test_error_codes_never_change():
    """Other programs read these: add codes, but never change or remove one."""
    assert set(get_args(ErrorCode)) >= {
        "empty", "not_an_image", "truncated", "corrupt", "unsupported_format", "too_many_pixels", "too_large",
        "out_of_memory", "timeout", "crashed", "vanished", "changed", "permission_denied", "io_error", "unreadable",
        "model_output",
    }  # fmt: skip


def test_the_documentation_explains_every_exit_code():
    kinds = [kind for kind in vars(errors_module).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, BatchlandError) and not issubclass(kind, ImageError)]
    codes = {kind.exit_code for kind in ours}
    codes |= {0, Interrupted("", 2).exit_code, Interrupted("", 15).exit_code}
    rows = re.findall(r"^\| ([\d, ]+) \|", DOCS, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == codes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),
        ("caf\xe9 \u2013 ok", "caf\xe9 \u2013 ok"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
    ],
)
def test_a_message_is_one_line_of_harmless_text(text, shown):
    assert str(UsageError(text)) == shown
    assert str(ImageError("corrupt", text)) == shown


def test_near_miss() -> None:
    assert near_miss("  EIFFEL TOWR ", ["Eiffel Tower", "Red"]) == "Eiffel Tower"
    assert near_miss("Blue", ["Eiffel Tower", "Red"]) is None

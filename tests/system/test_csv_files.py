"""Small CSV files: separators, a byte order mark, and what is wrong with other files."""

from pathlib import Path

import pytest

from batchland.errors import UsageError
from batchland.system.csv_files import read_columns


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_columns_are_text_in_the_order_asked_for(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"a{sign}other{sign}b\n1{sign}x{sign}é\n02{sign}y{sign}\n", encoding="utf-8-sig")
    assert read_columns(path, ["b", "a"], "a list") == [["é", ""], ["1", "02"]]


def test_a_line_for_excel_may_name_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('sep=;\r\na;b\r\n"1,5";2\r\n', encoding="utf-8-sig")
    assert read_columns(path, ["b", "a"], "a list") == [["2"], ["1,5"]]
    path.write_text("sep=;\na;b\n1;2\n3\n")
    with pytest.raises(UsageError, match="line 4: has 1 value, the header has 2"):
        read_columns(path, ["a", "b"], "a list")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); give a list, with the columns a, b"),
        (b"a,c\n1,2\n", "is not a list, with the columns a, b; it has no column 'b'"),
        (b"\xff\xfea", "is not a list, with the columns a, b (line 1: is not UTF-8)"),
        (b"a,b\n1\n", "is not a list, with the columns a, b (line 2: has 1 value, the header has 2)"),
    ],
)  # fmt: skip
def test_other_files_are_rejected(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_columns(path, ["a", "b"], "a list")
    assert str(caught.value) == f"{path}: {message}"

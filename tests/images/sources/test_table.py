"""Images in Parquet files: every row has a row, for all sizes of row groups."""

import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import Bucket
from toys import COLOURS, Stop, contents, options, picture, read_all, stop_after

from batchland import score
from batchland.errors import UsageError
from batchland.images.sources import random_access, refs, table
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, read_image


@pytest.fixture(autouse=True)
def _close_open_files() -> None:
    random_access.open_files.close()
    table._open_tables.close()


PICTURES = [picture(list(COLOURS.values())[number % 3], (8 + number, 8)) for number in range(100)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), "dictionary", "struct"])
@pytest.mark.parametrize("group", [1, 7, 100])
def test_every_type_of_bytes_column_is_read(tmp_path: Path, kind: Any, group: int) -> None:
    data = pa.array([*PICTURES, None], pa.binary())
    if kind == "struct":  # Hugging Face's
        column = pa.StructArray.from_arrays(
            [data, pa.array(["x.jpg"] * 101)], ["bytes", "path"], mask=pa.array([False] * 98 + [True, False, False])
        )
    elif kind == "dictionary":
        column = data.dictionary_encode()
    else:
        column = data.cast(kind)
    pq.write_table(pa.table({"label": range(101), "image": column}), tmp_path / "t.parquet", row_group_size=group)
    wanted: list[bytes | str] = [*PICTURES, "empty"]
    wanted[98] = "empty" if kind == "struct" else wanted[98]
    assert read_all(tmp_path / "t.parquet") == [(f"t.parquet#{row}", value) for row, value in enumerate(wanted)]


def test_rows_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some threads read a little late, and a rerun can start at any row."""
    monkeypatch.setattr(table, "_KEPT_BYTES", 0)
    pq.write_table(pa.table({"image": PICTURES}), tmp_path / "t.parquet", row_group_size=40)
    images = list(open_source(tmp_path / "t.parquet").images(Ignored()))
    order = list(range(100))
    random.Random(9).shuffle(order)
    assert [read_image(images[row]).data for row in order] == [PICTURES[row] for row in order]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"anything": [b"1"]}, b"1"),
        ({"thumbnail": [b"1"], "image": [b"2"], "bytes": [b"3"]}, b"2"),
        ({"image": ["a.jpg"], "content": [b"4"]}, b"4"),
        (
            {"one": [b"1"], "two": [b"2"]},
            "t.parquet: has several columns of bytes, none of a usual name, only one",
        ),
        (
            {"image": ["a.jpg"], "label": [1]},
            "t.parquet: has no column with images as bytes, only image string, ",
        ),
    ],
)
def test_choice_of_the_column(tmp_path: Path, columns: dict[str, list[object]], chosen: bytes | str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    if isinstance(chosen, bytes):
        assert read_all(tmp_path / "t.parquet") == [("t.parquet#0", chosen)]
    else:
        with pytest.raises(UsageError) as caught:
            read_all(tmp_path / "t.parquet")
        assert str(caught.value).startswith(f"{tmp_path}/{chosen}")


def test_files_by_pattern_and_folders(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"image": [b"%d" % number]}), tmp_path / f"train-{number}-of-3.parquet")
    (tmp_path / "spark.parquet").mkdir()
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "spark.parquet/part-0.parquet")
    (tmp_path / "spark.parquet/_SUCCESS").touch()
    wanted = [(f"train-{number}-of-3.parquet#0", b"%d" % number) for number in range(3)]
    assert read_all(tmp_path / "train-{0..2}-of-3.parquet") == wanted
    assert read_all(tmp_path / "train-*.parquet") == wanted
    assert (
        read_all(tmp_path / "spark.parquet") == read_all(f"{tmp_path}/spark.parquet/") == [("part-0.parquet#0", b"x")]
    )
    (tmp_path / "train-1-of-3.parquet").write_bytes(b"no parquet")
    random_access.open_files.close()
    table._open_tables.close()
    wanted[1:2] = [("train-1-of-3.parquet/", "unreadable")]  # type: ignore[list-item]
    assert read_all(tmp_path / "train-*.parquet") == wanted
    (tmp_path / "train-0-of-3.parquet").write_bytes(b"no parquet")
    wanted[0:1] = [("train-0-of-3.parquet/", "unreadable")]  # type: ignore[list-item]
    assert read_all(tmp_path / "train-*.parquet") == wanted


def test_missing_table_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_all(tmp_path / "u.parquet")
    assert str(caught.value) == f"{tmp_path}/u.parquet: cannot be opened (No such file or directory); give a file"


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(PICTURES[:2]), pa.array(PICTURES[2:4])]
    pq.write_table(pa.table(columns, names=["image", "image"]), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet: has 2 columns image; keep one$"):
        read_all(tmp_path / "t.parquet")


def test_a_footer_that_claims_too_many_rows_is_refused(tmp_path: Path) -> None:
    """A run would write rows for days."""
    pq.write_table(pa.table({"image": PICTURES[:5]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    claimed = re.sub(rb"\x16\x0a(?=\x19|\x26|\x16|\x00)", b"\x16\xfe\xff\xff\x0f", footer)  # from 5 to 2^31 - 1
    assert claimed != footer
    (tmp_path / "t.parquet").write_bytes(
        data[: -8 - len(footer)] + claimed + len(claimed).to_bytes(4, "little") + b"PAR1"
    )
    (ref,) = open_source(tmp_path / "t.parquet").images(Ignored())
    assert ref.error
    assert re.fullmatch(r"the table cannot be read: its footer claims [0-9]+ rows", ref.error[1])


def test_damage_fails_the_rest_of_its_row_group(tmp_path: Path) -> None:
    pages = {"use_dictionary": False, "write_page_checksum": True, "write_batch_size": 10, "data_page_size": 1}
    pq.write_table(
        pa.table({"image": PICTURES}), tmp_path / "t.parquet", row_group_size=50, write_statistics=False, **pages
    )
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    column = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).column(0)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 255
    (tmp_path / "t.parquet").write_bytes(content)
    values = [value for _, value in read_all(tmp_path / "t.parquet")]
    assert len(values) == 100
    damaged = values.index("corrupt")
    assert 10 < damaged < 40
    assert values == [*PICTURES[:damaged], *["corrupt"] * (50 - damaged), *PICTURES[50:]]


def test_too_large_row_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "MAX_FILE_BYTES", 10)
    pq.write_table(pa.table({"image": [b"x" * 11, b"x" * 10]}), tmp_path / "t.parquet")
    assert [value for _, value in read_all(tmp_path / "t.parquet")] == ["too_large", b"x" * 10]


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    """One group of 200 MB in pages of 3 MB."""
    draw = random.Random(9)
    images = pa.table({"image": [draw.randbytes(200_000) for _ in range(1000)]})
    pq.write_table(images, tmp_path / "t.parquet", use_dictionary=False, write_batch_size=16)
    del images
    before = pa.total_allocated_bytes()
    peak = 0
    for ref in open_source(tmp_path / "t.parquet").images(Ignored()):
        assert len(read_image(ref).data) == 200_000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert table._KEPT_BYTES < peak < table._KEPT_BYTES + 20_000_000


def test_resumed_and_scored_again(bucket: Bucket, toy_model: Path, tmp_path: Path) -> None:
    rows = [*PICTURES[:40], None, b"no picture"]
    pq.write_table(pa.table({"image": rows}), bucket.folder / "t.parquet", row_group_size=9)
    url = bucket.url("t.parquet")
    score(url, tmp_path / "undisturbed", options(toy_model))

    with pytest.raises(Stop):
        score(url, tmp_path / "out", options(toy_model), on_progress=stop_after(36))
    summary = score(url, tmp_path / "out", options(toy_model)).manifest
    assert summary.resumed_images >= 24
    assert summary.counts.failed_by_code == {"empty": 1, "not_an_image": 1}
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")

    pq.write_table(pa.table({"image": PICTURES[:42]}), bucket.folder / "t.parquet")
    random_access.open_files.close()
    table._open_tables.close()
    again = score(url, tmp_path / "out", options(toy_model, retry_failed=True)).manifest
    assert (again.counts.ok, again.kept_images) == (42, 40)

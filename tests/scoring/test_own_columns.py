"""Further columns of an image list (camera, site, customer): every image keeps its own values."""

import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import contents, options, picture

from batchland import EvaluateOptions, Shard, evaluate, merge, read, score
from batchland.errors import UsageError
from batchland.evaluation.schema import MISTAKES, OUTCOMES
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored
from batchland.predictions.schema import PREDICTIONS, RESERVED
from batchland.scoring.merge.in_place import merge_in_place
from batchland.scoring.plan.write import make_plan

OWN = ("customer", "taken", "lens")


@pytest.fixture
def listing(photos: Path) -> str:
    """A list of the sixty photos, not in the order of their names, with a null here and there."""
    numbers = [(7 * number) % 60 for number in range(60)]
    names = [f"camera-{number // 20}/{number:03}.jpg" for number in numbers]
    columns = {
        "path": names,
        "customer": pa.array([None if number % 9 == 4 else f"c{number % 4}" for number in numbers]).dictionary_encode(),
        "label": ["Red Tower"] * 60,
        "taken": [date(2026, 11, 1 + number // 3) for number in numbers],
        "lens": [float("nan") if number == 5 else number / 2 for number in numbers],
        "boxes": [[number] for number in numbers],
    }
    pq.write_table(pa.table(columns), photos.parent / "list.parquet")
    return str(photos.parent / "list.parquet")


def own(number: int) -> dict[str, object]:
    return {
        "customer": None if number % 9 == 4 else f"c{number % 4}",
        "taken": date(2026, 11, 1 + number // 3),
        "lens": number / 2,
    }


def own_rows(out: Path) -> list[tuple[str, dict[str, object]]]:
    """Name and own values of each image; NaN, which equals nothing, as 2.5."""
    rows = pq.read_table(out).select(["image", *OWN]).to_pylist()
    return [(row["image"], {name: 2.5 if row[name] != row[name] else row[name] for name in OWN}) for row in rows]


def expected() -> list[tuple[str, dict[str, object]]]:
    numbers = [(7 * number) % 60 for number in range(60)]
    return [(f"camera-{number // 20}/{number:03}.jpg", own(number)) for number in numbers]


def strange_columns(rows: int) -> pa.Table:
    """Values that Python has no objects for, and text that is not UTF-8."""
    far = pa.array([2**62, *range(rows - 1)], pa.int64())
    ends = pa.array([0, 2, *range(3, rows + 2)], pa.int32())
    text = pa.Array.from_buffers(
        pa.string(), rows, [None, ends.buffers()[1], pa.py_buffer(b"\xff\xfe" + b"a" * (rows - 1))]
    )
    return pa.table(
        {
            "exact": pa.array([123_456_789_012_345_678, None, *range(rows - 2)], pa.int64()).cast(pa.timestamp("ns")),
            "far": far.cast(pa.timestamp("us")),
            "mars": far.cast(pa.timestamp("us", "Mars/Olympus")),
            "time": pa.array(range(rows), pa.int64()).cast(pa.time64("ns")),
            "text": text,
            "category": pa.DictionaryArray.from_arrays(pa.array(range(rows), pa.int32()), text),
        }
    )


def test_values_that_python_does_not_know_are_copied_exactly(photos, toy_model, tmp_path):
    """To predictions, also by a plan, by a resumed run and by `retry_failed`."""
    names = [f"camera-0/{number:03}.jpg" for number in range(5)] + ["absent.jpg"]
    table = strange_columns(6)
    pq.write_table(table.add_column(0, "path", [names]), tmp_path / "list.parquet")
    given = {"image_list": str(tmp_path / "list.parquet")}
    texts = ["\\xff\\xfe", *"aaaaa"]
    wanted = table.set_column(4, "text", [texts]).set_column(5, "category", [texts])
    score(photos, tmp_path / "p.parquet", options(toy_model, **given))
    score(photos, tmp_path / "p.parquet", options(toy_model, retry_failed=True, **given))
    make_plan(photos, tmp_path / "plan", image_list=str(tmp_path / "list.parquet"))
    score(photos, tmp_path / "planned.parquet", options(toy_model, plan=str(tmp_path / "plan")))
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f"{name},Red Tower\n" for name in names[:5]))
    by = EvaluateOptions(by=tuple(table.column_names))
    slices = evaluate(tmp_path / "p.parquet", tmp_path / "labels.csv", by).summary.slices
    assert "1970-01-01 00:00:00.000000Z" in [part.value for part in slices if part.dimension == "mars"]
    for out in ("p", "planned"):
        assert pq.read_table(tmp_path / f"{out}.parquet").select(wanted.column_names).equals(wanted)


def test_a_path_that_is_not_utf8_is_that_of_its_bytes(photos, tmp_path):
    (photos / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(picture((1, 2, 3)))
    texts = strange_columns(2)["text"]
    path = pa.array([each + b".jpg" for each in texts.cast(pa.binary()).to_pylist()])
    pq.write_table(pa.table({"path": path.view(pa.string())}), tmp_path / "list.parquet")
    listed = open_source(photos, image_list=str(tmp_path / "list.parquet")).images(Ignored())
    assert [(ref.name, ref.path.endswith(b"/\xff\xfe.jpg")) for ref in listed] == [
        ("\\xff\\xfe.jpg", True), ("a.jpg", False)
    ]  # fmt: skip


def test_own_columns_are_in_the_predictions(photos, listing, toy_model, tmp_path):
    score(photos, tmp_path / "p.parquet", options(toy_model, image_list=listing))
    assert own_rows(tmp_path / "p.parquet") == expected()
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert schema.names == [*PREDICTIONS.names, *OWN]
    assert [str(schema.field(name).type) for name in OWN] == ["string", "date32[day]", "double"]
    frame = read(tmp_path / "p.parquet")
    assert frame.loc[frame["customer"] == "c1", "status"].value_counts().to_dict() == {"ok": 10, "failed": 3}


def test_columns_of_a_csv_are_text(photos, toy_model, tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_bytes(b'\xef\xbb\xbfsite;image\n7;camera-0/000.jpg\n"Z\xfcrich; 1";camera-0/001.jpg\n')
    score(photos, tmp_path / "p.parquet", options(toy_model, image_list=str(listing)))
    assert pq.read_table(tmp_path / "p.parquet").select(["image", "site"]).to_pylist() == [
        {"image": "camera-0/000.jpg", "site": "7"},
        {"image": "camera-0/001.jpg", "site": r"Z\xfcrich; 1"},
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,note,note", "has 2 columns note; keep one, or rename them"),
        ("image,status,camera", "column 'status' has the name of a column of predictions; rename it"),
    ],
)
def test_a_column_that_cannot_be_kept_is_an_error(photos, toy_model, tmp_path, header, message):
    listing = tmp_path / "list.csv"
    listing.write_text(f"{header}\ncamera-0/000.jpg,a,b\n")
    with pytest.raises(UsageError) as caught:
        score(photos, tmp_path / "p.parquet", options(toy_model, image_list=str(listing)))
    assert str(caught.value) == f"{listing}: {message}"


def test_decimals_are_text_and_a_warning_names_what_is_left_out(photos, toy_model, tmp_path, caplog):
    listing = tmp_path / "list.parquet"
    prices = pa.array([Decimal("12345678901234567890.10"), None], pa.decimal128(22, 2))
    columns = {"image": ["camera-0/000.jpg", "camera-0/001.jpg"], "price": prices, "boxes": [[1], [2]]}
    pq.write_table(pa.table(columns), listing)
    score(photos, tmp_path / "p.parquet", options(toy_model, image_list=str(listing)))
    table = pq.read_table(tmp_path / "p.parquet")
    assert table["price"].to_pylist() == ["12345678901234567890.10", None]
    assert table.column_names[-1] == "price"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{listing}: left out, because they hold no simple values: boxes"]


def test_shards_and_plans_give_the_same_bytes(photos, listing, toy_model, tmp_path):
    given = options(toy_model, image_list=listing)
    score(photos, tmp_path / "one" / "p.parquet", given)
    for index in range(3):
        score(photos, tmp_path / "shards", given.model_copy(update={"shard": Shard(index=index, count=3)}))
    merge(tmp_path / "shards", tmp_path / "merged" / "p.parquet")
    assert contents(tmp_path / "merged") == contents(tmp_path / "one")
    make_plan(photos, tmp_path / "plan", image_list=listing)
    Path(listing).unlink()  # shards of a plan do not read the list
    planned = options(toy_model, plan=str(tmp_path / "plan"))
    for index in range(3):
        score(photos, tmp_path / "ranges", planned.model_copy(update={"shard": Shard(index=index, count=3)}))
    merge(tmp_path / "ranges", tmp_path / "joined.parquet")
    merge_in_place(tmp_path / "ranges")
    assert own_rows(tmp_path / "joined.parquet") == expected()
    assert read(tmp_path / "ranges")["taken"].tolist() == [row["taken"] for _, row in expected()]


def test_a_resumed_run_reads_the_values_again(photos, listing, toy_model, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress):
        if progress.done >= 20:
            raise Stop

    given = options(toy_model, image_list=listing)
    score(photos, tmp_path / "a" / "p.parquet", given)
    for changed in (False, True):
        out = tmp_path / str(changed) / "p.parquet"
        with pytest.raises(Stop):
            score(photos, out, given, on_progress=stop)
        if changed:
            table = pq.read_table(listing)
            other = pa.array(["other"] * 60)
            pq.write_table(table.set_column(1, "customer", other.dictionary_encode()), listing)
        resumed = score(photos, out, given).manifest.resumed_images
        assert (resumed > 0) is not changed
    assert contents(tmp_path / "False") == contents(tmp_path / "a")
    assert set(read(tmp_path / "True" / "p.parquet")["customer"]) == {"other"}


def test_retried_and_reused_rows_have_their_values(photos, listing, toy_model, tmp_path):
    out = tmp_path / "p.parquet"
    assert score(photos, out, options(toy_model, image_list=listing)).manifest.counts.failed == 6
    (photos / "camera-0" / "007.jpg").write_bytes(picture())
    score(photos, out, options(toy_model, retry_failed=True))
    assert pq.read_table(out)["status"].to_pylist().count("ok") == 55
    assert own_rows(out) == expected()
    again = tmp_path / "again.parquet"
    reused = score(photos, again, options(toy_model, image_list=listing, reuse=(str(out),)))
    assert reused.manifest.reused_images == 55
    assert own_rows(again) == expected()


@pytest.mark.slow
def test_ray_writes_the_same_bytes(photos, listing, toy_model, tmp_path):
    pytest.importorskip("ray")
    given = options(toy_model, image_list=listing)
    score(photos, tmp_path / "local" / "p", given)
    score(photos, tmp_path / "ray" / "p", given.model_copy(update={"engine": "ray"}))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_names_of_predictions_are_refused(photos, toy_model, tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_text("image,width\ncamera-0/000.jpg,640\n")
    with pytest.raises(UsageError) as caught:
        score(photos, tmp_path / "p.parquet", options(toy_model, image_list=str(listing)))
    assert str(caught.value) == f"{listing}: column 'width' has the name of a column of predictions; rename it"
    assert set(RESERVED) >= {*PREDICTIONS.names, *OUTCOMES.names, *MISTAKES.names}


def test_predictions_serve_as_a_list(photos, listing, toy_model, tmp_path):
    score(photos, tmp_path / "p.parquet", options(toy_model, image_list=listing))
    score(photos, tmp_path / "q.parquet", options(toy_model, image_list=str(tmp_path / "p.parquet")))
    assert pq.read_schema(tmp_path / "q.parquet").names == PREDICTIONS.names


def test_slices_by_columns_of_the_predictions(colour_folders, toy_model, tmp_path):
    names = sorted(str(path.relative_to(colour_folders)) for path in colour_folders.rglob("*.jpg"))
    listing = tmp_path / "list.csv"
    listing.write_text("image,camera,site\n" + "".join(f"{name},c{i % 2},s{i % 3}\n" for i, name in enumerate(names)))
    score(colour_folders, tmp_path / "p.parquet", options(toy_model, image_list=str(listing)))
    by = EvaluateOptions(by=("camera",))
    found = evaluate(tmp_path / "p.parquet", colour_folders, by)
    parts = [(part.value, part.images) for part in found.summary.slices if part.dimension == "camera"]
    assert parts == [("c0", 5), ("c1", 4)]
    assert found.outcomes.column_names[-2:] == ["camera", "site"]
    labels = tmp_path / "labels.csv"  # of a column that both have, the labels' values count
    labels.write_text("image,label,camera\n" + "".join(f"{name},{name.split('/')[0]},new\n" for name in names))
    again = evaluate(tmp_path / "p.parquet", labels, by)
    assert again.outcomes.column_names[-2:] == ["site", "camera"]
    assert set(again.outcomes["camera"].to_pylist()) == {"new"}

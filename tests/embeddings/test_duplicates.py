"""`batchland duplicates`: groups of copies as text, JSON, a table and a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from commands import batchland
from evaluation_data import Row, write_predictions
from feature_columns import with_features
from jsonschema import Draft202012Validator
from toys import options, write_toy_model

from batchland import score
from batchland.embeddings import copies, duplicates
from batchland.embeddings.duplicates import DUPLICATES, DuplicateOptions, find_duplicates

SCHEMAS = Path(__file__).parents[2] / "schemas"


def names(found, field: str = "image") -> list[list[str]]:
    return [[getattr(image, field) for image in group.images] for group in found.result.groups]


def test_copies_between_predictions_are_found(scored: Path) -> None:
    found = find_duplicates([scored / "one.parquet", scored / "two.parquet"])
    assert names(found) == [["1.jpg", "small.jpg"], ["3.jpg", "same.jpg"]]
    assert [group.across for group in found.result.groups] == [True, True]
    assert [group.identical for group in found.result.groups] == [False, True]
    result = found.result
    assert (result.images, result.blank, result.without_signals, result.used_features) == (11, 0, 0, False)
    assert found.table.schema.equals(DUPLICATES)
    assert found.table["group"].to_pylist() == [1, 1, 2, 2]


def test_mirrored_copies_are_an_option(scored: Path) -> None:
    found = find_duplicates([scored / "one.parquet", scored / "two.parquet"], DuplicateOptions(mirrored=True))
    assert names(found) == [["1.jpg", "small.jpg"], ["2.jpg", "turned.jpg"], ["3.jpg", "same.jpg"]]
    assert names(found, "mirrored") == [[False, False], [True, True], [False, False]]


def test_the_same_predictions_twice_are_an_error(scored: Path) -> None:
    one = scored / "one.parquet"
    result = batchland("duplicates", one, scored / ".." / scored.name / "one.parquet")
    assert (result.exit_code, result.stderr.endswith("one.parquet: is given twice; give it once\n")) == (2, True)
    result = batchland("duplicates", one, "--across")
    message = f"batchland: {one}: across compares several predictions; give two or more\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_equal_files_are_at_distance_0(scored: Path, tmp_path: Path) -> None:
    table = pq.read_table(scored / "two.parquet")
    hashes = [0 if row["image"] == "same.jpg" else row["difference_hash"] for row in table.to_pylist()]
    place = table.schema.get_field_index("difference_hash")
    table = table.set_column(place, table.schema.field(place), pa.array(hashes, table.schema.field(place).type))
    pq.write_table(table, tmp_path / "two.parquet")
    found = find_duplicates([scored / "one.parquet", tmp_path / "two.parquet"], DuplicateOptions(distance=0.01))
    (group,) = found.result.groups
    assert group.identical
    assert [(each.image, each.distance) for each in group.images] == [("3.jpg", 0), ("same.jpg", 0)]


def test_features_are_compared_if_all_predictions_have_them(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SURE", -1.0)
    rows = np.eye(11, dtype=np.float32)
    one = with_features(scored / "one.parquet", tmp_path / "one.parquet", rows[:6])
    two = with_features(scored / "two.parquet", tmp_path / "two.parquet", rows[6:])
    found = find_duplicates([one, two])
    assert (found.result.used_features, found.result.distance) == (True, 0.68)
    assert names(found) == [["3.jpg", "same.jpg"]]  # the same file


def test_very_many_images_without_faiss_are_compared_exactly(
    scored: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duplicates, "APPROXIMATE_FROM", 11)
    monkeypatch.setattr(duplicates, "has_lists", lambda: False)
    found = find_duplicates([scored / "one.parquet", scored / "two.parquet"]).result
    assert (found.approximate, len(found.groups)) == (False, 2)
    assert "11 images are compared exactly; pip install 'batchland[index]' takes less time" in caplog.messages


def test_text_json_table_and_page(scored: Path, tmp_path: Path) -> None:
    one, two = scored / "one.parquet", scored / "two.parquet"
    result = batchland("duplicates", one, two, "--out", tmp_path / "copies.parquet", "--page", tmp_path / "copies.html")
    assert result.exit_code == 0
    head, *lines = result.stdout.replace(f"{scored}/", "").splitlines()
    assert head == (
        "4 of 11 images have copies, in 2 groups: 1 group of identical files, 2 groups with images of more than one of "
        "the predictions."
    )
    assert [line.split()[-1] for line in lines[1:]] == ["1.jpg", "small.jpg", "3.jpg", "same.jpg"]
    assert [line.split()[:2] for line in lines[3:]] == [["2", "equal"], ["equal", "Green"]]
    assert pq.read_table(tmp_path / "copies.parquet")["image"].to_pylist() == [
        "1.jpg",
        "small.jpg",
        "3.jpg",
        "same.jpg",
    ]
    assert (tmp_path / "copies.html").read_text().count("data:image/jpeg") == 4
    document = json.loads(batchland("duplicates", one, two, "--json").stdout)
    Draft202012Validator(json.loads((SCHEMAS / "duplicates.json").read_text())).validate(document)
    assert [image["probability"] for image in document["groups"][0]["images"]] == pytest.approx(
        pq.read_table(tmp_path / "copies.parquet")["probability"].to_pylist()[:2]
    )
    document = json.loads(batchland("duplicates", one, "--json").stdout)
    assert (document["images"], document["groups"]) == (6, [])


def test_predictions_without_signals_are_only_compared_by_sha256(scored: Path, photos: Path, tmp_path: Path) -> None:
    old = write_predictions(tmp_path / "old.parquet", ["00.Red_Tower", "01.Green_Hill"], [Row("1.jpg", [0.7, 0.3])])
    result = batchland("duplicates", old)
    message = f"batchland: {old}: has no signals, an earlier version wrote it; score the images again\n"
    assert (result.exit_code, result.stderr) == (2, message)
    unmeasured = tmp_path / "unmeasured.parquet"
    score(photos / "one", unmeasured, options(write_toy_model(tmp_path / "toy.onnx"), signals=False))
    result = batchland("duplicates", unmeasured)
    note = "note: 6 images without signals were only compared by sha256\n"
    assert (result.exit_code, result.stdout) == (0, f"No copies among 6 images.\n{note}")
    page = tmp_path / "copies.html"
    result = batchland("duplicates", scored / "two.parquet", unmeasured, "--page", page)
    assert note in result.stdout
    assert [line.split()[-1] for line in result.stdout.splitlines()[3:]] == ["same.jpg", "3.jpg"]
    assert "6 images were scored without signals, so only equal files are found among them." in page.read_text()
    found = find_duplicates([scored / "two.parquet", unmeasured, scored / "one.parquet"])
    assert names(found) == [
        ["same.jpg", "3.jpg", "3.jpg"],
        ["small.jpg", "1.jpg", "1.jpg"],
        *([[f"{n}.jpg"] * 2 for n in (0, 2, 4, 5)]),
    ]
    result = batchland("duplicates", tmp_path / "none.parquet")
    message = f"batchland: {tmp_path / 'none.parquet'}: does not exist; give what `batchland score` wrote\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_predictions_without_scored_images_are_an_error(
    scored: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = batchland("duplicates", photos / "one")
    message = (
        f"batchland: {photos / 'one'}: is a folder without predictions; give what `batchland score` wrote, or examine "
        "a folder of photos with `batchland data check`\n"
    )
    assert (result.exit_code, result.stderr) == (2, message)
    failed = tmp_path / "failed.parquet"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_text("no photo")
    score(tmp_path / "bad", failed, options(scored / "toy.onnx"))
    result = batchland("duplicates", failed)
    message = f"batchland: {failed}: has no image that was scored; nothing can be compared\n"
    assert (result.exit_code, result.stderr) == (2, message)
    result = batchland("duplicates", failed, scored / "one.parquet")
    assert result.exit_code == 0
    assert f"{failed}: has no image that was scored" in caplog.messages


@needs_browser
def test_the_page_in_a_browser(browser: Any, scored: Path, tmp_path: Path) -> None:
    page = tmp_path / "copies.html"
    batchland("duplicates", scored / "one.parquet", scored / "two.parquet", "--page", page)
    with opened(browser, page) as found:
        assert_structured(found.page)
        assert_readable(found)


@pytest.mark.parametrize("name", ["copies.txt", "folder"])
def test_outputs_are_checked_before_the_work(scored: Path, tmp_path: Path, name: str) -> None:
    result = batchland("duplicates", scored / "one.parquet", "--out", tmp_path / name)
    message = f"batchland: {tmp_path / name}: give a name that ends in .csv or .parquet\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_only_an_earlier_table_of_copies_is_replaced(scored: Path, tmp_path: Path) -> None:
    one, two = scored / "one.parquet", scored / "two.parquet"
    alone, labels = tmp_path / "alone.parquet", tmp_path / "labels.csv"
    alone.write_bytes(two.read_bytes())
    labels.write_text("image,label\n1.jpg,Red\n")
    others = []
    for name in ("others.csv", "others.parquet"):
        others.append(tmp_path / name)
        assert batchland("duplicates", two, "--out", others[-1]).exit_code == 0
        assert batchland("duplicates", two, one, "--out", others[-1]).exit_code == 0  # has no rows of others
    for out, why in (
        (two, "has a manifest, so it holds predictions"),
        *((out, "exists and is not an earlier table of the same predictions") for out in (alone, labels, *others)),
    ):
        before = out.read_bytes()
        result = batchland("duplicates", one, "--out", out)
        advice = "; --overwrite replaces it" if "exists" in why else ""
        assert (result.exit_code, result.stderr) == (2, f"batchland: {out}: {why}; give another name{advice}\n")
        assert out.read_bytes() == before
    for name in ("copies.csv", "copies.parquet"):
        assert [batchland("duplicates", one, two, "--out", tmp_path / name).exit_code for _ in range(2)] == [0, 0]
    assert batchland("duplicates", one, two, "--out", labels, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("duplicates", "an earlier page of copies in the same predictions"),
        ("similar", "an earlier page of the same image and predictions"),
    ],
)
def test_a_page_replaces_only_an_earlier_page_of_its_kind(
    scored: Path, tmp_path: Path, command: str, what: str
) -> None:
    page, plain = tmp_path / "page.html", scored / "one.parquet"
    features = np.eye(6, dtype=np.float32)
    arguments = [with_features(plain, tmp_path / "one.parquet", features), "--page", page]
    arguments = ["1.jpg", *arguments] if command == "similar" else arguments
    assert [batchland(command, *arguments).exit_code for _ in range(2)] == [0, 0]
    made = page.read_text()
    digits = made.partition('name="batchland-inputs" content="')[2][:32]
    assert len(digits) == 32
    for text in ("<p>mine</p>", made.replace(digits, "0" * 32), made.replace("batchland ", "")):
        page.write_text(text)
        result = batchland(command, *arguments)
        message = f"batchland: {page}: exists and is not {what}; give another name; --overwrite replaces it\n"
        assert (result.exit_code, result.stderr, page.read_text()) == (2, message, text)
    assert batchland(command, *arguments, "--overwrite").exit_code == 0
    assert "<h1>" in page.read_text()

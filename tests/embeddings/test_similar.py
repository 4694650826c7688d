"""`batchland similar`: images of predictions by the similarity of their features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from commands import batchland
from jsonschema import Draft202012Validator
from toys import options, write_dense_model

from batchland import score
from batchland.embeddings import lists, similar
from batchland.embeddings.similar import SimilarOptions, find_similar
from batchland.models.features import keep_features


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one.parquet and two.parquet with the features of dense.onnx: the small picture itself."""
    folder = tmp_path_factory.mktemp("similar")
    model = write_dense_model(folder / "dense.onnx")
    keep_features(model)
    for name in ("one", "two"):
        score(photos / name, folder / f"{name}.parquet", options(model, features=True))
    return folder


def test_an_image_of_the_predictions(folder: Path) -> None:
    """1.jpg and 3.jpg have copies; the products are those of numpy."""
    files = [folder / "one.parquet", folder / "two.parquet"]
    found = find_similar("3.jpg", files, SimilarOptions(top=4)).result
    rows = [row for path in files for row in pq.read_table(path).to_pylist() if row["status"] == "ok"]
    names = [row["image"] for row in rows]
    features = np.array([row["features"] for row in rows], np.float32)
    products = features @ features[names.index("3.jpg")]
    order = [index for index in np.argsort(-products, kind="stable") if names[index] != "3.jpg"][:4]
    assert [each.image for each in found.similar] == [names[index] for index in order]
    assert found.similar[0].image == "same.jpg"
    np.testing.assert_allclose([each.similarity for each in found.similar], products[order], atol=1e-5)
    assert found.images == 11
    assert find_similar("1.jpg", files).result.similar[0].image == "small.jpg"


def test_a_file_is_scored_by_the_model_that_made_the_predictions(folder: Path, photos: Path) -> None:
    found = find_similar(str(photos / "two" / "small.jpg"), [folder / "one.parquet"])
    assert found.result.similar[0].image == "1.jpg"
    assert len(found.result.similar) == 6


def test_text_json_and_page(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "similar.html"
    result = batchland("similar", "3.jpg", folder / "one.parquet", folder / "two.parquet", "--top", 2, "--page", page)
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[0]) == (0, "3.jpg: the most similar of 11 images")
    assert lines[2].split()[0] == "1.000"
    assert lines[2].split()[-1] == "same.jpg"
    assert len(lines) == 4
    assert page.read_text().count("data:image/jpeg") == 3
    document = json.loads(batchland("similar", "3.jpg", folder / "one.parquet", "--top", 2, "--json").stdout)
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "similar.json").read_text())
    Draft202012Validator(schema).validate(document)
    assert (document["kind"], len(document["similar"])) == ("batchland.similar", 2)


def test_one_image_has_nothing_to_compare_with(folder: Path, photos: Path, tmp_path: Path) -> None:
    only = tmp_path / "photos" / "only.jpg"
    only.parent.mkdir()
    only.write_bytes((photos / "one" / "1.jpg").read_bytes())
    preds, page = tmp_path / "only.parquet", tmp_path / "similar.html"
    score(only.parent, preds, options(folder / "dense.onnx", features=True))
    result = batchland("similar", "only.jpg", preds, "--page", page)
    assert (result.exit_code, result.stdout) == (0, "only.jpg: no other image to compare with\n")
    assert "No other image to compare with" in page.read_text()
    assert "Similar images" not in page.read_text()
    result = batchland("duplicates", preds, "--page", tmp_path / "copies.html")
    assert (result.exit_code, result.stdout) == (0, "No copies among 1 image.\n")
    assert "Groups" not in (tmp_path / "copies.html").read_text()


def test_invalid_searches_are_errors(folder: Path, scored: Path, photos: Path, tmp_path: Path) -> None:
    one, other_kind = folder / "one.parquet", tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other_kind)
    for arguments, message in (
        (("broken.jpg", one, folder / "two.parquet"), "broken.jpg: failed with "),
        (
            ("1.jpg", other_kind),
            f"{other_kind}: not a predictions file of batchland; give what `batchland score` wrote",
        ),
        (("1.jpg", photos / "one"), f"{photos / 'one'}: is a folder without predictions; "),
        (("none.jpg", one), f"none.jpg: is neither a file nor an image of {one}; give a path, or a name as in `image`"),
        (
            ("1.jpg", scored / "one.parquet"),
            f"{scored / 'one.parquet'}: has no features; write them with `batchland score --features`",
        ),
        (
            (photos / "two" / "broken.jpg", one),
            f"{photos / 'two' / 'broken.jpg'}: cannot be read (is none of the supported image formats)",
        ),
    ):
        result = batchland("similar", *arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"batchland: {message.partition(' (')[0]}")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_text("no photo")
    failed = tmp_path / "failed.parquet"
    score(tmp_path / "bad", failed, options(folder / "dense.onnx", features=True))
    result = batchland("similar", photos / "one" / "1.jpg", failed)
    message = f"batchland: {failed}: has no image that was scored; nothing can be compared\n"
    assert (result.exit_code, result.stderr) == (2, message)
    other = write_dense_model(tmp_path / "other.onnx", size=16)
    keep_features(other)
    result = batchland("similar", photos / "one" / "1.jpg", one, "--model", other)
    message = f"batchland: {other}: is not the model that scored {one}, toy (sha256 "
    assert (result.exit_code, result.stderr.startswith(message)) == (2, True)


def test_an_index_without_faiss_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few images, no index is made."""
    index = tmp_path / "index"
    assert batchland("similar", "3.jpg", folder / "one.parquet", "--index", index).exit_code == 0
    assert not index.exists()
    monkeypatch.setattr(similar, "INDEX_FROM", 1)
    monkeypatch.setattr(lists, "has_lists", lambda: False)
    result = batchland("similar", "3.jpg", folder / "one.parquet", "--index", index)
    message = "batchland: an index needs faiss; install it with pip install 'batchland[index]'\n"
    assert (result.exit_code, result.stderr, index.exists()) == (2, message, False)


@needs_browser
def test_the_page_in_a_browser(browser: Any, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "similar.html"
    batchland("similar", "3.jpg", folder / "one.parquet", folder / "two.parquet", "--page", page)
    with opened(browser, page) as found:
        assert_structured(found.page)
        assert_readable(found)

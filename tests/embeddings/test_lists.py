"""Approximate search by faiss against the exact one, and the index that `similar` keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import batchland
from toys import options, write_dense_model

from batchland import score
from batchland.embeddings import duplicates, similar
from batchland.embeddings.duplicates import find_duplicates
from batchland.embeddings.neighbours import close_pairs, nearest
from batchland.embeddings.similar import SimilarOptions, find_similar
from batchland.models.features import keep_features

pytest.importorskip("faiss", reason="needs faiss, the extra `index`")
from batchland.embeddings.lists import Lists, close_pairs_in_lists


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_the_nearest_vectors_are_found_with_their_products(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 32))
    vectors = unit(centres[rng.integers(0, 40, 3000)] + rng.normal(0, 0.3, (3000, 32)))
    queries = unit(centres[:20] + rng.normal(0, 0.3, (20, 32))).astype(np.float32)
    Lists.of(vectors).write(tmp_path / "vectors.faiss")
    lists = Lists.read(tmp_path / "vectors.faiss")
    assert len(lists) == 3000
    np.testing.assert_array_equal(lists.vector(7), vectors[7].astype(np.float32))
    exact, products = nearest(queries, vectors, 10)
    found = [lists.nearest(query, 10) for query in queries]
    assert np.mean([len(set(rows) & set(best)) for (rows, _), best in zip(found, exact.tolist(), strict=True)]) > 9.5
    np.testing.assert_allclose([values[0] for _, values in found], products[:, 0], atol=1e-4)


@pytest.mark.parametrize("between", [False, True])
def test_close_pairs_are_those_of_the_exact_search(between: bool) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.random((1500, 12), np.float32)
    vectors[:50] = vectors[50:100] + rng.normal(0, 0.02, (50, 12))
    others = vectors[::-1].copy() if between else None
    found, exact = close_pairs_in_lists(vectors, others, 0.3), close_pairs(vectors, others, 0.3)
    assert len(exact.left) >= 50
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture
def files(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """one.parquet and two.parquet with features, and the limits lowered, so that an index is used."""
    model = write_dense_model(tmp_path / "dense.onnx")
    keep_features(model)
    monkeypatch.setattr(similar, "INDEX_FROM", 1)
    monkeypatch.setattr(duplicates, "APPROXIMATE_FROM", 1)
    found = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for path in found:
        score(photos / path.stem, path, options(model, features=True))
    return found


def comparable(result: similar.Similar) -> dict[str, Any]:
    """Without the order of equal products, which are rounded in other ways."""
    found = [each.model_copy(update={"similarity": round(each.similarity, 4)}) for each in result.similar]
    found.sort(key=lambda each: (-each.similarity, each.image))
    return result.model_copy(update={"similar": tuple(found)}).model_dump(exclude={"approximate"})


def test_similar_with_an_index_is_similar_without(files: list[Path], photos: Path, tmp_path: Path) -> None:
    kept = SimilarOptions(top=6, index=tmp_path / "index")
    for image in ("3.jpg", str(photos / "two" / "small.jpg")):
        exact = find_similar(image, files, SimilarOptions(top=6))
        for _ in range(2):  # builds the index, then reads it
            found = find_similar(image, files, kept)
            assert comparable(found.result) == comparable(exact.result)
            assert (found.result.approximate, exact.result.approximate) == (True, False)
            assert (found.query, found.roots) == (exact.query, exact.roots)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["index.json", "vectors.faiss"]


def test_text_of_an_approximate_search(files: list[Path], tmp_path: Path) -> None:
    result = batchland("similar", "3.jpg", *files, "--top", 1, "--index", tmp_path / "index")
    first = "3.jpg: the most similar of 11 images, found with an index, which may miss some"
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, first)
    note = "note: an index was used, which may miss some copies"
    assert batchland("duplicates", *files).stdout.splitlines()[1] == note
    assert json.loads(batchland("duplicates", *files, "--json").stdout)["approximate"]
    assert len(find_duplicates(files).result.groups) == 2


def test_another_folder_or_a_damaged_index_is_an_error(files: list[Path], tmp_path: Path) -> None:
    index = tmp_path / "index"
    assert batchland("similar", "3.jpg", *files, "--index", index).exit_code == 0

    def message(folder: Path, *predictions: Path) -> str:
        result = batchland("similar", "3.jpg", *predictions, "--index", folder)
        assert result.exit_code == 2
        return str(result.stderr)

    assert message(index, files[0]) == (
        f"batchland: {index}: is an index of other predictions; remove it, or give another folder\n"
    )
    (index / "vectors.faiss").write_bytes(b"x" * 100)
    assert (
        message(index, *files)
        == f"batchland: {index / 'vectors.faiss'}: cannot be read; remove {index} to build it again\n"
    )
    foreign = f"batchland: {tmp_path}: is not an index that this version of batchland reads; give another folder\n"
    assert message(tmp_path, *files) == foreign

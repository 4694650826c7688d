"""The column of features: the same however a run is divided, resumed, retried or merged."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import COLOURS, contents, options, picture, toy_card, write_toy_model

from batchland import Shard, evaluate, merge, score
from batchland.errors import ModelError, TimeLimitError, UsageError
from batchland.predictions.schema import PREDICTIONS


@pytest.fixture
def model(tmp_path):
    return write_toy_model(tmp_path / "toy.onnx", toy_card().model_copy(update={"features": 3}))


@pytest.fixture
def scored(tmp_path, photos, model):
    """Predictions of the photos with features, and the options."""
    given = options(model, features=True)
    score(photos, tmp_path / "one" / "p.parquet", given)
    return tmp_path / "one", given


def test_the_column_holds_half_floats_in_vectors_of_one_length(tmp_path, photos, scored):
    folder, _ = scored
    table = pq.read_table(folder / "p.parquet")
    assert table.column_names == [*PREDICTIONS.names, "features"]
    assert str(table.schema.field("features").type) == "fixed_size_list<element: halffloat not null>[3]"
    group = pq.ParquetFile(folder / "p.parquet").metadata.row_group(0)
    leaves = {leaf.path_in_schema: leaf for leaf in map(group.column, range(group.num_columns))}
    coded = {
        name: leaves[name].has_dictionary_page
        for name in ("image", "top_k.list.element.label", "features.list.element")
    }
    assert list(coded.values()) == [True, True, False]
    rows = table.select(["status", "features"]).to_pylist()
    for number, row in enumerate(rows):
        expected = None if number % 10 == 7 else np.eye(3)[number % 3]
        assert row["status"] == ("failed" if expected is None else "ok")
        assert expected is None or np.abs(np.array(row["features"]) - expected).max() < 0.01
        assert (expected is None) == (row["features"] is None)


def test_the_other_columns_are_those_of_a_run_without_features(tmp_path, photos, scored):
    folder, given = scored
    plain = score(photos, tmp_path / "plain.parquet", given.model_copy(update={"features": False}))
    with_features, without = pq.read_table(folder / "p.parquet"), pq.read_table(plain.out)
    assert without.schema.equals(PREDICTIONS)
    assert with_features.drop_columns("features").equals(without)


def test_a_run_that_stops_is_continued(tmp_path, photos, scored):
    folder, given = scored
    out = tmp_path / "two" / "p.parquet"
    with pytest.raises(TimeLimitError):
        score(photos, out, given.model_copy(update={"time_limit": 1e-9}))
    assert score(photos, out, given).manifest.resumed_images == 4
    assert contents(out.parent) == contents(folder)


def test_merged_shards_are_what_one_run_writes(tmp_path, photos, scored):
    folder, given = scored
    for index in range(3):
        score(photos, tmp_path / "shards", given.model_copy(update={"shard": Shard(index=index, count=3)}))
    merge(tmp_path / "shards", tmp_path / "merged" / "p.parquet")
    assert contents(tmp_path / "merged") == contents(folder)


def test_a_retry_keeps_the_features_of_good_rows(tmp_path, photos, scored):
    folder, given = scored
    with pytest.raises(UsageError) as caught:
        score(photos, folder / "p.parquet", given.model_copy(update={"retry_failed": True, "features": False}))
    assert str(caught.value) == (
        f"{folder}/p.parquet: was made with features, and this run has none, so its good rows cannot be kept"
    )
    for number in (7, 17):
        (photos / f"camera-0/{number:03}.jpg").write_bytes(picture(list(COLOURS.values())[number % 3]))
    score(photos, folder / "p.parquet", given.model_copy(update={"retry_failed": True}))
    score(photos, tmp_path / "fresh" / "p.parquet", given)
    assert contents(folder) == contents(tmp_path / "fresh")


def test_rows_are_reused_only_from_predictions_with_features(tmp_path, photos, scored, caplog):
    folder, given = scored
    out = tmp_path / "again" / "p.parquet"
    score(photos, tmp_path / "plain.parquet", given.model_copy(update={"features": False}))
    sources = (str(tmp_path / "plain.parquet"), str(folder / "p.parquet"))
    manifest = score(photos, out, given.model_copy(update={"reuse": sources})).manifest
    assert caplog.messages == [f"{sources[0]}: no row is reused from it: it differs in features"]
    assert (manifest.reused_images, manifest.copied_images) == (54, 5)
    assert contents(out.parent) == contents(folder)


def test_a_model_without_features_is_named(tmp_path, photos, toy_model):
    with pytest.raises(ModelError) as caught:
        score(photos, tmp_path / "p.parquet", options(toy_model, features=True))
    assert str(caught.value) == f"{toy_model}: gives no features; export or adopt it again to add them"


def test_features_are_no_column_of_outcomes(tmp_path, photos, scored):
    folder, _ = scored
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\ncamera-0/000.jpg,Red Tower\ncamera-0/001.jpg,Red Tower\n")
    (outcomes,) = evaluate(folder / "p.parquet", labels).outcomes_file.batches()
    assert outcomes["correct"].to_pylist() == [True, False]
    assert "features" not in outcomes.schema.names

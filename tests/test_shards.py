"""--shard and merge: each image is some shard's, and together they are what one process would have written."""

import pytest
from toys import contents, options

from batchland import score
from batchland.shards.deal import Shard
from batchland.shards.merge import merge


def score_shards(images, out, given, count):
    return [
        score(images, out, given.model_copy(update={"shard": Shard(index=index, count=count)})).manifest
        for index in range(count)
    ]


@pytest.mark.parametrize("name", ["p.parquet", "p"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_shards_are_byte_for_byte_what_one_process_writes(tmp_path, photos, toy_model, count, name):
    (photos / "notes.txt").touch()
    score_shards(photos, tmp_path / "shards", options(toy_model), count)
    merged = merge(tmp_path / "shards", tmp_path / "merged" / name).manifest
    whole = score(photos, tmp_path / "whole" / name, options(toy_model)).manifest
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    same = {"run_id", "model", "images", "input_fingerprint", "ignored", "device", "provider", "counts", "files"}
    assert merged.model_dump(include=same) == whole.model_dump(include=same)

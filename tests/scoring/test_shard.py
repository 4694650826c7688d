"""Shards and merge: every image belongs to one shard, and merged they are what one process would have written."""

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
from collections import Counter

import forks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import batchland
from PIL import Image
from toys import COLOURS, Stop, contents, options, picture, stop_after, toy_card, write_toy_model

from batchland import ScoreOptions, Shard, merge, score
from batchland.errors import InputError, Interrupted, MissingInputError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.predictions.schema import SHARD_PREDICTIONS, Counts
from batchland.scoring.shard import CONTAINER_SHIFT
from batchland.system.lock import locked
from batchland.training.export import write_onnx
from batchland.training.models import build


def score_shard(images, out, given, index, count, **changes):
    return score(images, out, given.model_copy(update={"shard": Shard(index=index, count=count), **changes}))


def score_shards(images, out, given, count):
    return [score_shard(images, out, given, index, count).manifest for index in range(count)]


@pytest.fixture
def four(tmp_path, photos, toy_model):
    """The sixty photos, scored by four shards."""
    score_shards(photos, tmp_path / "four", options(toy_model), 4)
    return tmp_path / "four"


def part(folder):
    return sorted(folder.glob("part-*.parquet"))[0]


def test_the_shard_of_an_image_never_changes():
    """A contract between machines and between versions: these values must never change."""
    names = ("camera-0/000.jpg", "camera-0/001.jpg", "Zürich/Straße 1.jpg", "./", "shards/train-000017.tar")
    assert [[Shard.owner(name, count) for count in (1, 2, 16, 1000)] for name in names] == [
        [0, 1, 15, 799],
        [0, 0, 6, 822],
        [0, 0, 2, 682],
        [0, 1, 3, 331],
        [0, 1, 1, 465],
    ]


def test_shards_have_about_the_same_size():
    owners = Counter(Shard.owner(f"camera-{number % 7}/{number:06}.jpg", 16) for number in range(16_000))
    assert len(owners) == 16
    assert 880 < min(owners.values()) <= max(owners.values()) < 1120


@pytest.mark.parametrize("text", ["16/16", "3", "3/", "-1/4", "1/0", "a/b", "1/4/8", ""])
def test_an_invalid_shard_is_rejected(text):
    with pytest.raises(UsageError) as caught:
        Shard.parse(text)
    assert str(caught.value) == f"shard {text!r}: is not I/N with I from 0 to N-1, such as 0/16 to 15/16"
    assert Shard.parse("15/16") == Shard(index=15, count=16)


def test_options_reject_an_index_beyond_the_count():
    with pytest.raises(UsageError, match="counted from 0: there is no shard 4 of 4"):
        ScoreOptions(shard={"index": 4, "count": 4})


@pytest.mark.parametrize("name", ["p.parquet", "p"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_shards_are_byte_for_byte_what_one_process_writes(tmp_path, photos, toy_model, count, name):
    (photos / "notes.txt").touch()
    score_shards(photos, tmp_path / "shards", options(toy_model), count)
    before = contents(tmp_path / "shards")
    merged = merge(tmp_path / "shards", tmp_path / "merged" / name).manifest
    whole = score(photos, tmp_path / "whole" / name, options(toy_model)).manifest
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert contents(tmp_path / "shards") == before
    same = {"run_id", "model", "images", "input_fingerprint", "ignored", "device", "provider", "counts", "files"}
    assert merged.model_dump(include=same) == whole.model_dump(include=same)
    assert merged.config == whole.config | {"out": str(tmp_path / "merged" / name)}


def test_the_files_of_a_shard(tmp_path, photos, toy_model):
    manifests = score_shards(photos, tmp_path / "out", options(toy_model), 3)
    assert sorted(os.listdir(tmp_path / "out")) == [f"shard-0000{index}-of-00003" for index in range(3)]
    names = [f"camera-{number // 20}/{number:03}.jpg" for number in range(60)]
    for index, manifest in enumerate(manifests):
        tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob(f"shard-0000{index}*/part-*.parquet"))]
        assert all(table.schema.equals(SHARD_PREDICTIONS) for table in tables)
        rows = [(row["position"], row["image"]) for table in tables for row in table.to_pylist()]
        assert rows == [(place, name) for place, name in enumerate(names) if Shard.owner(name, 3) == index]
        assert manifest.counts.listed == len(rows)
        assert (manifest.shard.index, manifest.shard.count, manifest.shard.listed) == (index, 3, 60)
    assert len({manifest.shard.names_sha256 for manifest in manifests}) == 1


def test_the_merged_manifest_describes_its_shards(tmp_path, photos, toy_model):
    manifests = score_shards(photos, tmp_path / "out", options(toy_model), 2)
    merged = merge(tmp_path / "out", tmp_path / "p.parquet").manifest
    assert merged.counts == Counts(listed=60, ok=54, failed=6, failed_by_code={"truncated": 6})
    assert [(each.index, each.images, each.host, each.device, each.seconds) for each in merged.shards] == [
        (index, each.counts.listed, each.host, "cpu", each.seconds.total) for index, each in enumerate(manifests)
    ]
    assert merged.seconds.decode == pytest.approx(sum(each.seconds.decode for each in manifests))
    assert merged.seconds.total >= sum(each.seconds.total for each in manifests)
    assert merged.shard is None


def test_more_shards_than_images(tmp_path, toy_model):
    root = tmp_path / "two"
    root.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(picture())
    manifests = score_shards(root, tmp_path / "out", options(toy_model), 7)
    assert sorted(manifest.counts.listed for manifest in manifests) == [0, 0, 0, 0, 0, 1, 1]
    merge(tmp_path / "out", tmp_path / "p.parquet")
    score(root, tmp_path / "q.parquet", options(toy_model))
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_a_folder_without_images_is_an_error_and_not_an_empty_shard(tmp_path, toy_model):
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no images to score"):
        score_shard(tmp_path / "none", tmp_path / "out", options(toy_model), 0, 4)


def test_two_processes_score_shards_at_once_and_a_third_merges(tmp_path, photos, toy_model):
    def command(*arguments):
        return [sys.executable, "-m", "batchland", *map(str, arguments)]

    common = ("score", photos, "--model", toy_model, "--device", "cpu", "--batch-size", "4")
    running = [forks.Popen(command(*common, "--out", tmp_path / "out", "--shard", f"{index}/2")) for index in (0, 1)]
    assert [(process.communicate()[1], process.returncode)[1] for process in running] == [0, 0]
    assert forks.run(command("merge", tmp_path / "out", "--out", tmp_path / "p.parquet")).returncode == 0
    assert forks.run(command(*common, "--out", tmp_path / "q.parquet")).returncode == 0
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


@pytest.mark.parametrize("came_meanwhile", [False, True])
def test_an_interrupted_shard_is_resumed(tmp_path, photos, toy_model, came_meanwhile):
    given = options(toy_model, shard=Shard(index=1, count=2))
    with pytest.raises(Stop):
        score(photos, tmp_path / "out", given, on_progress=stop_after(20))
    with pytest.raises(MissingInputError) as caught:
        merge(tmp_path / "out", tmp_path / "p.parquet")
    assert str(caught.value) == (f"{tmp_path / 'out'}: shard 0 of 2 is missing, shard 1 of 2 is unfinished")
    if came_meanwhile:  # another's image, but all behind it move on by one
        assert Shard.owner("aaa/5.jpg", 2) == 0
        (photos / "aaa").mkdir()
        (photos / "aaa" / "5.jpg").write_bytes(picture())
    resumed = score(photos, tmp_path / "out", given).manifest
    assert resumed.resumed_images == (0 if came_meanwhile else 16)
    score_shard(photos, tmp_path / "out", options(toy_model), 0, 2)
    merge(tmp_path / "out", tmp_path / "p.parquet")
    score(photos, tmp_path / "q.parquet", options(toy_model))
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_a_finished_shard_is_not_scored_again(tmp_path, photos, toy_model, four):
    """A pod that dies between its last rename and its exit is started again, and must not end as a failure."""
    before = contents(four)
    again = score_shard(photos, four, options(toy_model), 2, 4)
    assert (again.done_before, again.manifest.shard.index) == (True, 2)
    assert contents(four) == before
    assert not score_shard(photos, four, options(toy_model), 2, 4, overwrite=True).done_before
    with pytest.raises(UsageError, match="exists already"):
        score_shard(photos, four, options(toy_model), 2, 4, top_k=1)


def test_failed_images_are_scored_again_after_the_merge(tmp_path, photos, toy_model, four):
    out = tmp_path / "p.parquet"
    merge(four, out)
    for number in (7, 17, 57):
        data = picture(list(COLOURS.values())[number % 3])
        (photos / f"camera-{number // 20}" / f"{number:03}.jpg").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        score_shard(photos, four, options(toy_model), 0, 4, retry_failed=True)
    assert str(caught.value) == "shards cannot be retried; merge them, then retry the merged predictions"
    retried = score(photos, out, options(toy_model, retry_failed=True)).manifest
    assert (retried.counts.failed, retried.kept_images, retried.shards) == (3, 54, ())
    score(photos, tmp_path / "q.parquet", options(toy_model))
    assert out.read_bytes() == (tmp_path / "q.parquet").read_bytes()


def refusal(folder, out):
    with pytest.raises((UsageError, MissingInputError)) as caught:
        merge(folder, out)
    assert not out.exists()
    return str(caught.value).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")


def test_missing_and_unfinished_shards_are_named(tmp_path, photos, toy_model):
    folder, out = tmp_path / "sixteen", tmp_path / "p.parquet"
    score_shards(photos, folder, options(toy_model), 16)
    for index in (3, 7, 8, 9, 11, 12):
        shutil.rmtree(folder / Shard(index=index, count=16).folder_name)
    assert refusal(folder, out) == "shards 3, 7 to 9, 11, 12 of 16 are missing"
    (folder / ".shard-00003-of-00016.parts").mkdir()
    (folder / "shard-00004-of-00016" / "_manifest.json").unlink()
    assert refusal(folder, out) == "shards 7 to 9, 11, 12 of 16 are missing, shards 3, 4 of 16 are unfinished"


def test_a_folder_without_shards_is_rejected(tmp_path, photos, toy_model):
    score(photos, tmp_path / "whole", options(toy_model))
    out = tmp_path / "p.parquet"
    assert refusal(tmp_path / "whole", out) == "holds no shards"
    assert refusal(tmp_path / "none", out) == "cannot be opened (No such file or directory)"


def test_shards_of_two_counts_in_one_folder_are_rejected(tmp_path, photos, toy_model, four):
    with pytest.raises(UsageError, match=r"four: holds shards I/4, and this is shard 0/2$"):
        score_shard(photos, four, options(toy_model), 0, 2)
    (four / ".shard-00000-of-00002.parts").mkdir()
    expected = "holds shards of 2 and of 4; move those of one number to another folder, then merge"
    assert refusal(four, tmp_path / "p.parquet") == expected


def test_shards_scored_with_different_options_are_rejected(tmp_path, photos, toy_model, four):
    other = write_toy_model(tmp_path / "other.onnx", toy_card().model_copy(update={"name": "other"}))
    score_shard(photos, four, options(other), 0, 4, overwrite=True)
    score_shard(photos, four, options(toy_model, top_k=2), 2, 4, overwrite=True)
    score_shard(photos, four, options(toy_model, num_workers=1, prefetch_factor=1), 3, 4, overwrite=True)
    assert refusal(four, tmp_path / "p.parquet") == "shards 0, 2 of 4 differ from the others in model, top_k"


def test_shards_of_different_listings_are_rejected(tmp_path, photos, toy_model, four):
    (photos / "new.jpg").write_bytes(picture())
    score_shard(photos, four, options(toy_model), 1, 4, overwrite=True)
    assert refusal(four, tmp_path / "p.parquet") == (
        "shard 1 of 4 had another listing than the others: 61 images, not 60, or other names; the images changed "
        "between shards"
    )


def test_damaged_shards_are_rejected(tmp_path, photos, toy_model, four):
    out, shard = tmp_path / "p.parquet", four / "shard-00001-of-00004"
    whole = part(shard).read_bytes()
    part(shard).write_bytes(whole[:-10] + b"x" + whole[-9:])
    wrong = "part-000000.parquet does not have the sha256 of its manifest"
    assert refusal(four, out) == f"shard-00001-of-00004: is damaged ({wrong})"
    part(shard).unlink()
    wrong = "part-000000.parquet missing or not in its manifest"
    assert refusal(four, out) == f"shard-00001-of-00004: is damaged ({wrong})"
    (shard / "_manifest.json").write_text("{")
    assert refusal(four, out) == (
        "shard-00001-of-00004/_manifest.json: not a manifest that this version of batchland can read; "
        "restore it, or delete these predictions and score again"
    )
    shutil.rmtree(shard)
    shutil.copytree(four / "shard-00000-of-00004", shard)
    assert refusal(four, out) == "shard-00001-of-00004/_manifest.json: is the manifest of something else"


def forge(folder, change):
    """Another table in place of a shard's first part, with a manifest that fits it."""
    path = part(folder)
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed, path, row_group_size=2)
    manifest = json.loads((folder / "_manifest.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["files"][0] |= {"rows": changed.num_rows, "sha256": digest}
    delta = changed.num_rows - table.num_rows
    manifest["counts"] |= {"listed": manifest["counts"]["listed"] + delta, "ok": manifest["counts"]["ok"] + delta}
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def test_shards_with_missing_or_double_rows_are_rejected(tmp_path, photos, toy_model, four):
    """Regardless of the contents of their manifests."""
    out, shard = tmp_path / "p.parquet", four / "shard-00001-of-00004"
    saved = shutil.copytree(shard, tmp_path / "saved")
    first = pq.read_table(part(shard))["position"][0].as_py()

    forge(shard, lambda table: table.slice(1))
    assert refusal(four, out) == f"no shard has row {first}"
    shutil.rmtree(shard)
    shutil.copytree(saved, shard)
    other = part(four / "shard-00002-of-00004")
    twice = pq.read_table(other)["position"][0].as_py()

    def with_another_row(table):
        row = pq.read_table(other).slice(0, 1).replace_schema_metadata(None)
        both = pa.concat_tables([table.replace_schema_metadata(None), row]).sort_by("position")
        return both.replace_schema_metadata(table.schema.metadata)

    forge(shard, with_another_row)
    assert refusal(four, out) == f"two shards have row {twice}"


def test_an_interrupted_merge_is_resumed(tmp_path, photos, toy_model, four):
    out = tmp_path / "new" / "p.parquet"

    def stop(progress):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        merge(four, out, on_progress=stop)
    assert caught.value.exit_code == 143
    assert os.listdir(out.parent) == [".p.parquet.parts"]
    merge(four, out)
    score(photos, tmp_path / "q.parquet", options(toy_model))
    assert out.read_bytes() == (tmp_path / "q.parquet").read_bytes()


@pytest.mark.parametrize("what", ["part-000001.parquet", "_manifest.json"])
def test_shards_that_change_during_a_merge_are_an_error(tmp_path, photos, toy_model, what):
    """A missing file ends the merge at once, a shard that was scored again before anything is published."""
    four = tmp_path / "four"
    score_shards(photos, four, options(toy_model, part_size=8), 4)
    path = four / "shard-00002-of-00004" / what

    def disturb(progress):
        if progress.done == 8:
            path.rename(tmp_path / "away")
            if what == "_manifest.json":
                path.write_text((tmp_path / "away").read_text().replace("toy", "other"))

    out = tmp_path / "p.parquet"
    with pytest.raises((InputError, UsageError)) as caught:
        merge(four, out, on_progress=disturb, block_size=8)
    assert not out.exists()
    if what == "_manifest.json":
        assert str(caught.value) == f"{path.parent}: was scored again during the merge; run the command again"
    else:
        assert str(caught.value).startswith(f"{path}: cannot be read any more (")
        (tmp_path / "away").rename(path)
        assert merge(four, out).manifest.counts.listed == 60


def test_merge_locks_its_output_and_replaces_it_only_with_overwrite(tmp_path, four):
    out = tmp_path / "p.parquet"
    assert batchland("merge", four, "--out", out).exit_code == 0
    again = batchland("merge", four, "--out", out)
    assert (again.exit_code, again.stderr.splitlines()[-1]) == (
        2, f"batchland: {out}: exists already; --overwrite replaces it"
    )  # fmt: skip
    assert batchland("merge", four, "--out", out, "--overwrite").exit_code == 0
    with locked(tmp_path / ".p.parquet.lock", str(out)):
        assert batchland("merge", four, "--out", out, "--overwrite").exit_code == 75


@pytest.mark.parametrize(
    "place", ["four/shard-00001-of-00004", "four/shard-00001-of-00004/p.parquet", "four/p.parquet", "four", "."]
)
def test_the_output_of_a_merge_never_replaces_a_shard(tmp_path, four, place):
    (tmp_path / "_manifest.json").touch()  # as if it were an output of ours
    kept = contents(tmp_path)
    result = batchland("merge", four, "--out", tmp_path / place, "--overwrite")
    assert (result.exit_code, result.stderr) == (
        2,
        f"batchland: {tmp_path / place}: lies among the shards to merge, or contains them; give another --out\n",
    )
    assert contents(tmp_path) == kept


def test_the_output_of_the_commands(tmp_path, photos, toy_model, monkeypatch):
    monkeypatch.chdir(tmp_path)

    common = ("score", "photos", "--model", "toy.onnx", "--device", "cpu")
    for index in (0, 1):
        result = batchland(*common, "--out", "preds", "--shard", f"{index}/2")
        assert result.exit_code == 0
        assert f"Predictions: preds/shard-0000{index}-of-00002; " in result.stdout
    again = batchland(*common, "--out", "preds", "--shard", "1/2")
    assert again.exit_code == 0
    assert again.stdout == (
        "Shard 1/2 is scored already, in preds/shard-00001-of-00002; --overwrite scores it again.\n"
    )
    result = batchland("merge", "preds", "--out", "p.parquet", "--max-failed", "5")
    assert result.exit_code == 3
    assert result.stdout == (
        "Merged 2 shards of preds: 60 images, 54 ok, 6 failed (truncated 6). "
        "Predictions: p.parquet; manifest: p.manifest.json.\n"
    )
    assert "6 of 60 images failed (truncated 6), more than max-failed 5 allows" in result.stderr
    wrong = batchland(*common, "--out", "p.parquet", "--shard", "0/2")
    assert wrong.exit_code == 2
    assert "is the name of a file; the output of shards is a folder" in wrong.stderr
    shutil.rmtree("preds/shard-00001-of-00002")
    assert batchland("merge", "preds", "--out", "q.parquet").exit_code == 66


def tar(path, pictures):
    with tarfile.open(path, "w") as archive:
        for name, data in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_a_shard_opens_only_its_own_containers(tmp_path, photos, toy_model):
    """Twelve tar files with five images each, except for one empty file."""
    data = [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]
    (tmp_path / "tars").mkdir()
    names = [f"{number:02}.tar" for number in range(12)]
    for number, name in enumerate(names):
        pictures = {f"{place}.jpg": data[5 * number + place] for place in range(5)}
        tar(tmp_path / "tars" / name, {} if number == 7 else pictures)
    images = tmp_path / "tars" / "{00..11}.tar"
    whole = score(images, tmp_path / "q.parquet", options(toy_model)).manifest
    for index in range(3):
        foreign = [tmp_path / "tars" / name for name in names if Shard.owner(name, 3) != index]
        for path in foreign:  # whoever opens it now finds no tar file
            path.rename(path.with_suffix(".away"))
            path.write_bytes(b"not a tar file" * 1000)
        manifest = score_shard(images, tmp_path / "out", options(toy_model), index, 3).manifest
        assert (manifest.shard.dealt_by, manifest.shard.listed) == ("container", 12)
        for path in foreign:
            path.with_suffix(".away").rename(path)
        for path in (tmp_path / "out" / f"shard-0000{index}-of-00003").glob("part-*.parquet"):
            for row in pq.read_table(path, columns=["image", "position"]).to_pylist():
                container, image = row["image"].split("/")
                assert Shard.owner(container, 3) == index
                assert row["position"] == names.index(container) << CONTAINER_SHIFT | int(image.removesuffix(".jpg"))
    merged = merge(tmp_path / "out", tmp_path / "p.parquet").manifest
    assert (merged.counts, merged.counts.listed) == (whole.counts, 55)
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_containers_without_images_are_not_merged(tmp_path, toy_model):
    for number in range(3):
        tar(tmp_path / f"{number}.tar", {})
    score_shards(tmp_path / "{0..2}.tar", tmp_path / "out", options(toy_model), 2)
    assert refusal(tmp_path / "out", tmp_path / "p.parquet") == "all shards are empty, so there is nothing to merge"


@pytest.mark.slow
def test_a_real_network_gives_the_same_rows(tmp_path):
    """The project's own CNN. Batches are made up differently, so the last bits of probabilities may differ."""
    spec = PreprocessSpec(height=64, width=64)
    card = toy_card().model_copy(update={"preprocess": spec})
    write_onnx(build("scratch", 3, spec).eval(), card, tmp_path / "cnn.onnx")
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(50):
        pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number:02}.png")
    for batch_size in (4, 32):
        given = ScoreOptions(model=tmp_path / "cnn.onnx", batch_size=batch_size, overwrite=True)
        score_shards(tmp_path / "noise", tmp_path / "out", given, 3)
        merge(tmp_path / "out", tmp_path / "p.parquet", overwrite=True)
        score(tmp_path / "noise", tmp_path / "q.parquet", given)
        assert_same_rows(pq.read_table(tmp_path / "p.parquet"), pq.read_table(tmp_path / "q.parquet"))


def assert_same_rows(one, two, tolerance=1e-6):
    """The same images, labels and facts; probabilities within a tolerance."""
    chances = ["probability", "margin", "top_k"]
    assert one.drop_columns(chances).equals(two.drop_columns(chances))
    for left, right in zip(one["top_k"].to_pylist(), two["top_k"].to_pylist(), strict=True):
        assert [choice["label"] for choice in left] == [choice["label"] for choice in right]
        differences = [a["probability"] - b["probability"] for a, b in zip(left, right, strict=True)]
        assert max(map(abs, differences)) < tolerance

"""score(reuse=...): rows of known content are reused, and the output is that of a full run."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import Stop, contents, options, picture, stop_after, toy_card, write_toy_model

import batchland.scoring.engines.engine as engine_module
from batchland import score
from batchland.errors import UsageError
from batchland.predictions.layout import manifest_path
from batchland.scoring.merge.merge import merge
from batchland.scoring.options import Shard

SHADES = [(number, 255 - number, 40 * (number % 6)) for number in range(0, 200, 4)]


def write(root: Path, *numbers: int, broken: int = -1, folder: str = "") -> Path:
    """Pictures of different colours: number i is always the same file."""
    for number in numbers:
        path = root / folder / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if number == broken else picture(SHADES[number]))
    return root


@pytest.fixture
def predicted(monkeypatch) -> list[str]:
    """Names of the images that the model is asked about."""
    names: list[str] = []
    to_rows = engine_module.to_rows

    def recorded(batch, *rest, **named):
        names.extend(ref.name for ref in batch.refs)
        return to_rows(batch, *rest, **named)

    monkeypatch.setattr(engine_module, "to_rows", recorded)
    return names


@pytest.fixture
def first_night(tmp_path, toy_model):
    """Predictions of thirty images, one of them broken."""
    score(write(tmp_path / "one", *range(30), broken=7), tmp_path / "one.parquet", options(toy_model))
    return tmp_path / "one.parquet"


@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_rows_of_known_content_are_reused_under_other_names(tmp_path, first_night, toy_model, predicted, name):
    night = write(write(tmp_path / "two", *range(5, 20), broken=7, folder="renamed"), 40, 41)
    predicted.clear()
    reused = score(night, tmp_path / "reused" / name, options(toy_model, reuse=(str(first_night),))).manifest
    assert sorted(predicted) == ["040.jpg", "041.jpg", "renamed/007.jpg"]  # a failed row is not taken over
    assert (reused.reused_images, reused.copied_images, reused.kept_images, reused.counts.ok) == (14, 0, 0, 16)
    assert reused.scored_images == 3
    assert reused.images_per_second == pytest.approx(17 / reused.seconds.total, rel=0.1)
    full = score(night, tmp_path / "full" / name, options(toy_model)).manifest
    assert contents(tmp_path / "reused") == contents(tmp_path / "full")
    assert reused.run_id == full.run_id


def test_equal_files_of_a_run_are_computed_once(tmp_path, first_night, toy_model, predicted):
    night = tmp_path / "two"
    for folder in ("a", "b", "c"):
        write(night, *range(35, 50), 7, broken=7, folder=folder)
    predicted.clear()
    reused = score(night, tmp_path / "r" / "p", options(toy_model, reuse=(str(first_night),))).manifest
    assert sorted(predicted) == ["a/007.jpg", *(f"a/{number:03}.jpg" for number in range(35, 50))]
    assert (reused.reused_images, reused.copied_images, reused.counts.failed) == (0, 32, 3)
    score(night, tmp_path / "f" / "p", options(toy_model))
    assert contents(tmp_path / "r") == contents(tmp_path / "f")


@pytest.mark.parametrize("images", [4, 12, 30])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(tmp_path, first_night, toy_model, images):
    night = write(write(tmp_path / "two", *range(0, 30, 2), *range(31, 50)), *range(32, 50, 3), folder="copies")
    given = options(toy_model, reuse=(str(first_night),))

    with pytest.raises(Stop):
        score(night, tmp_path / "r" / "p.parquet", given, on_progress=stop_after(images))
    score(night, tmp_path / "r" / "p.parquet", given)
    score(night, tmp_path / "f" / "p.parquet", options(toy_model))
    assert contents(tmp_path / "r") == contents(tmp_path / "f")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"top_k": 1}, "top_k"),
        ({"signals": False, "probabilities": "top"}, "probabilities, signals"),
        ({"intra_op_threads": 3}, "intra_op_threads"),
    ],
)
def test_rows_of_other_options_are_not_reused(tmp_path, first_night, toy_model, predicted, caplog, change, names):
    predicted.clear()
    score(tmp_path / "one", tmp_path / "two.parquet", options(toy_model, reuse=(str(first_night),), **change))
    assert len(predicted) == 30
    assert caplog.messages == [f"{first_night}: no row is reused from it: it differs in {names}"]


def test_rows_of_another_model_are_not_reused(tmp_path, first_night, predicted, caplog):
    other = write_toy_model(tmp_path / "other.onnx", toy_card(12))
    predicted.clear()
    score(tmp_path / "one", tmp_path / "two.parquet", options(other, reuse=(str(first_night),)))
    assert len(predicted) == 30
    assert caplog.messages == [f"{first_night}: no row is reused from it: it differs in model"]


def test_nothing_to_reuse_is_an_error(tmp_path, first_night, toy_model):
    with pytest.raises(UsageError, match=r"none\.parquet: there are no predictions to reuse"):
        score(tmp_path / "one", tmp_path / "p", options(toy_model, reuse=(str(tmp_path / "none.parquet"),)))
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / ".p.parts").exists()


def test_a_file_of_another_kind_is_an_error(tmp_path, first_night, toy_model):
    with pytest.raises(UsageError, match=r"toy\.onnx: cannot be read as Parquet "):
        score(tmp_path / "one", tmp_path / "p", options(toy_model, reuse=(str(toy_model),)))
    pq.write_table(pa.table({"image": ["a.jpg"]}), tmp_path / "labels.parquet")
    with pytest.raises(UsageError, match=r"labels\.parquet: not a predictions file of batchland; give what"):
        score(tmp_path / "one", tmp_path / "p", options(toy_model, reuse=(str(tmp_path / "labels.parquet"),)))


def damage(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (damage, "one.parquet does not have the sha256 of its manifest"),
        (lambda path: path.with_suffix(".manifest.json").unlink(), "it has no manifest, so it is not complete"),
        (
            lambda path: path.with_suffix(".manifest.json").write_text("{}"),
            "{folder}/one.manifest.json: not a manifest that this version of batchland can read; restore it, or delete "
            "these predictions and score "
            "again",
        ),
    ],
)
def test_damaged_predictions_are_not_reused(tmp_path, first_night, toy_model, predicted, caplog, spoil, problem):
    spoil(first_night)
    predicted.clear()
    score(tmp_path / "one", tmp_path / "two.parquet", options(toy_model, reuse=(str(first_night),)))
    assert len(predicted) == 30
    expected = problem.format(folder=first_night.parent)
    assert caplog.messages == [f"{first_night}: no row is reused from it: {expected}"]


def test_shards_reuse_rows_and_merge_to_the_bytes_of_a_full_run(tmp_path, first_night, toy_model):
    night = write(write(tmp_path / "two", *range(20, 45)), *range(25, 45), folder="copies")
    for index in range(3):
        given = options(toy_model, reuse=(str(first_night),), shard=Shard(index=index, count=3))
        score(night, tmp_path / "shards", given)
    merged = merge(tmp_path / "shards", tmp_path / "m" / "p.parquet").manifest
    assert merged.reused_images == 15
    assert merged.images_per_second == pytest.approx(45 / sum(each.seconds for each in merged.shards), rel=0.1)
    assert merged.copied_images > 0
    score(night, tmp_path / "f" / "p.parquet", options(toy_model))
    assert contents(tmp_path / "m") == contents(tmp_path / "f")


def test_rows_are_reused_from_an_object_store_for_images_and_output_there(first_night, toy_model, predicted, bucket):
    write(write(bucket.folder / "two", *range(5, 20), folder="renamed"), 40)
    shutil.copyfile(first_night, bucket.folder / "one.parquet")
    shutil.copyfile(manifest_path(first_night), manifest_path(bucket.folder / "one.parquet"))
    predicted.clear()
    given = options(toy_model, reuse=(bucket.url("one.parquet"),))
    reused = score(bucket.url("two"), bucket.url("reused.parquet"), given).manifest
    assert sorted(predicted) == ["040.jpg", "renamed/007.jpg"]
    assert (reused.reused_images, reused.counts.ok) == (14, 16)
    score(bucket.url("two"), bucket.url("full.parquet"), options(toy_model))
    assert (bucket.folder / "reused.parquet").read_bytes() == (bucket.folder / "full.parquet").read_bytes()


def test_a_retry_reuses_rows(tmp_path, first_night, toy_model, predicted):
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    out = tmp_path / "r" / "p.parquet"
    (tmp_path / "two" / "008.jpg").write_bytes(b"")
    score(tmp_path / "two", out, options(toy_model))
    write(tmp_path / "two", 7, 8)
    predicted.clear()
    again = score(tmp_path / "two", out, options(toy_model, retry_failed=True, reuse=(str(first_night),))).manifest
    assert predicted == ["007.jpg"]
    assert (again.kept_images, again.reused_images) == (28, 1)
    score(tmp_path / "two", tmp_path / "f" / "p.parquet", options(toy_model))
    assert contents(tmp_path / "r") == contents(tmp_path / "f")


def test_an_original_that_changed_after_it_was_hashed_is_not_copied(tmp_path, first_night, toy_model, monkeypatch):
    night = write(write(tmp_path / "two", 40), 40, folder="copies")
    load = engine_module.score_batch

    def changed(batch, *rest):
        if batch.refs[0].name == "040.jpg":
            outcome = batch.outcomes[0]._replace(sha256="0" * 64)
            batch = batch._replace(outcomes=[outcome])
        return load(batch, *rest)

    monkeypatch.setattr("batchland.scoring.engines.local.score_batch", changed)
    score(night, tmp_path / "p.parquet", options(toy_model, reuse=(str(first_night),)))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["image"], row["status"], row["error_code"], row["error_message"]) for row in rows] == [
        ("040.jpg", "ok", None, None),
        ("copies/040.jpg", "failed", "changed", "is the same file as 040.jpg, which failed or changed; retry it"),
    ]

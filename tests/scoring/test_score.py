"""score(): one row per image, none lost or mixed up, and the same bytes after interruptions and errors."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from functools import partial

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from toys import COLOURS, Stop, contents, options, picture, stop_after, toy_card, write_toy_model

import batchland.predictions.local as local_module
import batchland.scoring.engines.engine as engine_module
from batchland import ScoreOptions, score
from batchland._version import __version__
from batchland.errors import Interrupted, ModelError, OutputError, TimeLimitError, TooManyFailedError, UsageError
from batchland.images.preprocess import decode
from batchland.images.signals import SIGNALS, measure
from batchland.predictions.schema import METADATA_KEY, PREDICTIONS, Counts, Manifest, PredictionsInfo
from batchland.scoring.options import FailureLimit, find_model

RED, GREEN, BLUE = COLOURS.values()


def labels(out):
    return {row["image"]: row["label"] for row in pq.read_table(out).to_pylist()}


def test_the_neighbour_of_a_corrupt_image_keeps_its_own_scores(tmp_path, toy_model):
    """The case that tools of this kind get wrong: a broken file in the middle, and its neighbour's scores."""
    root = tmp_path / "three"
    root.mkdir()
    (root / "1.jpg").write_bytes(picture(RED))
    (root / "2.jpg").write_bytes(picture(GREEN)[:200])
    (root / "3.jpg").write_bytes(picture(BLUE))
    out = tmp_path / "preds.parquet"
    summary = score(root, out, options(toy_model))
    rows = pq.read_table(out, columns=["image", "status", "error_code", "label", "class_index"]).to_pylist()
    assert rows == [
        {"image": "1.jpg", "status": "ok", "error_code": None, "label": "Red Tower", "class_index": 0},
        {"image": "2.jpg", "status": "failed", "error_code": "truncated", "label": None, "class_index": None},
        {"image": "3.jpg", "status": "ok", "error_code": None, "label": "Blue Lake", "class_index": 2},
    ]
    assert summary.manifest.counts == Counts(listed=3, ok=2, failed=1, failed_by_code={"truncated": 1})
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(root / "3.jpg", alone / "3.jpg")
    score(alone, tmp_path / "alone.parquet", options(toy_model))
    wanted = ["probability", "margin", "top_k"]
    together = pq.read_table(out, columns=wanted).slice(2)
    assert together.to_pylist() == pq.read_table(tmp_path / "alone.parquet", columns=wanted).to_pylist()


def test_the_output_file_and_its_manifest(tmp_path, photos, toy_model):
    (photos / "notes.txt").write_text("not an image")
    out = tmp_path / "new" / "preds.parquet"
    summary = score(photos, out, options(toy_model, top_k=2))
    assert sorted(path.name for path in out.parent.iterdir()) == ["preds.manifest.json", "preds.parquet"]
    table = pq.read_table(out)
    assert table.schema.equals(PREDICTIONS, check_metadata=False)
    assert table["image"].to_pylist() == [f"camera-{number // 20}/{number:03}.jpg" for number in range(60)]
    expected = [None if n % 10 == 7 else ("Red Tower", "Green Hill", "Blue Lake")[n % 3] for n in range(60)]
    assert table["label"].to_pylist() == expected

    manifest = Manifest.model_validate_json(summary.manifest_path.read_text())
    assert manifest == summary.manifest
    counts = Counts(listed=60, ok=54, failed=6, failed_by_code={"truncated": 6})
    assert manifest.counts == counts
    assert manifest.ignored == {".txt": 1}
    assert manifest.resumed_images == 0
    (written,) = manifest.files
    assert (written.path, written.rows, written.bytes) == ("preds.parquet", 60, out.stat().st_size)
    assert written.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert manifest.config["top_k"] == 2

    info = PredictionsInfo.model_validate_json(table.schema.metadata[METADATA_KEY])
    assert info.run_id == manifest.run_id
    assert info.model == manifest.model
    assert info.model.sha256 == hashlib.sha256(toy_model.read_bytes()).hexdigest()
    assert (info.classes, info.counts, info.top_k) == (toy_card().classes, counts, 2)
    assert (info.device, info.provider) == ("cpu", "CPUExecutionProvider")
    assert (info.images, info.versions["batchland"]) == (str(photos), __version__)


def test_each_row_has_the_hash_and_the_figures_of_its_own_file(tmp_path, photos, toy_model):
    score(photos, tmp_path / "preds.parquet", options(toy_model))
    names = [signal.name for signal in SIGNALS]
    for row in pq.read_table(tmp_path / "preds.parquet").to_pylist():
        data = (photos / row["image"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        if row["status"] == "failed":
            assert {row[name] for name in (*names, "entropy", "log_probabilities")} == {None}
        else:
            measured = measure(decode(data, toy_card().preprocess).pixels)
            assert [row[name] for name in names[:-2]] == pytest.approx(measured[:-2])
            assert (row["difference_hash"], row["thumbnail"]) == measured[-2:]
            assert math.exp(row["log_probabilities"][row["class_index"]]) == pytest.approx(row["probability"], 1e-3)


def test_figures_and_probabilities_can_be_left_out(tmp_path, photos, toy_model):
    score(photos, tmp_path / "preds.parquet", options(toy_model, signals=False, probabilities="top"))
    table = pq.read_table(tmp_path / "preds.parquet")
    assert {table[signal.name].null_count for signal in SIGNALS} == {60}
    assert (table["log_probabilities"].null_count, table["entropy"].null_count, table["sha256"].null_count) == (
        60,
        6,
        0,
    )


def test_a_folder_of_parts_is_the_same_table(tmp_path, photos, toy_model):
    score(photos, tmp_path / "one.parquet", options(toy_model))
    summary = score(photos, tmp_path / "parts", options(toy_model))
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "_manifest.json", *(f"part-{index:06}.parquet" for index in range(4)),
    ]  # fmt: skip
    assert ds.dataset(tmp_path / "parts").to_table().equals(pq.read_table(tmp_path / "one.parquet"))
    assert [written.rows for written in summary.manifest.files] == [16] * 3 + [12]
    metadata = pq.read_schema(tmp_path / "parts" / "part-000003.parquet").metadata[METADATA_KEY]
    assert PredictionsInfo.model_validate_json(metadata).counts.listed == 60


def test_two_runs_give_the_same_bytes(tmp_path, photos, toy_model):
    for name in ("a.parquet", "b.parquet"):
        score(photos, tmp_path / name, options(toy_model, num_workers=3 if name == "a.parquet" else 1))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("name", ["preds.parquet", "preds"])
@pytest.mark.parametrize("images", [4, 16, 30, 60])
def test_an_interrupted_run_is_resumed_and_gives_the_same_bytes(tmp_path, photos, toy_model, name, images):
    score(photos, tmp_path / "whole" / name, options(toy_model))
    with pytest.raises(Stop):
        score(photos, tmp_path / "broken" / name, options(toy_model), on_progress=stop_after(images))
    assert not (tmp_path / "broken" / name).exists()
    summary = score(photos, tmp_path / "broken" / name, options(toy_model))
    assert summary.manifest.resumed_images == -(-images // 4) * 4 // 16 * 16 if images < 60 else 60
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_an_unfinished_part_is_resumed_from_its_last_checkpoint(tmp_path, photos, toy_model):
    score(photos, tmp_path / "whole" / "p.parquet", options(toy_model))
    broken = tmp_path / "broken" / "p.parquet"
    with pytest.raises(Stop):
        score(photos, broken, options(toy_model), on_progress=stop_after(44), checkpoint_seconds=0)
    summary = score(photos, tmp_path / "broken" / "p.parquet", options(toy_model))
    assert summary.manifest.resumed_images == 44
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def interrupted_at(photos, out, options, images):
    with pytest.raises(Stop):
        score(photos, out, options, on_progress=stop_after(images))


@pytest.mark.parametrize(
    "change",
    ["top_k", "batch_size", "model", "all_files"],
)
def test_parts_of_a_different_run_are_discarded(tmp_path, photos, toy_model, change, caplog):
    out = tmp_path / "p.parquet"
    interrupted_at(photos, out, options(toy_model), 30)
    other = {"top_k": 1, "batch_size": 8, "all_files": True}
    changed = options(toy_model).model_copy(update={change: other.get(change)})
    if change == "model":
        card = toy_card().model_copy(update={"name": "another"})
        changed = options(write_toy_model(tmp_path / "other.onnx", card))
    assert score(photos, out, changed).manifest.resumed_images == 0
    assert caplog.messages == [f"{out}: discards 32 finished images of an interrupted run, which differs in {change}"]


def test_only_parts_with_unchanged_images_are_resumed(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    interrupted_at(photos, out, options(toy_model), 48)
    (photos / "camera-0" / "001.jpg").write_bytes(picture(BLUE))  # in part 0
    (photos / "camera-1" / "032.jpg").unlink()  # from part 2 on, all moves up
    summary = score(photos, out, options(toy_model))
    assert summary.manifest.resumed_images == 16  # part 1
    assert summary.manifest.counts.listed == 59
    assert labels(out)["camera-0/001.jpg"] == "Blue Lake"
    score(photos, tmp_path / "fresh.parquet", options(toy_model))
    assert out.read_bytes() == (tmp_path / "fresh.parquet").read_bytes()


def test_a_damaged_part_is_scored_again(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    interrupted_at(photos, out, options(toy_model), 48)
    part = tmp_path / ".p.parquet.parts" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    assert score(photos, out, options(toy_model)).manifest.resumed_images == 32


def test_restart_discards_finished_parts(tmp_path, photos, toy_model, caplog):
    out = tmp_path / "p.parquet"
    interrupted_at(photos, out, options(toy_model), 40)
    assert score(photos, out, options(toy_model, top_k=2, restart=True)).manifest.resumed_images == 0
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_an_output_that_exists_is_replaced_only_with_overwrite(tmp_path, photos, toy_model, name):
    out = tmp_path / name
    score(photos, out, options(toy_model))
    before = contents(tmp_path)
    with pytest.raises(UsageError) as caught:
        score(photos, out, options(toy_model, top_k=1))
    assert str(caught.value) == f"{out}: exists already"
    assert contents(tmp_path) == before
    summary = score(photos, out, options(toy_model, top_k=1, overwrite=True))
    assert Manifest.model_validate_json(summary.manifest_path.read_text()).config["top_k"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_files_that_batchland_did_not_write_are_never_replaced(tmp_path, photos, toy_model):
    damaged = b"PAR1" + b"\xff" * 20 + (20).to_bytes(4, "little") + b"PAR1"
    for name, write in (
        ("notes", lambda path: path.write_text("x")),
        ("damaged", lambda path: path.write_bytes(damaged)),
        ("table", partial(pq.write_table, pa.table({}))),
    ):
        write(tmp_path / f"{name}.parquet")
        before = contents(tmp_path)
        with pytest.raises(UsageError, match=rf"/{name}.parquet: is a file that batchland did not write; give another"):
            score(photos, tmp_path / f"{name}.parquet", options(toy_model, overwrite=True))
        assert contents(tmp_path) == before
    (tmp_path / "empty.parquet").touch()
    assert score(photos, tmp_path / "empty.parquet", options(toy_model, overwrite=True)).manifest.counts.listed == 60
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is a folder that batchland did not write"):
        score(photos, tmp_path / "precious", options(toy_model, overwrite=True))
    (tmp_path / "f.parquet").mkdir()
    with pytest.raises(UsageError, match="is a folder; an output named"):
        score(photos, tmp_path / "f.parquet", options(toy_model, overwrite=True))
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "x"


def test_a_run_killed_between_file_and_manifest_is_completed(tmp_path, photos, toy_model, monkeypatch):
    out = tmp_path / "p.parquet"
    real = local_module.replace_file

    def killed(path, *content, **scratch):
        if path.name.endswith("manifest.json"):
            raise Stop
        real(path, *content, **scratch)

    monkeypatch.setattr(local_module, "replace_file", killed)
    with pytest.raises(Stop):
        score(photos, out, options(toy_model))
    monkeypatch.undo()
    before = out.read_bytes()
    summary = score(photos, out, options(toy_model))
    assert summary.manifest.resumed_images == 60
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_a_run_killed_before_it_cleaned_up_is_completed(tmp_path, photos, toy_model, monkeypatch, name):
    out = tmp_path / "out" / name

    def killed(self):
        raise Stop

    monkeypatch.setattr(local_module.LocalOutput, "_clean_up", killed)
    with pytest.raises(Stop):
        score(photos, out, options(toy_model))
    monkeypatch.undo()
    before = {key: value for key, value in contents(out.parent).items() if not key.startswith(".")}
    assert score(photos, out, options(toy_model)).manifest.resumed_images == 60
    assert contents(out.parent) == before


def test_rows_in_another_order_than_the_listing_are_never_published(tmp_path, photos, toy_model, monkeypatch):
    """Tests the check of names and order: a simulated bug swaps two neighbouring rows."""
    real = engine_module.to_rows

    def swapped(batch, *rest, **named):
        first, second, *others = batch.refs
        return real(batch._replace(refs=[second, first, *others]), *rest, **named)

    monkeypatch.setattr(engine_module, "to_rows", swapped)
    with pytest.raises(AssertionError, match="60 images listed, but the 60 rows do not match them"):
        score(photos, tmp_path / "out" / "p.parquet", options(toy_model))
    assert os.listdir(tmp_path / "out") == [".p.parquet.parts"]


@pytest.mark.parametrize("wrong", [{"ok": 1}, {"failed": 2}, {"failed_by_code": {"empty": 2}}])
def test_counts_that_do_not_add_up_are_rejected(wrong):
    right = {"listed": 3, "ok": 2, "failed": 1, "failed_by_code": {"empty": 1}}
    assert Counts(**right).listed == 3
    with pytest.raises(ValidationError):
        Counts(**right | wrong)


def test_an_overwriting_run_killed_between_its_renames_loses_nothing(tmp_path, photos, toy_model):
    out = tmp_path / "p"
    score(photos, out, options(toy_model))
    before = contents(out)
    out.rename(tmp_path / ".p.old")  # as after a kill there
    with pytest.raises(UsageError, match="exists"):
        score(photos, out, options(toy_model))
    assert contents(out) == before


def test_an_output_inside_the_images_is_refused(photos, toy_model):
    with pytest.raises(UsageError, match="lies inside the images to score"):
        score(photos, photos / "sub" / "p.parquet", options(toy_model))
    assert not (photos / "sub").exists()


@pytest.mark.parametrize("name", ["ft.csv", "ft.JSON", "ft.pq"])
def test_an_output_folder_with_the_suffix_of_another_format_is_rejected(tmp_path, photos, toy_model, name):
    with pytest.raises(UsageError) as caught:
        score(photos, tmp_path / name, options(toy_model))
    message = "predictions are written as Parquet; name the output ft.parquet or ft"
    assert str(caught.value) == f"{tmp_path}/{name}: {message}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "toy.onnx"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_name_too_long_for_the_files_beside_it_is_rejected(tmp_path, photos, toy_model, folder):
    longest = "ü" * 120 + ("12345678" if folder else ".parquet")  # 248 bytes
    score(photos, tmp_path / longest, options(toy_model))
    assert len(labels(tmp_path / longest)) > 0
    with pytest.raises(UsageError) as caught:
        score(photos, tmp_path / f"a{longest}", options(toy_model))
    assert str(caught.value).endswith(
        ": its name has 249 bytes, and only 248 leave room for the names of the files beside it; give a shorter one"
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("a")] == []


def test_a_run_that_cannot_write_leaves_no_parts(photos, toy_model):
    with pytest.raises(OutputError) as caught:
        score(photos, "/proc/p.parquet", options(toy_model))
    assert str(caught.value) == (
        "/proc/p.parquet: cannot be written (No such file or directory); fix this, or give another output"
    )


def test_an_output_never_replaces_its_input(tmp_path, photos, toy_model):
    """Images in a table, a tar file, a list, or a folder inside an output of batchland."""
    before = score(photos, tmp_path / "night", options(toy_model)).out
    photos = photos.rename(before / "photos")
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "table.parquet")
    pq.write_table(pa.table({"image": [str(photos / "camera-0/000.jpg")]}), tmp_path / "list.parquet")
    (tmp_path / "link.parquet").symlink_to("table.parquet")
    with tarfile.open(before / "1.tar", "w") as tar:
        tar.add(photos)
    kept = contents(tmp_path)
    for out, read, given, listing in (
        ("table.parquet", "table.parquet", "table.parquet", None),
        ("table.parquet", "link.parquet", "{link,table}.parquet", None),
        ("night", "night/1.tar", "night/*.tar", None),
        ("night", "night/photos", "night/photos", None),
        ("night", "night", "night", None),
        ("list.parquet", "list.parquet", None, "list.parquet"),
    ):
        for overwrite in (False, True):
            asked = options(toy_model, image_list=listing and str(tmp_path / listing), overwrite=overwrite)
            with pytest.raises(UsageError) as caught:
                score(given and str(tmp_path / given), tmp_path / out, asked)
            assert str(caught.value) == f"{tmp_path}/{out}: would replace {tmp_path}/{read}, which is an input"
    assert contents(tmp_path) == kept


def test_no_images_is_an_error_that_says_what_was_found(tmp_path, toy_model):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").touch()
    with pytest.raises(UsageError) as caught:
        score(tmp_path / "in", tmp_path / "p.parquet", options(toy_model))
    assert str(caught.value) == f"{tmp_path}/in: no images to score (found: 1 .txt)"
    (tmp_path / "in" / "a.txt").rename(tmp_path / "in" / ".a.jpg")
    with pytest.raises(UsageError) as caught:
        score(tmp_path / "in", tmp_path / "p.parquet", options(toy_model))
    assert str(caught.value) == f"{tmp_path}/in: no images to score (found: 1 hidden); give the folder that holds them"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "toy.onnx"]


def test_without_images_the_advice_is_about_the_kind_of_source(tmp_path, toy_model):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/.hidden.jpg", b"")
    (tmp_path / "l.csv").write_text("path,label\n")
    (tmp_path / "missing.csv").write_text("path,label\nnone.jpg,cat\n")
    (tmp_path / "l.txt").write_text("\n")
    for images, image_list, message in (
        (tmp_path / "a.zip", None, "a.zip: no images to score (found: 1 hidden); give the files that hold them"),
        (None, "l.csv", "l.csv: no images to score (found: nothing at all); give a table with one path per row"),
        (
            tmp_path,
            "missing.csv",
            f"missing.csv: there is no file '{tmp_path}/none.jpg'; give a table with one path per row, relative to the "
            f"folder or absolute",
        ),
        (None, "l.txt", "l.txt: no images to score (found: 1 blank line); give a list with one path per line"),
    ):
        given = options(toy_model, image_list=image_list and f"{tmp_path}/{image_list}")
        with pytest.raises(UsageError) as caught:
            score(images, tmp_path / "p.parquet", given)
        assert str(caught.value) == f"{tmp_path}/{message}"


def test_a_folder_of_broken_files_gives_a_table_of_failed_rows(tmp_path, toy_model):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"")
    summary = score(tmp_path / "in", tmp_path / "p.parquet", options(toy_model))
    assert summary.manifest.counts == Counts(listed=2, ok=0, failed=2, failed_by_code={"empty": 2})


def test_a_file_that_vanishes_after_listing_has_its_row(tmp_path, photos, toy_model):
    def remove(progress):
        (photos / "camera-0" / "019.jpg").unlink(missing_ok=True)  # its folder is listed by now

    few = ScoreOptions(model=toy_model, batch_size=4, prefetch_factor=1)
    score(photos, tmp_path / "p.parquet", few, on_progress=remove)
    row = pq.read_table(tmp_path / "p.parquet").to_pylist()[19]
    assert (row["image"], row["status"], row["error_code"]) == ("camera-0/019.jpg", "failed", "vanished")


def test_a_full_disk_loses_nothing(tmp_path, photos, toy_model, monkeypatch):
    out = tmp_path / "p.parquet"
    real = pq.write_table

    def full(table, file, **settings):
        if "part-000003" in file.name:
            raise OSError(28, "No space left on device")
        real(table, file, **settings)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OutputError) as caught:
        score(photos, out, options(toy_model))
    assert str(caught.value) == (
        f"{out}: cannot be written (No space left on device); finished parts are kept: free some space, then run the "
        f"same command again to continue"
    )
    monkeypatch.undo()
    assert score(photos, out, options(toy_model)).manifest.resumed_images == 48


def test_a_signal_stops_the_run_after_the_batch(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"

    def terminate(progress):
        if progress.done == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        score(photos, out, options(toy_model), on_progress=terminate)
    assert caught.value.exit_code == 143
    assert str(caught.value) == f"{out}: stopped after 12 images; run the same command again to resume"
    assert score(photos, out, options(toy_model)).manifest.resumed_images == 12


def test_a_run_stops_at_its_time_limit_and_is_resumed_there(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    with pytest.raises(TimeLimitError) as caught:
        score(photos, out, options(toy_model, time_limit=1e-9))
    assert caught.value.exit_code == 143
    assert (
        str(caught.value) == f"{out}: stopped after 4 images, at the time limit; run the same command again to resume"
    )
    assert score(photos, out, options(toy_model)).manifest.resumed_images == 4


def test_only_selected_images_have_rows_and_parts_of_another_selection_are_not_resumed(tmp_path, photos, toy_model):
    out = tmp_path / "p.parquet"
    with pytest.raises(TimeLimitError):
        score(photos, out, options(toy_model, time_limit=1e-9, exclude=("/camera-2/",)))
    chosen = options(toy_model, include=("camera-0/", "camera-1/"), exclude=("*5.jpg",))
    manifest = score(photos, out, chosen, skip=lambda ref: ref.name < "camera-1/030.jpg").manifest
    assert list(labels(out)) == [f"camera-1/{number:03}.jpg" for number in range(30, 40) if number != 35]
    assert manifest.ignored == {"already scored": 27, "excluded": 6, "not included": 18}
    assert manifest.resumed_images == 0
    with pytest.raises(UsageError, match=r"no images to score \(found: 60 already scored\)"):
        score(photos, tmp_path / "none.parquet", options(toy_model), skip=lambda ref: True)


def test_scoring_never_imports_torch_or_pandas(tmp_path, photos, toy_model):
    script = (
        "import sys; from batchland import score, ScoreOptions; "
        f"score({str(photos)!r}, {str(tmp_path / 'p.parquet')!r}, ScoreOptions(model={str(toy_model)!r})); "
        "print(sorted(set(sys.modules) & {'torch', 'torchvision', 'pandas', 'sklearn', 'onnx', 'click', 'matplotlib'}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_model_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHLAND_MODEL", raising=False)
    with pytest.raises(
        UsageError,
        match=r"no model is given, BATCHLAND_MODEL is not set, and there is no models/transfer.onnx or models/s",
    ):
        find_model()
    (tmp_path / "models").mkdir()
    found = []
    for name in ("scratch", "transfer"):
        (tmp_path / "models" / f"{name}.onnx").touch()
        found.append(str(find_model()))
    monkeypatch.setenv("BATCHLAND_MODEL", "elsewhere.onnx")
    assert [*found, str(find_model())] == ["models/scratch.onnx", "models/transfer.onnx", "elsewhere.onnx"]


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_model_without_probabilities_ends_the_run_with_its_first_batch(tmp_path, photos, toy_model, scale):
    model = onnx.load(toy_model)
    (number,) = (initializer for initializer in model.graph.initializer if initializer.name == "scale")
    number.CopyFrom(onnx.numpy_helper.from_array(np.array(scale, np.float32), "scale"))
    onnx.save(model, tmp_path / "broken.onnx")
    out = tmp_path / "out" / "p.parquet"
    with pytest.raises(ModelError) as caught:
        score(photos, out, options(tmp_path / "broken.onnx"))
    assert (str(caught.value), caught.value.exit_code) == (
        f"{tmp_path}/broken.onnx: its outputs for the first batch are not probabilities that sum to 1, not for one "
        f"image; export or adopt the model again",
        5,
    )
    assert not out.exists()


def test_a_model_that_cannot_be_used_leaves_no_trace(tmp_path, photos):
    (tmp_path / "m.onnx").write_bytes(b"text")
    with pytest.raises(ModelError):
        score(photos, tmp_path / "out" / "p.parquet", options(tmp_path / "m.onnx"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "failed", "over"),
    [("0", 0, False), ("0", 1, True), ("5", 5, False), ("5", 6, True), ("10%", 10, False), ("10%", 11, True)],
)
def test_failure_limits(text, failed, over):
    counts = Counts(listed=100, ok=100 - failed, failed=failed, failed_by_code={"empty": failed} if failed else {})
    limit = FailureLimit.parse(text)
    if not over:
        limit.check(counts)
        return
    with pytest.raises(TooManyFailedError) as caught:
        limit.check(counts)
    assert str(caught.value) == (
        f"{failed} of 100 images failed (empty {failed}), more than max-failed {text} allows; the predictions are "
        f"written, see the rows with status = 'failed'"
    )


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "5 %%", "1.5", "nan%", "%"])
def test_an_invalid_failure_limit_is_rejected(text):
    with pytest.raises(UsageError, match="neither a number of images nor a percentage"):
        FailureLimit.parse(text)


def test_the_run_id_depends_on_the_options_and_not_on_the_time(tmp_path, photos, toy_model):
    ids = [
        score(photos, tmp_path / f"{index}.parquet", options(toy_model, top_k=k)).manifest.run_id
        for index, k in enumerate((5, 5, 1))
    ]
    assert ids[0] == ids[1] != ids[2]
    assert json.loads((tmp_path / "0.manifest.json").read_text())["run_id"] == ids[0]

"""A plan lists a source once; its shards are ranges, and together they are what one process writes."""

import csv
import gzip
import io
import json
import pickle
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import zip_of
from commands import batchland
from pyarrow import orc
from s3_server import Bucket
from toys import Stop, options, picture, stop_after

from batchland import Shard, merge, read, score
from batchland.errors import OutputError, UsageError
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored
from batchland.predictions import stored_folder
from batchland.predictions.objects import Objects
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.stored_folder import StoredFolder
from batchland.scoring.merge.in_place import merge_in_place
from batchland.scoring.options import ScoreOptions
from batchland.scoring.plan import write
from batchland.scoring.plan.planned_run import PlannedListing, shard_range
from batchland.scoring.plan.read import PlannedImages, PlannedRange, StoredPlan
from batchland.scoring.plan.write import make_plan
from batchland.system import filesystems

NAMES = [f"camera-{number // 20}/{number:03}.jpg" for number in range(60)]


@pytest.fixture
def plan(tmp_path: Path, photos: Path) -> Path:
    """A plan of the sixty photos."""
    (photos / "notes.txt").touch()
    make_plan(photos, tmp_path / "plan")
    return tmp_path / "plan"


def by_plan(plan: Path | str, model: Path, out: Path | str, **changes: Any) -> Any:
    return score(None, out, options(model, plan=str(plan), **changes)).manifest


def shards_by_plan(plan: Path | str, model: Path, out: Path | str, count: int, images: str | None = None) -> None:
    for index in range(count):
        score(images, out, options(model, plan=str(plan), shard=Shard(index=index, count=count)))


def test_a_plan_contains_the_listing(tmp_path, photos, plan):
    found = StoredPlan(plan).plan
    assert sorted(path.name for path in plan.iterdir()) == ["list-000000.parquet", "plan.json"]
    assert (found.images, found.listed, found.unlisted, found.ignored) == (str(photos), 60, 0, {".txt": 1})
    table = pq.read_table(plan / "list-000000.parquet")
    assert table.to_pylist() == [
        {"image": name, "key": None, "error_code": None, "error_message": None} for name in NAMES
    ]


@pytest.mark.parametrize("count", [1, 3, 11, 20])
def test_shards_of_a_plan_are_merged_byte_for_byte(tmp_path, photos, toy_model, plan, count):
    shards_by_plan(plan, toy_model, tmp_path / "shards", count)
    merged = merge(tmp_path / "shards", tmp_path / "merged.parquet").manifest
    whole = score(photos, tmp_path / "whole.parquet", options(toy_model)).manifest
    planned = by_plan(plan, toy_model, tmp_path / "planned.parquet")
    expected = (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "planned.parquet").read_bytes() == expected
    if count <= 15:  # so many batches there are; with more shards, batches are divided
        assert (tmp_path / "merged.parquet").read_bytes() == expected
    same = {"run_id", "model", "images", "input_fingerprint", "ignored", "counts"}
    assert merged.model_dump(include=same) == whole.model_dump(include=same) == planned.model_dump(include=same)


def test_a_plan_that_may_not_be_safe_on_disk_does_not_stop_a_rerun(tmp_path, photos, monkeypatch):
    """The last sync, after plan.json is in place, fails once."""
    real = stored_folder.replace_file

    def fails(path: Path, data: Any) -> None:
        real(path, data)
        if path.name == "plan.json":
            monkeypatch.setattr(stored_folder, "replace_file", real)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(stored_folder, "replace_file", fails)
    with pytest.raises(OutputError, match=r"cannot be written \(Input/output error\); run the same command again"):
        make_plan(photos, tmp_path / "plan")
    make_plan(photos, tmp_path / "plan")
    assert StoredPlan(tmp_path / "plan").plan.images == str(photos)


def test_shards_are_ranges_of_whole_parts_batches_or_images():
    def ranges(count: int, listed: int) -> list[tuple[int, int]]:
        return [shard_range(Shard(index=index, count=count), listed, 8, 4) for index in range(count)]

    assert ranges(3, 60) == [(0, 16), (16, 40), (40, 60)]
    assert ranges(8, 60) == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40), (40, 48), (48, 56), (56, 60)]
    assert ranges(9, 60) == [(0, 4), (4, 12), (12, 20), (20, 24), (24, 32), (32, 40), (40, 44), (44, 52), (52, 60)]
    assert ranges(20, 20) == [(number, number + 1) for number in range(20)]
    assert ranges(3, 2) == [(0, 0), (0, 1), (1, 2)]


def test_a_shard_reads_its_own_rows_alone(tmp_path, photos, plan, monkeypatch):
    """Of a plan of many files and row groups, two row groups are read."""
    monkeypatch.setattr(write, "GROUP_ROWS", 5)
    monkeypatch.setattr(write, "LIST_GROUPS", 3)
    make_plan(photos, tmp_path / "many")
    assert sorted(path.name for path in (tmp_path / "many").glob("*.parquet")) == [
        f"list-00000{number}.parquet" for number in range(4)
    ]
    stored = StoredPlan(tmp_path / "many")
    source = open_source(photos)
    for number in (0, 2, 3):
        (tmp_path / "many" / f"list-00000{number}.parquet").unlink()
    groups = []
    read_row_group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda file, i, **more: groups.append(i) or read_row_group(file, i, **more)
    )
    assert [ref.name for ref in stored.refs(source, 21, 29)] == NAMES[21:29]
    assert groups == [1, 2]
    data = pickle.dumps(PlannedRange(PlannedImages(tmp_path / "many", stored.sha256, str(photos), False), 16, 20))
    assert len(data) < 500
    part = pickle.loads(data)
    assert ([ref.name for ref in part], len(part)) == (NAMES[16:20], 4)
    assert list(part) == list(part)


def test_nothing_is_listed_again(tmp_path, photos, toy_model, plan, monkeypatch):
    """Images that come later are in no shard, and no merge breaks; a second plan has them and no others."""
    score(None, tmp_path / "all", options(toy_model, plan=str(plan), shard=Shard(index=0, count=2)))
    for name in ("aaa/1.jpg", "camera-1/999.jpg", "zzz.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(picture())
    (photos / "camera-0" / "003.jpg").unlink()
    score(None, tmp_path / "all", options(toy_model, plan=str(plan), shard=Shard(index=1, count=2)))
    merged = merge(tmp_path / "all", tmp_path / "p.parquet").manifest
    assert (merged.counts.listed, merged.counts.failed) == (60, 6)
    late = make_plan(photos, tmp_path / "late", without=[plan])
    assert (late.listed, late.without) == (3, (str(plan),))
    by_plan(tmp_path / "late", toy_model, tmp_path / "late.parquet")
    assert read(tmp_path / "late.parquet")["image"].to_list() == ["aaa/1.jpg", "camera-1/999.jpg", "zzz.jpg"]
    with pytest.raises(UsageError, match="every image is in the earlier plans"):
        make_plan(photos, tmp_path / "none", without=[plan, tmp_path / "late"])


def place(kind: str, photos: Path, bucket: Bucket) -> dict[str, Any]:
    """The photos in that kind of source."""
    data = {name: (photos / name).read_bytes() for name in NAMES}
    folder = photos.parent
    if kind == "s3":
        shutil.copytree(photos, bucket.folder / "photos")
        return {"images": bucket.url("photos")}
    if kind == "zip":
        (folder / "all.zip").write_bytes(zip_of(data))
        return {"images": str(folder / "all.zip")}
    if kind == "table":
        pq.write_table(pa.table({"image": list(data.values())}), folder / "all.parquet")
        return {"images": str(folder / "all.parquet")}
    if kind == "tar":
        for number in range(3):
            with tarfile.open(folder / f"t-{number}.tar", "w") as archive:
                for name in NAMES[number::3]:
                    archive.add(photos / name, name)
        return {"images": f"{folder}/t-*.tar"}
    (folder / "list.txt").write_text("\n".join(NAMES))
    return {"images": str(photos), "image_list": str(folder / "list.txt")}


@pytest.mark.parametrize("kind", ["s3", "zip", "table", "tar", "list"])
def test_every_kind_of_source_can_be_planned(tmp_path, photos, toy_model, bucket, kind):
    given = place(kind, photos, bucket)
    images = given.pop("images")
    made = make_plan(images, bucket.url("plan"), image_list=given.get("image_list"))
    assert (made.listed, made.lists[0].path) == (60, "list-000000.parquet")
    shards_by_plan(bucket.url("plan"), toy_model, tmp_path / "shards", 3, images)
    merge(tmp_path / "shards", tmp_path / "p.parquet")
    score(images, tmp_path / "q.parquet", options(toy_model, **given))
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_an_interrupted_shard_is_resumed_and_a_finished_one_left(tmp_path, toy_model, plan):
    given = options(toy_model, plan=str(plan), shard=Shard(index=1, count=2))

    with pytest.raises(Stop):
        score(None, tmp_path / "out", given, on_progress=stop_after(20))
    assert score(None, tmp_path / "out", given).manifest.resumed_images == 16
    assert score(None, tmp_path / "out", given).done_before


@pytest.mark.parametrize("far", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_shards_are_merged_in_place(tmp_path, photos, toy_model, plan, bucket, far):
    """A manifest over the parts: nothing is rewritten, and every reader takes the folder for predictions."""
    out = bucket.url("shards") if far else str(tmp_path / "shards")
    folder = bucket.folder / "shards" if far else tmp_path / "shards"
    shards_by_plan(plan, toy_model, out, 3)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    merged = merge_in_place(out).manifest
    whole = score(photos, tmp_path / "whole", options(toy_model)).manifest
    same = {"run_id", "model", "images", "input_fingerprint", "ignored", "counts", "device"}
    assert merged.model_dump(include=same) == whole.model_dump(include=same)
    assert [shard.images for shard in merged.shards] == [16, 16, 28]
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {folder / "_manifest.json"}
    assert {path: after[path] for path in before} == before
    stored = StoredPredictions(out if far else Path(out))
    assert stored.parts() == [file.path for file in merged.files]
    assert (stored.info().counts, stored.info().run_id) == (whole.counts, whole.run_id)
    rows = [row for part in stored.parts() for batch in stored.batches(part) for row in batch.to_pylist()]
    paths = sorted((tmp_path / "whole").glob("*.parquet"))
    assert rows == [row for path in paths for row in pq.read_table(path).to_pylist()]
    merged_json = (folder / "_manifest.json").read_bytes()
    (photos / "late.jpg").write_bytes(picture())
    make_plan(photos, tmp_path / "late", without=[str(plan)])
    for count, problem in ((1, "holds shards I/3, and this is shard 0/1"), (3, "exists already")):
        with pytest.raises(UsageError, match=problem):
            by_plan(tmp_path / "late", toy_model, out, shard=Shard(index=0, count=count))
    assert (folder / "_manifest.json").read_bytes() == merged_json
    if not far:
        assert read(folder).equals(read(tmp_path / "whole"))
        with pytest.raises(UsageError, match="is merged already"):
            merge_in_place(out)
        assert merge_in_place(out, overwrite=True).manifest.run_id == merged.run_id
        for images, shard_plan in ((None, str(plan)), (photos, None)):
            again = options(toy_model, plan=shard_plan, shard=Shard(index=1, count=3), top_k=1, overwrite=True)
            score(images, out, again)
            assert StoredPredictions(Path(out)).manifest() is None  # the old one is not valid for the new rows
            (folder / "_manifest.json").write_bytes(merged_json)


def test_shards_that_cannot_be_merged_in_place_are_rejected(tmp_path, photos, toy_model, plan):
    for index in range(2):
        score(photos, tmp_path / "dealt", options(toy_model, shard=Shard(index=index, count=2)))
    with pytest.raises(UsageError, match="are not ranges of a plan, so their rows have to be sorted"):
        merge_in_place(tmp_path / "dealt")
    shards_by_plan(plan, toy_model, tmp_path / "mixed", 2)
    other = options(toy_model, plan=str(plan), shard=Shard(index=1, count=2), overwrite=True)
    score(None, tmp_path / "mixed", other.model_copy(update={"part_size": 12}))
    with pytest.raises(UsageError, match="begins with image 24 of the plan, not 32"):
        merge_in_place(tmp_path / "mixed")
    part = next((tmp_path / "mixed" / "shard-00000-of-00002").glob("part-*"))
    part.write_bytes(part.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="is damaged"):
        merge_in_place(tmp_path / "mixed")


def test_options_that_do_not_fit_a_plan(tmp_path, photos, toy_model, plan):
    make_plan(photos, tmp_path / "four", parts=4)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"plan": str(tmp_path / "none")}, "none: holds no complete plan; make one with `batchland plan`"),
        ({"plan": str(plan / "plan.json")}, r"plan\.json: is a file; give the folder of the plan"),
        ({"plan": str(plan), "include": ("*.jpg",)}, "was made with other patterns or options of listing"),
        ({"plan": str(plan), "image_list": "list.txt"}, "is a list already; give a plan or a list"),
        ({"plan": str(plan), "retry_failed": True}, "failed rows are scored again without a plan"),
        (
            {"plan": str(tmp_path / "four"), "shard": Shard(index=0, count=3)},
            "is for 4 shards, not 3; score 0/4 to 3/4",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            score(None, tmp_path / "out", options(toy_model, **changes))
    with pytest.raises(UsageError, match=r"is a plan of .*, not of"):
        score(tmp_path, tmp_path / "out", options(toy_model, plan=str(plan)))
    with pytest.raises(UsageError, match="holds a plan already"):
        make_plan(photos, plan)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(UsageError, match=r"holds letter.txt, which no plan has; give an empty folder"):
        make_plan(photos, tmp_path / "mine", overwrite=True)


def test_a_damaged_plan_is_named(tmp_path, photos, toy_model, plan):
    (plan / "list-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"list-000000.parquet: .*restore it, or plan again"):
        by_plan(plan, toy_model, tmp_path / "p.parquet")
    (plan / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match="not a plan that this version of batchland can read; plan again"):
        PlannedListing(None, ScoreOptions(plan=str(plan)))


def test_a_folder_that_cannot_be_listed_stays_a_failed_row(tmp_path, toy_model):
    """Names and errors of a listing, as the plan keeps them."""
    (tmp_path / "t.tar").write_bytes(b"no tar file" * 100)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(picture())
        archive.addfile(member, io.BytesIO(picture()))
    made = make_plan(f"{tmp_path}/{{s,t}}.tar", tmp_path / "plan")
    assert (made.listed, made.unlisted) == (2, 1)
    by_plan(tmp_path / "plan", toy_model, tmp_path / "p.parquet")
    score(f"{tmp_path}/{{s,t}}.tar", tmp_path / "q.parquet", options(toy_model))
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_a_plan_contains_no_password(tmp_path):
    (tmp_path / "list.txt").write_text("https://user:secret@example.org/a.jpg\n")
    with pytest.raises(UsageError, match="its URL holds a password or a signature, which no plan keeps"):
        make_plan(None, tmp_path / "plan", image_list=str(tmp_path / "list.txt"))


KEYS = [
    "photos/b c.jpg",
    "photos/Zürich+1.png",
    "other/x.jpg",
    "photos/notes.txt",
    "photos/.hidden/a.jpg",
    "photos/d.jpg",
]


def write_inventory(folder: Path, bucket: str, kind: str) -> Path:
    """An inventory as AWS writes it: two data files, with an object that has been replaced and one deleted."""
    versions = [(key, True, False) for key in KEYS] + [
        ("photos/old.jpg", False, False),
        ("photos/gone.jpg", True, True),
    ]
    data = folder / "inventories" / "data"
    data.mkdir(parents=True)
    names = []
    for number, rows in enumerate((versions[:4], versions[4:])):
        names.append(f"inventories/data/{number}.{'csv.gz' if kind == 'CSV' else kind.lower()}")
        columns = dict(zip(("key", "is_latest", "is_delete_marker"), map(list, zip(*rows, strict=True)), strict=True))
        path = folder / names[-1]
        if kind == "ORC":
            orc.write_table(pa.table(columns), str(path))
        elif kind == "Parquet":
            pq.write_table(pa.table(columns), path)
        else:
            with gzip.open(path, "wt", newline="") as file:
                csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
                    [bucket, quote_plus(key), str(latest).lower(), str(gone).lower()] for key, latest, gone in rows
                )
    schema = "Bucket, Key, IsLatest, IsDeleteMarker" if kind == "CSV" else "struct<key:string>"
    manifest = {
        "sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}", "version": "2016-11-30",
        "fileFormat": kind, "fileSchema": schema, "files": [{"key": name, "size": 1} for name in names],
    }  # fmt: skip
    path = folder / "inventories" / "2026-11-23T00-00Z" / "manifest.json"
    path.parent.mkdir()
    path.write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize("kind", ["CSV", "ORC", "Parquet"])
@pytest.mark.parametrize("far", [False, True])
def test_an_inventory_of_a_bucket_is_planned(tmp_path, bucket, kind, far):
    path = write_inventory(bucket.folder if far else tmp_path, bucket.name, kind)
    listing = bucket.url(str(path.relative_to(bucket.folder))) if far else str(path)
    made = make_plan(bucket.url("photos"), tmp_path / "plan", image_list=listing)
    assert (made.listed, made.ignored) == (3, {".txt": 1, "hidden": 1})
    rows = pq.read_table(tmp_path / "plan" / "list-000000.parquet")["image"].to_pylist()
    assert rows == ["b c.jpg", "Zürich+1.png", "d.jpg"]
    refs = list(open_source(bucket.url(""), image_list=listing).images(Ignored()))
    assert [ref.name for ref in refs] == [key for key in KEYS if not key.endswith(".txt") and "/." not in key]
    with pytest.raises(UsageError, match=rf"is an inventory of the bucket {bucket.name}; give a URL of that bucket"):
        make_plan("s3://another", tmp_path / "none", image_list=listing)


def test_the_commands_in_order(tmp_path, photos, toy_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = batchland("plan", photos, "--parts", "2", "--out", "plan", "--exclude", "camera-0/")
    assert (result.exit_code, result.stdout.partition(" in ")[0]) == (
        0,
        f"Planned 40 images of {photos} for 2 shards, 20 ignored (excluded)",
    )
    as_json = json.loads(batchland("plan", photos, "--out", "plan", "--overwrite", "--parts", "2", "--json").stdout)
    assert (as_json["listed"], as_json["parts"], as_json["lists"][0]["rows"]) == (60, 2, 60)
    for index in (0, 1):
        result = batchland("score", "--plan", "plan", "--shard", f"{index}/2", "--out", "all", "--model", toy_model)
        assert result.exit_code == 0, result.stderr
    result = batchland("merge", "all", "--in-place")
    assert result.stdout == (
        "Merged 2 shards of all: 60 images, 54 ok, 6 failed (truncated 6). Predictions: all; manifest: "
        "all/_manifest.json.\n"
    )
    result = batchland("merge", "all", "--in-place", "--out", "p.parquet")
    assert (result.exit_code, "give either --out or --in-place" in result.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["folder", "empty", "list", "s3", "zip", "tar"])
def test_a_plan_without_its_images_is_not_scored(tmp_path, photos, toy_model, bucket, kind):
    """A disk that is not mounted: exit code 2 and no files; the rerun scores the shard when the images are back."""
    given = {"images": photos} if kind in ("folder", "empty") else place(kind, photos, bucket)
    images = str(given["images"])
    make_plan(given.pop("images"), tmp_path / "plan", image_list=given.get("image_list"))
    gone = [bucket.folder / "photos"] if kind == "s3" else [photos, *photos.parent.glob(f"*.{kind}")]
    for path in gone:
        path.rename(path.with_name(f"away-{path.name}"))
    if kind == "empty":
        photos.mkdir()
    command = ("score", *([images] if kind == "s3" else []), "--plan", tmp_path / "plan", "--model", toy_model)
    for more in (("--shard", "0/2", "--out", tmp_path / "all"), ("--out", tmp_path / "p.parquet")):
        result = batchland(*command, *more)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".all", ".p", "p.", "all"))]
    if kind == "empty":
        photos.rmdir()
    for path in gone:
        path.with_name(f"away-{path.name}").rename(path)
    for index in range(2):
        assert batchland(*command, "--shard", f"{index}/2", "--out", tmp_path / "all").exit_code == 0
    shutil.rmtree(gone[0]) if gone[0].is_dir() else gone[0].unlink()
    done = batchland(*command, "--shard", "0/2", "--out", tmp_path / "all")
    assert (done.exit_code, "is scored already" in done.stderr + done.stdout) == (0, True)
    assert merge(tmp_path / "all", tmp_path / "m.parquet").manifest.counts.failed == 6


def test_a_store_that_refuses_or_does_not_answer_is_named(tmp_path, photos, toy_model, bucket, monkeypatch):
    """`merge`, `plan` and `score --plan`: wrong keys are a usage error, a server that is down is 74."""
    make_plan(photos, bucket.url("plan"))
    plans, shards = bucket.url("plan"), bucket.url("shards")
    commands = [
        ("merge", shards, "--out", tmp_path / "p.parquet"),
        ("merge", shards, "--in-place"),
        ("plan", photos, "--out", bucket.url("other")),
        ("score", "--plan", plans, "--out", tmp_path / "p", "--model", toy_model),
    ]

    def results() -> list[tuple[int, str]]:
        found = [batchland(*command) for command in commands]
        return [(each.exit_code, re.sub(r"\(AWS Error .*\)", "(AWS)", each.stderr)) for each in found]

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    filesystems._open.cache_clear()  # the environment has changed
    refused = "access is refused (AWS); check the credentials in the environment and their permissions\n"
    names = [shards, shards, bucket.url("other"), plans]
    assert results() == [(2, f"batchland: {name}: {refused}") for name in names]
    filesystems._open.cache_clear()

    def down(objects: Objects, action: Any) -> None:
        raise OSError(5, "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7")

    monkeypatch.setattr(Objects, "call", down)
    silent = "does not answer (AWS); check the host, the endpoint and the region\n"
    expected = [(74, f"batchland: {name}: {silent}") for name in names]
    expected[2] = (74, f"batchland: {names[2]}: cannot be written (AWS); run the same command again\n")
    assert results() == expected


def test_a_merge_from_a_disk_that_fails_is_74(tmp_path, monkeypatch):
    def fails(folder: StoredFolder, name: str = "") -> None:
        raise OSError(5, "Input/output error", str(tmp_path))

    monkeypatch.setattr(StoredFolder, "names", fails)
    result = batchland("merge", tmp_path, "--out", tmp_path / "p.parquet")
    assert (result.exit_code, result.stderr) == (
        74,
        f"batchland: {tmp_path}: cannot be read (Input/output error); check the storage, then run the same command "
        f"again\n",
    )


def test_retrying_an_output_merged_in_place_says_that_its_shards_go(tmp_path, photos, toy_model, plan, caplog):
    out = tmp_path / "all"
    shards_by_plan(plan, toy_model, out, 2)
    merge_in_place(out)
    score(photos, out, options(toy_model, retry_failed=True))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"][:1] == [
        f"{out}: its shards become one output; their folders and manifests are removed"
    ]
    assert not list(out.glob("shard-*"))
    assert read(out)["image"].to_list() == NAMES


def test_a_list_of_objects_that_are_gone_is_refused(tmp_path, photos, toy_model, bucket):
    """As a list of paths; one missing object stays a row."""
    (tmp_path / "list.txt").write_text("gone.jpg\ngone-2.jpg\n")
    command = ("score", bucket.url("p"), "--images", tmp_path / "list.txt", "--model", toy_model)
    result = batchland(*command, "--out", tmp_path / "p.parquet")
    assert (result.exit_code, result.stderr) == (
        2,
        f"batchland: {tmp_path / 'list.txt'}: there is no file 'gone.jpg', nor for any of the first 2 entries; give a "
        f"list with one path per line, relative to the folder or absolute\n",
    )
    shutil.copytree(photos, bucket.folder / "p")
    (tmp_path / "list.txt").write_text("gone.jpg\ncamera-0/000.jpg\n")
    result = batchland(*command, "--out", tmp_path / "p.parquet", "--json")
    assert json.loads(result.stdout)["counts"]["failed_by_code"] == {"vanished": 1}

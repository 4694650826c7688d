"""Lists of images: names, order, and a row for every entry."""

import bz2
import codecs
import errno
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import forks
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import batchland
from s3_server import Bucket
from toys import contents, options, picture

from batchland import score
from batchland.errors import ImageError, UsageError
from batchland.images.sources.list_content import COLUMNS
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, ImageRef, read_image
from batchland.scoring.account import Progress
from batchland.system import arrow
from batchland.system.urls import INVALID

NAMES = ["b.jpg", "a/ü ,;.jpg", "./c#.png", "b.jpg", "gone.jpg", "no-extension"]


def _list(listing: Path | str, base: Path | str | None = None, ignored: Ignored | None = None) -> list[ImageRef]:
    source = open_source(base, image_list=str(listing))
    return list(source.images(ignored or Ignored()))


@pytest.mark.parametrize("kind", ["txt", "crlf.txt", "print0", "csv", "semicolon.csv", "sep.csv", "tsv", "parquet"])
def test_every_kind_of_list_names_the_same_images(tmp_path: Path, kind: str) -> None:
    listing = tmp_path / f"list.{kind}"
    quoted = [f'"{name}"' for name in NAMES]
    listing.write_bytes(
        {
            "txt": "\n".join(["", *NAMES]),
            "crlf.txt": "\ufeff" + "\r\n".join([*NAMES, "", ""]),
            "print0": "".join(f"{name}\0" for name in ["", *NAMES]),
            "csv": "\n".join(["label,image", *(f"x,{name}" for name in quoted), "y,", ""]),
            "sep.csv": "\ufeffsep=;\r\nid;path\r\n" + "".join(f"1;{name}\r\n" for name in quoted) + "1;\r\n",
            "semicolon.csv": "\ufeffid;path\r\n" + "".join(f"1;{name}\r\n" for name in quoted) + "1;\r\n",
            "tsv": "filename\tlabel\n" + "".join(f"{name}\tx\n" for name in NAMES) + "\tx\n",
            "parquet": "",
        }[kind].encode()
    )
    if kind == "parquet":
        table = pa.table({"url": ["nobody's"] * 7, "image": [*NAMES, None]})
        pq.write_table(table, listing, row_group_size=2)
    ignored = Ignored()
    refs = _list(listing, tmp_path, ignored)
    assert [(ref.name, ref.path) for ref in refs] == [
        (name, os.fsencode(tmp_path / "x")[:-1] + name.encode()) for name in NAMES
    ]
    assert ignored.counts == {"blank line": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "l.csv",
            b"name,label\na.jpg,x\n",
            "l.csv: has no column image, path, file, file_name, filename, url, key, only name, label",
        ),
        ("l.csv", b"", "l.csv: has no column image, path, file, file_name, filename, url, key, only nothing"),
        (
            "l.csv",
            b"image\n" + b"x" * 200_000 + b"\n",
            "l.csv: cannot be read as CSV (line 2: a value has more than 131,072 characters; shorten it, or",
        ),
        (
            "l.parquet",
            b"image\na.jpg\n",
            "l.parquet: cannot be read as Parquet (Parquet magic bytes not",
        ),
        (
            "l.txt",
            b"\xff\xd8\xff" + b"x" * 2_000_000,
            "l.txt: has a line of more than a megabyte; a list has one path per line, or is a",
        ),
        (
            "l.csv",
            b'image,site\na.jpg,x\n"b.jpg,y\nc.jpg,z\n',
            "l.csv: cannot be read as CSV (line 3: a quote is not closed)",
        ),
        (
            "l.csv",
            b'image,site\na.jpg,x\n"b.jpg,y\nc.jpg,"z"\n',
            "l.csv: cannot be read as CSV (line 3: ',' expected after '\"')",
        ),
        ("l.csv", b"image,site\na.jpg,x,\nb.jpg,Paris, France\n", "l.csv, line 3: has 3 values, the header 2"),
        ("l.csv", b"image,gr\xf6\xdfe\na.jpg,x\n", "l.csv: its header is not UTF-8 text; save the table as UTF-8"),
        ("l.csv", b"Image,IMAGE\na.jpg,b.jpg\n", "l.csv: has 2 columns Image; keep one"),
        ("missing.txt", None, "missing.txt: cannot be opened (No such file or directory); give a file"),
    ],
)
def test_invalid_list_is_rejected(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        _list(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


TEXT = "".join(f"photos/p{number} ü.jpg\n" for number in range(9))
JSON = [{"image": "a.jpg"}, {"image": "b.jpg"}]


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, TEXT)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["txt", "lst", ""])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a.jpg\0\nb.jpg\n", "has lines and zero bytes"),
        (b"label,Image\ncat,http://host/a.jpg\n", "is a table; call it NAME.csv"),
        (b'\xef\xbb\xbf"url"\tcaption\r\nhttp://host/a.jpg\ta cat\r\n', "is a table; call it NAME.csv"),
        (TEXT.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "is UTF-16 text; save it as UTF-8"),
        (TEXT.encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
        (gzip.compress(TEXT.encode(), mtime=0), "is a gzip file"),
        (bz2.compress(TEXT.encode()), "is binary"),
        (lzma.compress(TEXT.encode()), "is binary"),
        (zipped("list.txt"), "is a zip file (as .xlsx and .docx are)"),
        (zipped("word/document.xml"), "is a zip file (as .xlsx and .docx are)"),
        (bytes(range(256)) * 40, "is binary"),
        (b"\n" * 3 + b"x" * 2_000_000, "has a line of more than a megabyte"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # compressed bytes hold the time
)
def test_a_file_that_is_not_a_list_is_rejected_at_once(
    tmp_path: Path, suffix: str, content: bytes, problem: str
) -> None:
    listing = tmp_path / f"list.{suffix}"
    listing.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        _list(listing)
    assert (
        str(caught.value) == f"{listing}: {problem}; a list has one path per line, or is a .csv, .parquet or .orc table"
    )


def test_a_packed_tar_file_and_a_table_of_another_encoding_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    with tarfile.open(tmp_path / "list.txt", "w") as tar:
        tar.add(tmp_path / "a.jpg", "a.jpg")
    with pytest.raises(UsageError, match=r"list\.txt: is binary; a list has"):
        _list(tmp_path / "list.txt")
    (tmp_path / "list.csv").write_bytes("image\na.jpg\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"list\.csv: is UTF-16 text; save it as UTF-8; a list has"):
        _list(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "name",
    ["[1].jpg", "{a}.jpg", "[[draft]].jpg", "<b>.jpg", "a,b.jpg", "image, 1.jpg", '"quoted" name.jpg', "BZ.jpg"],
)
def test_strange_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert [ref.name for ref in _list(tmp_path / "list.txt")] == [name]


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("two-marks.txt", MARK + MARK + b"a.jpg\nb.jpg\n"),
        ("two-marks.csv", MARK + MARK + b"image,site\na.jpg,x\nb.jpg,y\n"),
        ("joined.txt", MARK + b"a.jpg\n" + MARK + b"b.jpg\n"),
        ("joined.csv", MARK + b"image,site\na.jpg,x\n" + MARK + b"b.jpg,y\n"),
        ("mark-and-zero-bytes", MARK + b"a.jpg\0b.jpg\0"),
        ("returns.txt", b"a.jpg\rb.jpg\r"),
        ("returns.csv", b"image,site\ra.jpg,x\rb.jpg,y\r"),
        ("no-end.txt", b"a.jpg\rb.jpg"),
        ("quotes.csv", b'image,note\n"a.jpg","12"" wide"\nb.jpg,12" wide\n'),
    ],
)
def test_byte_order_marks_and_line_ends_are_no_part_of_a_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert [ref.name for ref in _list(tmp_path / name)] == ["a.jpg", "b.jpg"]
    assert caplog.messages == []


def test_a_value_with_a_line_break_gives_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listing = tmp_path / "list.csv"
    listing.write_bytes(b'image,note\na.jpg,x\nb.jpg,"two\nc.jpg,z\nd.jpg,lines"\n"e\nf.jpg",y\ng.jpg,z\n')
    assert [ref.name for ref in _list(listing)] == ["a.jpg", "b.jpg", "e\nf.jpg", "g.jpg"]
    assert caplog.messages == [f"{listing}, line 3: a value contains a line break; is a quote missing?"]


def test_names_may_have_one_character(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\0b\0c\0d\0")
    assert [ref.name for ref in _list(tmp_path / "list")] == ["a", "b", "c", "d"]


def test_a_named_pipe_and_a_device_are_rejected_and_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(UsageError) as caught:
            _list(path)
        assert str(caught.value) == f"{path}: is not a regular file, so it may never end; give a file"


def test_a_parquet_list_may_hold_categories(tmp_path: Path) -> None:
    """As pandas writes them."""
    paths = pa.array(["a.jpg", "b.jpg", "a.jpg"]).dictionary_encode()
    pq.write_table(pa.table({"path": paths}), tmp_path / "list.parquet")
    assert [ref.name for ref in _list(tmp_path / "list.parquet")] == ["a.jpg", "b.jpg", "a.jpg"]


def test_a_parquet_list_that_ends_in_damage_or_on_a_failed_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage is a fault of the list, exit code 2; a failed disk is one of the storage, 74."""
    path = tmp_path / "list.parquet"
    paths = [f"{number:05}.jpg" for number in range(3000)]
    pq.write_table(pa.table({"path": paths}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    assert [ref.name for ref in _list(path)] == paths
    data = bytearray(path.read_bytes())
    middle = pq.read_metadata(path).row_group(2).column(0).data_page_offset + 60
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    images = open_source(tmp_path, image_list=str(path)).images(Ignored())
    assert [next(images).name for _ in range(1000)] == paths[:1000]
    with pytest.raises(UsageError, match=r"list\.parquet: cannot be read as Parquet \(.*\); write it again"):
        list(images)

    def fails(file: object, columns: list[str]) -> Iterator[object]:
        raise OSError(errno.EIO, "Input/output error")
        yield

    monkeypatch.setattr(arrow, "parquet_batches", fails)
    with pytest.raises(OSError, match="Input/output error"):
        _list(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,path\na.jpg,x,b.jpg\n")
    with pytest.raises(UsageError, match=r"list\.csv: has 2 columns path; keep one$"):
        _list(tmp_path / "list.csv")


def test_entries_that_no_file_can_have_are_failed_rows(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path\na\0b.jpg\ns3://[key:secret@bucket/x.jpg?token=secret\n")
    failures = {}
    for ref in _list(tmp_path / "list.csv"):
        with pytest.raises(ImageError) as caught:
            read_image(ref)
        failures[ref.name] = (caught.value.code, str(caught.value))
    assert failures == {
        "a\0b.jpg": ("vanished", "no file can have this name"),
        "s3://bucket/x.jpg": ("io_error", f"it {INVALID}"),
    }


def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    """A list with one such file comes from the file system, so others may be gone."""
    (tmp_path / os.fsdecode(b"\xe9.jpg")).touch()
    (tmp_path / "list.txt").write_bytes(b"\xe9.jpg\n\xfc.jpg\n")
    assert [ref.name for ref in _list(tmp_path / "list.txt", tmp_path)] == ["\\xe9.jpg", "\\xfc.jpg"]


def test_the_name_of_the_column_may_begin_with_a_capital_letter(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"Image,site\na.jpg,x\n")
    pq.write_table(pa.table({"Image": ["a.jpg"], "site": ["x"]}), tmp_path / "list.parquet")
    for name in ("list.csv", "list.parquet"):
        assert [(ref.name, ref.own) for ref in _list(tmp_path / name)] == [("a.jpg", ("x",))]
    (tmp_path / "list.csv").write_bytes(b"Image,path\na title,a.jpg\n")
    assert [(ref.name, ref.own) for ref in _list(tmp_path / "list.csv")] == [("a.jpg", ("a title",))]


def test_missing_source_and_missing_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^nothing to score: give a folder, a URL, tar, zip or Parquet files$"):
        open_source(None)
    with pytest.raises(UsageError, match=r"photos\.tar: is not a folder; the paths of a list are below a folder, or"):
        _list(tmp_path / "list.txt", tmp_path / "photos.tar")


def test_parquet_list_with_a_column_of_bytes_is_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"data"]}), tmp_path / "list.parquet")
    with pytest.raises(UsageError, match=r"list\.parquet: column image holds binary, not paths$"):
        _list(tmp_path / "list.parquet")


def test_list_may_mix_paths_and_urls(bucket: Bucket, tmp_path: Path) -> None:
    places = {"b/1.jpg": bucket.folder / "b/1.jpg", "2 ü%.jpg": bucket.folder / "2 ü%.jpg", "3.jpg": tmp_path / "3.jpg"}
    for text, path in places.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    (bucket.folder / "list.txt").write_text(
        f"1.jpg\n{bucket.url('2 ü%.jpg')}\n{tmp_path}/3.jpg\nfile://{tmp_path}/3.jpg\ns3://me:key@{bucket.name}/b/1.jpg\n"
    )
    (*refs, secret) = _list(bucket.url("list.txt"), bucket.url("b"))
    assert [read_image(ref).data.decode() for ref in refs] == ["b/1.jpg", "2 ü%.jpg", "3.jpg", "3.jpg"]
    assert [ref.name for ref in refs] == [
        "1.jpg",
        bucket.url("2 ü%.jpg"),
        f"{tmp_path}/3.jpg",
        f"file://{tmp_path}/3.jpg",
    ]
    assert secret.name == f"s3://{bucket.name}/b/1.jpg"


def test_every_line_has_a_row(tmp_path: Path, bucket: Bucket, toy_model: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    lines = ["a.jpg", "gone.jpg", "a.jpg", "http://server/a.jpg", bucket.url("gone.jpg"), "s3:///"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    run = score(tmp_path, tmp_path / "out.parquet", options(toy_model, image_list=str(tmp_path / "list.txt")))
    rows = pq.read_table(tmp_path / "out.parquet").select(["image", "error_code", "error_message"]).to_pylist()
    assert [row["image"] for row in rows] == lines
    assert [row["error_code"] for row in rows] == [None, "vanished", None, "io_error", "vanished", "io_error"]
    assert rows[3]["error_message"].startswith("the web server does not answer (no address: ")
    assert rows[5]["error_message"].startswith("a URL without a server or bucket")
    assert run.manifest.images == str(tmp_path)
    assert run.manifest.config["image_list"] == str(tmp_path / "list.txt")


def test_forbidden_objects_are_failed_rows(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_model: Path
) -> None:
    """Some users may read from a bucket but not list it, so a refused image does not end the run."""
    (bucket.folder / "a.jpg").write_bytes(picture())
    (tmp_path / "list.txt").write_text(f"s3://someone:guessed@{bucket.name}/a.jpg\n{bucket.url('a.jpg')}\n")
    summary = score(None, tmp_path / "out.parquet", options(toy_model, image_list=str(tmp_path / "list.txt")))
    assert summary.manifest.counts.failed_by_code == {"permission_denied": 1}
    assert summary.manifest.counts.ok == 1


def _piped(listing: str, out: Path, model: Path, *more: str, images: str = "-") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchland", "score", "--images", images, "--out", out, "--model", model, *more]
    return forks.run(command, listing)


def test_list_from_standard_input(photos: Path, toy_model: Path, tmp_path: Path) -> None:
    """As `find | batchland score`; what it cannot do, resume and score again, it does as any source."""
    find = subprocess.check_output(["find", str(photos), "-name", "*.jpg", "-print0"], text=True)
    first = _piped(find, tmp_path / "out.parquet", toy_model)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Scored 60 images of - with toy on cpu")
    assert pq.read_table(tmp_path / "out.parquet")["image"].to_pylist() == find.split("\0")[:-1]
    for path in photos.rglob("*7.jpg"):
        path.write_bytes(picture())
    again = _piped("", tmp_path / "out.parquet", toy_model, "--retry-failed", images=str(tmp_path / "gone.csv"))
    assert "60 ok, 0 failed" in again.stdout, again.stderr
    nowhere = batchland("score", "--retry-failed", "--out", tmp_path / "out.parquet", "--model", toy_model)
    assert (nowhere.exit_code, nowhere.stderr) == (
        2,
        "batchland: nothing says where the images to score again are; give the same folder as before; "
        "or the same --images; the list is not read again\n",
    )
    (tmp_path / "empty.txt").touch()
    for images, name, found in (
        ("-", "standard input", "2 blank lines"),
        (f"{tmp_path}/empty.txt", "", "nothing at all"),
    ):
        nothing = _piped("\n\n", tmp_path / "none.parquet", toy_model, images=images)
        printed = f"{name or images}: no images to score (found: {found}); give a list with one path per line"
        assert (nothing.returncode, nothing.stderr.splitlines()[-1]) == (2, f"batchland: {printed}")


@pytest.mark.parametrize("count", [5, 5000])
def test_list_from_a_named_pipe_is_complete(tmp_path: Path, toy_model: Path, count: int) -> None:
    """As `--images <(find ...)` and `--images /dev/stdin`: opening it a second time would lose lines."""
    (tmp_path / "a.jpg").write_bytes(picture())
    missing = (f"{tmp_path}/a-folder-with-a-long-name/{number:06}.jpg" for number in range(1, count))
    names = [f"{tmp_path}/a.jpg", *missing]
    run = _piped("\n".join(names), tmp_path / "out.parquet", toy_model, images="/dev/stdin")
    assert run.stdout.startswith(f"Scored {count:,} images of /dev/stdin with toy on cpu"), run.stderr
    assert pq.read_table(tmp_path / "out.parquet")["image"].to_pylist() == names


def test_same_list_piped_again_resumes_the_run(
    photos: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))

    def piped(out: Path, names: list[str], **hooks: object) -> int:
        stdin = io.TextIOWrapper(io.BytesIO("\n".join(names).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        return score(photos, out, options(toy_model, image_list="-"), **hooks).manifest.resumed_images  # type: ignore[arg-type]

    def stop(progress: Progress) -> None:
        if progress.done == 36:
            raise KeyboardInterrupt

    piped(tmp_path / "undisturbed", names)
    with pytest.raises(KeyboardInterrupt):
        piped(tmp_path / "out", names, on_progress=stop)
    assert piped(tmp_path / "out", names) >= 24
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")

    with pytest.raises(KeyboardInterrupt):
        piped(tmp_path / "other", names, on_progress=stop)
    assert piped(tmp_path / "other", names[::-1]) == 0  # another order is another list
    assert pq.read_table(tmp_path / "other")["image"].to_pylist() == names[::-1]


def test_list_is_not_held_in_memory(tmp_path: Path) -> None:
    """100,000 lines; memory must not grow with them."""
    (tmp_path / "list.txt").write_bytes(b"".join(b"camera-%07d.jpg\n" % number for number in range(100_000)))
    code = (
        "import resource, sys; from batchland.images.sources.open import open_source\n"
        "from batchland.images.sources.refs import Ignored\n"
        "source = open_source(None, image_list=sys.argv[1]); used = lambda: resource.getrusage(0).ru_maxrss\n"
        "images = source.images(Ignored()); next(images); before = used()\n"
        "print([1 + sum(1 for _ in images), used() - before < 4096])"
    )
    printed = forks.run([sys.executable, "-c", code, tmp_path / "list.txt"]).stdout
    assert printed == "[100000, True]\n"


def test_columns_are_documented() -> None:
    text = " ".join((Path(__file__).parents[3] / "docs/sources.md").read_text("utf-8").split())
    assert ", ".join(f"`{name}`" for name in COLUMNS) in text


NO_FILES = (
    "there is no file '{folder}/{name}', nor for any of the first 2 entries; give a list with one path per line, "
    "relative to the folder or absolute"
)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (b"a.jpg \nb.jpg \n", NO_FILES.replace("{name}", "a.jpg ")),
        (b"a.jpg,cat\nb.jpg,dog\n", NO_FILES.replace("{name}", "a.jpg,cat")),
        (b'"a.jpg"\n"b.jpg"\n', NO_FILES.replace("{name}", '"a.jpg"')),
        (b'{"image": "a.jpg"}\n{"image": "b.jpg"}\n', NO_FILES.replace("{name}", '{{"image": "a.jpg"}}')),
        (b"<!DOCTYPE html>\n<html></html>\n", NO_FILES.replace("{name}", "<!DOCTYPE html>")),
        ("a.jpg".encode("utf-16-le"), NO_FILES.replace("{name}", "a").replace("first 2", "first 5")),
        (b"ftp://a/b.jpg\n",
         "ftp://a/b.jpg: ftp cannot be read; give paths, or URLs of http, s3, gs, abfs, hdfs or file"),
        (b"http:///a.jpg\ns3://\n", "http:///a.jpg: a URL without a server or bucket; give whole URLs"),
        (b"https://[::1/a.jpg\n", f"https://[::1/a.jpg: it {INVALID}"),
    ],
    ids=["spaces", "labels", "quotes", "json", "html", "utf-16", "scheme", "no server", "bracket"],
)  # fmt: skip
def test_a_list_without_existing_files_is_an_error(
    tmp_path: Path, toy_model: Path, listing: bytes, message: str
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "list.txt").write_bytes(listing)
    with pytest.raises(UsageError) as caught:
        score(tmp_path, tmp_path / "out.parquet", options(toy_model, image_list=str(tmp_path / "list.txt")))
    assert str(caught.value) == f"{tmp_path}/list.txt: {message.format(folder=tmp_path)}"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("http://host/a.jpg\ta cat", "http://host/a.jpg\ta cat"),
        ("http://bob:hun/ter2@host/a.jpg", "http://host/a.jpg"),
        ("http://bob:hun?ter2@host/a.jpg", "http://host/a.jpg"),
        ("http://bob:hun#ter2@host/a.jpg", "http://host/a.jpg"),
        ("http://bob:hunter2@[host/a.jpg?sig=S&mail=a@b&hunter=2", "http://b"),
        ("http:\\\\bob:hunter2@host\\a.jpg", "http://host\\a.jpg"),
        ("http:bob:hunter2@host/a.jpg", "http://host/a.jpg"),
        ('"HTTPS://bob:hunter2@host/a.jpg"', 'https://host/a.jpg"'),
        ("http://127.0.0.1:99999/x", "http://127.0.0.1:99999/x"),
        ("s3://KEY:hun/ter2@bucket/a.jpg", "s3://bucket/a.jpg"),
    ],
)
def test_what_is_no_valid_url_shows_no_password(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"fine.jpg\n{line}\n")
    _, ref = _list(tmp_path / "list.txt")
    assert (ref.name, ref.path) == (name, b"")
    assert (ref.error or ("", ""))[0] == "io_error"
    assert (ref.error or ("", ""))[1].startswith("it is not a valid URL; ")


def test_blanks_around_a_url_are_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f" http://bob:hunter2@host/a.jpg\t\n  file://{tmp_path}/b.jpg \n c.jpg \n")
    web, local, path = _list(tmp_path / "list.txt")
    assert (web.name, web.path) == ("http://host/a.jpg", b"http://bob:hunter2@host/a.jpg")
    assert (local.name, local.path) == (f"file://{tmp_path}/b.jpg", bytes(tmp_path / "b.jpg"))
    assert path.name == " c.jpg "


def test_invalid_web_addresses_are_failed_rows(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://[::1/a.jpg\nhttps://host/b.jpg\nhttp://a\\b.jpg\n")
    first, second, third = _list(tmp_path / "list.txt")
    assert first == ImageRef("http://[::1/a.jpg", b"", ("io_error", f"it {INVALID}"))
    assert (second.name, second.error) == ("https://host/b.jpg", None)
    assert third == ImageRef("http://a\\b.jpg", b"", ("io_error", f"it {INVALID}"))

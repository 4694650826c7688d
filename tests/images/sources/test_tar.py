"""Images in tar shards: every member has a row, also in damaged shards."""

import errno
import gzip
import io
import os
import random
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from archives import tar_of
from commands import batchland
from s3_server import Bucket
from toys import COLOURS, Stop, contents, options, picture, read_all, stop_after

from batchland import score
from batchland.errors import InputError, UsageError
from batchland.images.sources import random_access
from batchland.images.sources.open import open_source
from batchland.images.sources.random_access import BLOCK_BYTES
from batchland.images.sources.refs import Ignored, read_image
from batchland.images.sources.source import ContainerSource
from batchland.scoring.merge.merge import merge
from batchland.scoring.options import Shard


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of twenty pictures, one of each broken, with labels beside them."""
    (tmp_path / "shards").mkdir()
    colours = list(COLOURS.values())
    for shard in range(3):
        with webdataset.TarWriter(str(tmp_path / f"shards/photos-{shard:03}.tar")) as writer:
            for number in range(20):
                data = picture(colours[number % 3])
                data = data[: len(data) // 2] if number == 7 else data
                writer.write({"__key__": f"camera/{number:04}", "jpg": data, "cls": number % 3})
    return tmp_path / "shards"


def _write(path: Path, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    return path.read_bytes()


def test_shards_written_by_webdataset_are_scored(shards: Path, toy_model: Path, tmp_path: Path) -> None:
    summary = score(f"{shards}/photos-{{000..002}}.tar", tmp_path / "out.parquet", options(toy_model))
    assert summary.manifest.images == f"{shards}/photos-{{000..002}}.tar"
    assert summary.manifest.ignored == {".cls": 60}
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["image"].to_pylist() == [
        f"photos-{shard:03}.tar/camera/{number:04}.jpg" for shard in range(3) for number in range(20)
    ]
    labels = [None if n == 7 else ["Red Tower", "Green Hill", "Blue Lake"][n % 3] for _ in range(3) for n in range(20)]
    assert table["label"].to_pylist() == labels


@pytest.mark.parametrize("pattern", ["photos-{000..002}.tar", "photos-*.tar", "photos-{000,001,002}.tar", "*"])
def test_shard_names_do_not_depend_on_the_pattern(shards: Path, pattern: str) -> None:
    if pattern == "*":
        (shards / "photos-{1}.tar").write_bytes((shards / "photos-000.tar").read_bytes())
        assert read_all(shards / "photos-{1}.tar")[0][0] == "photos-{1}.tar/camera/0000.jpg"
    else:
        assert [name for name, _ in read_all(shards / pattern)][::20] == [
            f"photos-{shard:03}.tar/camera/0000.jpg" for shard in range(3)
        ]


def test_selection_of_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in (
            "./a.jpg",
            "._b.jpg",
            ".git/c.jpg",
            "../f.jpg",
            "__MACOSX/a.jpg",
            "d/",
            "e.txt",
            "ü" * 120 + ".PNG",
            "no-extension",
        ):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        tar.addfile(link)
    ignored = Ignored()
    assert [ref.name for ref in open_source(tmp_path / "odd.tar").images(ignored)] == [
        "odd.tar/a.jpg",
        f"odd.tar/{'ü' * 120}.PNG",
    ]
    assert ignored.counts == {"hidden": 3, "path with ..": 1, ".txt": 1, "no extension": 1, "not a regular file": 1}


def test_shard_cut_anywhere_has_an_unreadable_row(tmp_path: Path) -> None:
    files = {f"{number}.jpg": bytes([number]) * 700 for number in range(4)}
    whole = _write(tmp_path / "whole.tar", files)
    wanted = [(f"cut.tar/{name}", data) for name, data in files.items()]
    end = 4 * (512 + 1024)
    for size in range(0, end + 512, 128):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        complete = min((size + 324) // 1536, 4)  # 324 bytes pad the 700 to whole blocks
        found = read_all(tmp_path / "cut.tar")
        assert found[:complete] == wanted[:complete]
        assert [value for _, value in found[complete:]] in (["unreadable"], ["truncated", "unreadable"])
        random_access.open_files.close()
    (tmp_path / "cut.tar").write_bytes(whole[: end + 512])  # the end mark is there
    assert read_all(tmp_path / "cut.tar") == wanted


def test_damaged_shard_never_mixes_up_images(tmp_path: Path) -> None:
    files = {f"{number}.jpg": bytes([number]) * 700 for number in range(8)}
    whole = _write(tmp_path / "whole.tar", files)
    draw = random.Random(9)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(8 * 1536)] ^= 1 << draw.randrange(8)
        (tmp_path / "damaged.tar").write_bytes(damaged)
        found = read_all(tmp_path / "damaged.tar")
        random_access.open_files.close()
        wrong = [(name, data) for name, data in found if files.get(name.partition("/")[2]) != data]
        assert len(wrong) <= 1  # the row for the unreadable rest, or the damaged image
        assert len(found) == 8 or wrong == [(found[-1][0], "unreadable")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: b"", "the shard cannot be read from byte 0 on: empty file"),
        (lambda data: b"no tar archive" * 99, "the shard cannot be read from byte 0 on: invalid header"),
        (lambda data: b"PK\3\4" + data, "the shard cannot be read from byte 0 on: it is a zip file"),
        (lambda data: data + data, "the shard cannot be read from byte 1024 on: something follows its end mark, as if"),
        (lambda data: data[:1024], "the shard cannot be read from byte 1024 on: it has no end mark, so it may be cut"),
        (
            lambda data: data[:1024] + b"x" * 512,
            "the shard cannot be read from byte 1024 on: there is no member's header",
        ),
    ],
)
def test_reason_why_a_shard_is_unreadable(tmp_path: Path, make: object, message: str) -> None:
    data = _write(tmp_path / "a.tar", {"a.jpg": b"data"})
    (tmp_path / "a.tar").write_bytes(make(data))  # type: ignore[operator]
    *_, last = open_source(tmp_path / "a.tar").images(Ignored())
    assert last.error is not None
    assert last.error[0] == "unreadable"
    assert last.error[1].startswith(message)


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
def test_the_times_in_a_header_of_gnu_tar_are_no_part_of_the_name(tmp_path: Path, packed: bool) -> None:
    """As `tar --incremental` writes them, where ustar has the beginning of the name."""
    data = bytearray()
    for name, kind in (("folder/", b"D"), ("folder/a.jpg", tarfile.REGTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.mtime = kind, 1_700_000_000
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[345:369] = b"15303512330\0" * 2
        header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
        data += header
    data += bytes(10240)
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    ignored = Ignored()
    names = [ref.name for ref in open_source(path).images(ignored)]
    assert (names, dict(ignored.counts)) == ([f"{path.name}/folder/a.jpg"], {})


def test_the_beginning_of_a_long_name_in_a_ustar_header_is_kept(tmp_path: Path) -> None:
    name = "a" * 90 + "/" + "b" * 90 + ".jpg"
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    assert [ref.name for ref in open_source(tmp_path / "a.tar").images(Ignored())] == [f"a.tar/{name}"]


def test_missing_later_shard_is_an_unreadable_row(shards: Path) -> None:
    (shards / "photos-001.tar").unlink()
    names = [name for name, _ in read_all(shards / "photos-{000..002}.tar")]
    assert len(names) == 41
    assert names[20] == "photos-001.tar/"


def test_missing_later_shard_gives_a_warning(
    shards: Path, toy_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one failed row, and may have held a thousand images."""
    (shards / "photos-001.tar").unlink()
    asked = ["score", f"{shards}/photos-{{000..002}}.tar", "--model", str(toy_model), "--device", "cpu"]
    asked += ["--out", str(tmp_path / "p.parquet")]
    printed = (
        "1 of 41 rows are folders or archives that could not be read, so an unknown number of images is missing; the "
        "predictions are written, repair them and retry the failed rows"
    )
    assert batchland(*asked).exit_code == 0
    assert printed in caplog.messages
    caplog.clear()
    limited = batchland(*asked, "--overwrite", "--max-failed", "50%")
    assert (limited.exit_code, limited.stderr.splitlines()[-1]) == (3, f"batchland: {printed}")
    assert printed not in caplog.messages


def test_missing_first_shard_is_a_usage_error(shards: Path, bucket: Bucket) -> None:
    for place, message in {
        f"{shards}/nights-{{000..002}}.tar": f"{shards}/nights-000.tar: cannot be opened (No such file or directory); ",
        f"{shards}/nights-*.tar": f"{shards}/nights-*.tar: there is no such file",
        f"{shards}/photos-{{000.tar": f"{shards}/photos-{{000.tar: its braces are unbalanced; write NAME-{{000..099}}",
        bucket.url("photos.tar"): f"{bucket.url()}photos.tar: there is no such file; check the name",
    }.items():
        with pytest.raises(UsageError) as caught:
            next(open_source(place).images(Ignored()))
        assert str(caught.value).startswith(message)


def test_gzip_shards_have_the_same_images(shards: Path) -> None:
    wanted = read_all(shards / "photos-000.tar")
    packed = gzip.compress((shards / "photos-000.tar").read_bytes())
    for name in ("photos-000.tar.gz", "photos-000.tgz"):
        (shards / name).write_bytes(packed)
        assert read_all(shards / name) == [(image.replace("photos-000.tar", name), data) for image, data in wanted]
    (shards / "cut.tgz").write_bytes(packed[: len(packed) // 2])
    found = read_all(shards / "cut.tgz")
    assert 0 < len(found) < 20
    assert found[-1][1] == "unreadable"


@pytest.mark.parametrize("flipped", [False, True])
def test_a_damaged_gzip_shard_keeps_the_members_before_the_damage(tmp_path: Path, flipped: bool) -> None:
    noise = random.Random(0)
    files = {f"{number:02}.jpg": noise.randbytes(40_000) for number in range(20)}
    packed = bytearray(gzip.compress(_write(tmp_path / "whole.tar", files)))
    half = len(packed) // 2
    if flipped:
        packed[half : half + 100] = bytes(100)
    (tmp_path / "cut.tar.gz").write_bytes(packed if flipped else packed[:half])
    *found, last, problem = read_all(tmp_path / "cut.tar.gz")
    before = [(f"cut.tar.gz/{name}", data) for name, data in files.items()]
    assert found == before[: len(found)]
    assert len(found) == 9
    assert (last[0], problem) == ("cut.tar.gz/09.jpg", ("cut.tar.gz/@409600/", "unreadable"))


@pytest.mark.parametrize("begin", [b"", gzip.compress(b"")], ids=["one stream", "two streams"])
def test_the_checksum_of_a_gzip_shard_is_verified(tmp_path: Path, begin: bytes) -> None:
    plain = _write(tmp_path / "plain.tar", {"a.jpg": b"first", "b.jpg": b"second"}) + bytes(100_000)
    packed = gzip.compress(plain, 0)
    flipped, first = bytearray(packed), packed.index(b"first")
    flipped[first] ^= 1
    wrong_crc = packed[:-8] + bytes(4) + packed[-4:]
    wrong_length = packed[:-4] + bytes(4)
    wrong_sum = "its checksum is wrong: pictures in it may be damaged; score an intact one to new predictions"
    for content, a, problem in (
        (packed, b"first", None),
        (packed + bytes(700), b"first", None),
        (flipped, b"girst", wrong_sum),
        (wrong_crc, b"first", wrong_sum),
        (wrong_length, b"first", wrong_sum),
        (packed[:-1], b"first", "its gzip stream ends too early"),
        (packed[:-8], b"first", "its gzip stream ends too early"),
        (packed + b"more", b"first", "something that is not gzip follows its gzip stream"),
    ):
        (tmp_path / "s.tar.gz").write_bytes(begin + content)
        one, two, *rest = open_source(tmp_path / "s.tar.gz").images(Ignored())
        assert [(ref.name, read_image(ref).data) for ref in (one, two)] == [
            ("s.tar.gz/a.jpg", a),
            ("s.tar.gz/b.jpg", b"second"),
        ]
        message = f"all members of the shard were read, but {problem}"
        expected = [("s.tar.gz/@2048/", ("unreadable", message))] if problem else []
        assert [(ref.name, ref.error) for ref in rest] == expected


def test_gzip_shards_need_their_suffix_and_plain_shards_may_have_it(shards: Path) -> None:
    plain = (shards / "photos-000.tar").read_bytes()
    packed = gzip.compress(plain)
    wanted = [data for _, data in read_all(shards / "photos-000.tar")]
    (shards / "plain.tar.gz").write_bytes(plain)
    assert [data for _, data in read_all(shards / "plain.tar.gz")] == wanted
    damaged = bytearray(packed)
    damaged[12] ^= 255
    for name, content, problem in (
        ("cut.tar.gz", packed[:200], "its gzip stream ends too early"),
        ("damaged.tar.gz", bytes(damaged), "its gzip stream is damaged"),
        ("packed.tar", packed, "it is packed by gzip; name it .tar.gz"),
    ):
        (shards / name).write_bytes(content)
        (ref,) = open_source(shards / name).images(Ignored())
        assert ref.error == ("unreadable", f"the shard cannot be read from byte 0 on: {problem}")


def test_remote_shard_is_fetched_once_by_blocks(bucket: Bucket, tmp_path: Path, toy_model: Path) -> None:
    draw = random.Random(9)
    files = {f"{number:04}.jpg": picture() + draw.randbytes(100_000) for number in range(300)}
    size = len(_write(bucket.folder / "many.tar", files))
    bucket.server.requests()
    summary = score(bucket.url("many.tar"), tmp_path / "out", options(toy_model))
    assert summary.manifest.counts.ok == 300
    asked = bucket.server.requests()
    assert asked.count("GET OBJECT") == -(-size // BLOCK_BYTES)
    assert len(asked) - asked.count("GET OBJECT") <= 4  # is it there, and how long is it


def test_large_members_of_a_remote_shard_are_fetched_separately(bucket: Bucket) -> None:
    files = {f"{number}.jpg": bytes([number]) * 600_000 for number in range(20)}
    _write(bucket.folder / "large.tar", files)
    bucket.server.requests()
    assert read_all(bucket.url("large.tar")) == [(f"large.tar/{name}", data) for name, data in files.items()]
    assert bucket.server.requests().count("GET OBJECT") <= 2 + 2 * 20 + 1


@pytest.mark.parametrize("size", [100, 700_000])
def test_truncated_remote_shard_fails_like_a_local_one(bucket: Bucket, tmp_path: Path, size: int) -> None:
    whole = _write(tmp_path / "cut.tar", {f"{number}.jpg": bytes([number]) * size for number in range(5)})
    images = len(whole.rstrip(b"\0"))
    for end in (images * 2 // 3, images // 2, 512, 0):
        for path in (tmp_path / "cut.tar", bucket.folder / "cut.tar"):
            path.write_bytes(whole[:end])
        random_access.open_files.close()
        local = [(ref.name, ref.error) for ref in open_source(tmp_path / "cut.tar").images(Ignored())]
        assert [(ref.name, ref.error) for ref in open_source(bucket.url("cut.tar")).images(Ignored())] == local
        assert read_all(bucket.url("cut.tar")) == read_all(tmp_path / "cut.tar")
        assert local[-1][0].endswith("/")


def test_resumed_and_scored_again(shards: Path, toy_model: Path, tmp_path: Path) -> None:
    pattern = f"{shards}/photos-{{000..002}}.tar"
    second = (shards / "photos-001.tar").read_bytes()
    (shards / "photos-001.tar").write_bytes(second[:20_000])  # cut within the ninth image
    score(pattern, tmp_path / "undisturbed", options(toy_model))

    with pytest.raises(Stop):
        score(pattern, tmp_path / "out", options(toy_model), on_progress=stop_after(36))
    summary = score(pattern, tmp_path / "out", options(toy_model))
    assert summary.manifest.resumed_images >= 24
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    failed = summary.manifest.counts.failed_by_code
    assert failed["unreadable"] == 1
    assert summary.manifest.counts.listed < 60

    random_access.open_files.close()
    (shards / "photos-001.tar").write_bytes(second)
    again = score(pattern, tmp_path / "out", options(toy_model, retry_failed=True)).manifest
    assert (again.counts.listed, again.counts.ok, again.counts.failed_by_code) == (60, 57, {"truncated": 3})
    names = pq.read_table(tmp_path / "out")["image"].to_pylist()
    assert names == [f"photos-{shard:03}.tar/camera/{number:04}.jpg" for shard in range(3) for number in range(20)]


@pytest.mark.parametrize("room", [100_000, 10_000_000])
def test_a_full_disk_while_unpacking_ends_the_run(tmp_path: Path, monkeypatch, room: int) -> None:
    """A disk that is almost full takes only a part of what is written."""
    members = {f"{number}.jpg": os.urandom(70_000) for number in range(4)}
    (tmp_path / "n.tar.gz").write_bytes(tar_of(members))
    write = os.pwrite

    def almost_full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:1000], offset)

    monkeypatch.setattr(os, "pwrite", almost_full)
    with nullcontext() if room > 1_000_000 else pytest.raises(InputError, match=r"cannot be written \(No space left"):
        assert read_all(tmp_path / "n.tar.gz") == [(f"n.tar.gz/{name}", data) for name, data in members.items()]


def test_number_of_open_shards_is_limited(tmp_path: Path) -> None:
    for number in range(40):
        _write(tmp_path / f"{number:02}.tar", {"a.jpg": b"data"})
    images = list(open_source(tmp_path / "{00..39}.tar").images(Ignored()))
    assert [read_image(ref).data for ref in images] == [b"data"] * 40
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert sum(path.startswith(str(tmp_path)) for path in held) <= random_access.OPEN_FILES


def test_shard_assigns_whole_containers(shards: Path, toy_model: Path, tmp_path: Path) -> None:
    pattern = f"{shards}/photos-{{000..002}}.tar"
    source = open_source(pattern)
    assert isinstance(source, ContainerSource)
    assert list(source.containers(Ignored())) == [f"photos-{shard:03}.tar" for shard in range(3)]
    second = [ref.name for ref in source.images_in("photos-001.tar", Ignored())]
    assert second == [f"photos-001.tar/camera/{number:04}.jpg" for number in range(20)]
    for index in range(2):
        score(pattern, tmp_path / "shards", options(toy_model, shard=Shard(index=index, count=2)))
    merge(tmp_path / "shards", tmp_path / "merged.parquet")
    score(pattern, tmp_path / "whole.parquet", options(toy_model))
    whole, merged = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "merged"))
    assert merged.replace_schema_metadata().equals(whole.replace_schema_metadata())


def test_dots_in_paths_are_left_out_and_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    names = ("a/./b.jpg", "./c.jpg", "..\\e.jpg")
    for name, compression in (("S.TAR", ""), ("S.TGZ", "gz")):
        (tmp_path / name).write_bytes(tar_of(dict.fromkeys(names, b"x"), compression=compression))
        ignored = Ignored()
        found = [ref.name for ref in open_source(tmp_path / name).images(ignored)]
        assert (found, ignored.counts) == ([f"{name}/a/b.jpg", f"{name}/c.jpg"], {"path with ..": 1})
        assert next(open_source(tmp_path / name).retry_refs(f"{name}/a/b.jpg")).error is None


@pytest.mark.parametrize("suffix", [".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar"])
def test_other_archives_are_an_error(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(tmp_path / f"d{suffix}")
    assert str(caught.value) == f"{tmp_path}/d{suffix}: archives of this kind are not read; give a tar or zip file"


def test_a_pattern_of_too_many_files_is_refused_at_once(tmp_path: Path) -> None:
    for pattern in (
        "x{1..99999999}.tar", "x{1..9999999999}.tar", f"x{{1..{'9' * 5000}}}.tar", "{0..999}/{0..1000}.tar",
        "{{0..999}{0..1000},x}.tar", "{a..z}{a..z}{a..z}{a..z}{a..z}.tar", "x{999999..-1}.tar",
    ):  # fmt: skip
        with pytest.raises(UsageError, match="its braces name more than 1000000 files; is it mistyped"):
            next(open_source(tmp_path / pattern).images(Ignored()))


def sparse(name: str, sparse_map: bytes, **headers: str) -> tuple[tarfile.TarInfo, bytes]:
    """A sparse member as GNU tar writes it in pax archives."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "3", **headers}
    info.size = 512 + 3
    return info, sparse_map.ljust(512, b"\0") + b"abc"


def test_sparse_members_are_counted_as_sparse(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info, data = sparse("sparse.jpg", b"1\n0\n3\n")
        archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type = tarfile.SYMTYPE
        archive.addfile(link)
    ignored = Ignored()
    assert list(open_source(tmp_path / "s.tar").images(ignored)) == []
    assert ignored.counts == {"sparse": 1, "not a regular file": 1}


@pytest.mark.parametrize("sparse_map", [b"\xff\xd8\xff\xe0\n0\n3\n", b"1\nx\n3\n", b"", b"9999999\n1\n"])
def test_damage_is_named_in_words(tmp_path: Path, sparse_map: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        good = tarfile.TarInfo("a.jpg")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"data"))
        info, data = sparse("sparse.jpg", sparse_map)
        archive.addfile(info, io.BytesIO(data))
    first, *rest = open_source(tmp_path / "s.tar").images(Ignored())
    assert (first.name, first.error) == ("s.tar/a.jpg", None)
    for ref in rest:
        assert ref.error
        assert ref.error[1] == "the shard cannot be read from byte 1024 on: the header of a member is damaged"

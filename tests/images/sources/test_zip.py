"""Zip files: the members of the standard library's writer, damage, and what must not be unpacked."""

import errno
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from archives import tar_of, zip_of
from s3_server import Bucket
from toys import options, picture, read_all

from batchland import Shard, merge, score
from batchland.errors import ImageError, UsageError
from batchland.images.sources import random_access, refs
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 23, 4, 5, 6)), data, method)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_listed_as_stored_and_read(tmp_path, method):
    members = {"b/2.jpg": b"two" * 100, "a.png": b"one", "b/": b"", "notes.txt": b"", "__MACOSX/b/2.jpg": b"x",
               ".hidden/c.jpg": b"x", "../e.jpg": b"x", "b/../../f.jpg": b"x",
               "Zürich/Straße.JPG": b"three", "empty.jpg": b""}  # fmt: skip
    path = write_zip(tmp_path / "d.zip", members, method)
    ignored = Ignored()
    found = list(open_source(path).images(ignored))
    assert [ref.name for ref in found] == ["d.zip/b/2.jpg", "d.zip/a.png", "d.zip/Zürich/Straße.JPG", "d.zip/empty.jpg"]
    assert ignored.counts == {".txt": 1, "hidden": 2, "path with ..": 2}
    assert read_all(path) == [(ref.name, members[ref.name.removeprefix("d.zip/")]) for ref in found]
    assert {ref.store.facts(ref.path) for ref in found[:1]} == {(300, 1_795_406_706_000_000)}


def test_several_files_are_one_source_also_in_a_bucket_and_in_shards(tmp_path, photos, toy_model, bucket: Bucket):
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    for number in range(3):
        write_zip(bucket.folder / f"n-{number}.zip", {n: (photos / n).read_bytes() for n in names[number::3]})
    score(f"s3://{bucket.name}/n-{{0..2}}.zip", tmp_path / "far.parquet", options(toy_model))
    score(bucket.folder / "n-{0..2}.zip", tmp_path / "near.parquet", options(toy_model))
    score(bucket.folder / "n-*.zip", tmp_path / "globbed.parquet", options(toy_model))
    for index in (0, 1):
        shard = Shard(index=index, count=2)
        score(bucket.folder / "n-{0..2}.zip", tmp_path / "shards", options(toy_model, shard=shard))
    merge(tmp_path / "shards", tmp_path / "merged.parquet")
    tables = {name: read_rows(tmp_path / f"{name}.parquet") for name in ("far", "near", "globbed", "merged")}
    assert tables["far"] == tables["near"] == tables["globbed"] == tables["merged"]
    assert [row["image"] for row in tables["near"]] == [f"n-{k}.zip/{n}" for k in range(3) for n in names[k::3]]
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "near.parquet").read_bytes()


def read_rows(path: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def test_suffixes_may_be_within_braces(tmp_path):
    for name in ("a", "b"):
        write_zip(tmp_path / f"{name}.zip", {"1.jpg": name.encode()})
    assert read_all(tmp_path / "{a.zip,b.zip}") == [("a.zip/1.jpg", b"a"), ("b.zip/1.jpg", b"b")]


def test_a_failed_member_is_scored_again(tmp_path, toy_model):
    path = write_zip(tmp_path / "d.zip", {"a.jpg": picture(), "b.jpg": b"not a picture", "c.jpg": picture((0, 255, 0))})
    out = tmp_path / "p.parquet"
    assert score(path, out, options(toy_model)).manifest.counts.failed == 1
    write_zip(path, {"a.jpg": picture(), "b.jpg": picture((0, 0, 255)), "c.jpg": picture((0, 255, 0))})
    random_access.open_files.close()
    assert score(path, out, options(toy_model, retry_failed=True)).manifest.counts.failed == 0
    assert [row["label"] for row in read_rows(out)] == ["Red Tower", "Blue Lake", "Green Hill"]


def damaged(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def test_damage_is_found_by_size_and_checksum(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a.jpg": b"good", "b.jpg": b"wrong"}, zipfile.ZIP_STORED)
    damaged(path, b"wrong", b"WRONG")
    assert read_all(path) == [("d.zip/a.jpg", b"good"), ("d.zip/b.jpg", "corrupt")]
    deflated = write_zip(tmp_path / "e.zip", {"a.jpg": b"abc" * 100})
    begin = deflated.read_bytes().index(b"a.jpg") + 5
    data = bytearray(deflated.read_bytes())
    data[begin] ^= 0xFF
    deflated.write_bytes(data)
    assert read_all(deflated) == [("e.zip/a.jpg", "corrupt")]


WHOLE = zip_of({"a.jpg": b"good", "b.jpg": b"good too"})
CUT = "the list of its members, at its end, is missing, so it was cut; deliver it again"
PART = "its list lacks members: it was cut, or zip files were joined by cat; deliver it again"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not a zip file"),
        (b"PK", "it is not a zip file"),
        (b"no zip file", "it is not a zip file"),
        (b"PK\x05\x06" + bytes(17), "it is not a zip file"),
        (WHOLE[:20], CUT),
        (WHOLE[:-30], CUT),
        (WHOLE[:-1], CUT),
        (tar_of({"a.jpg": b"a", "b.zip": WHOLE}, compression=""), "it is a tar file"),
        (b"\x1f\x8b\x08", "it is a gzip file"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "it is a 7z file"),
        (b"Rar!\x1a\7\1\0", "it is a RAR file"),
    ],
)
def test_an_invalid_zip_file_is_one_row(tmp_path, content, reason):
    (tmp_path / "d.zip").write_bytes(content)
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert (ref.name, ref.error) == ("d.zip/", ("unreadable", f"the zip file cannot be read: {reason}"))


def test_each_read_of_the_list_is_repeated_if_it_fails(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "d.zip", {"a.jpg": b"good"})
    real, failed = os.pread, set()

    def pread(*arguments: int) -> bytes:
        if arguments not in failed:
            failed.add(arguments)
            raise OSError(errno.EIO, "failed once")
        return real(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    assert [ref.name for ref in open_source(path).images(Ignored())] == ["d.zip/a.jpg"]


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("comment", [b"", b"of today", bytes(30), b"PK\x05\x06 and more", b"more PK\x05\x06"])
def test_an_empty_zip_file_has_no_images(tmp_path, toy_model, bucket: Bucket, comment, far):
    with zipfile.ZipFile(bucket.folder / "d.zip", "w") as archive:
        archive.comment = comment
    place = f"s3://{bucket.name}/d.zip" if far else bucket.folder / "d.zip"
    with pytest.raises(UsageError, match=r"d\.zip: no images to score \(found: nothing at all\)"):
        score(place, tmp_path / "p.parquet", options(toy_model))


def test_a_missing_zip_file_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"none\.zip: cannot be opened"):
        read_all(tmp_path / "none.zip")


def test_encrypted_and_oddly_packed_members_are_not_read(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a.jpg": b"abc" * 9}, zipfile.ZIP_BZIP2)
    assert read_all(path) == [("d.zip/a.jpg", "unsupported_format")]
    path = write_zip(tmp_path / "e.zip", {"a.jpg": b"abc"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    assert read_all(path) == [("e.zip/a.jpg", "unsupported_format")]


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A member that claims 10 bytes and unpacks to ten million, and one that claims more than is allowed."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(bytes(10_000_000)) + packed.flush()
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 7, len(data), 10, 5, 0) + b"a.jpg" + data
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 7, len(data), 10, 5, 0, 0, 0, 0, 0, 0)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) + 5, len(header), 0)
    (tmp_path / "d.zip").write_bytes(header + entry + b"a.jpg" + end)
    assert read_all(tmp_path / "d.zip") == [("d.zip/a.jpg", "corrupt")]
    monkeypatch.setattr(refs, "MAX_FILE_BYTES", 1000)
    write_zip(tmp_path / "e.zip", {"a.jpg": bytes(1001)})
    assert read_all(tmp_path / "e.zip") == [("e.zip/a.jpg", "too_large")]


def bomb(names: list[bytes], *, repeats: int) -> bytes:
    """A zip file with members that each contain all following ones, and with the last one `repeats` times in its list.

    As David Fifield's zip bombs: the header of the next member is a stored block of the one before.
    """
    data, packed, body, entries = b"x" * 1000, zlib.compress(b"x" * 1000, wbits=-15), b"", []
    for name in reversed(names):
        fields = (8, 0, 33, zlib.crc32(data), len(packed), len(data), len(name))
        header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, *fields, 0) + name
        entries.append((name, fields))
        body = header + packed
        block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
        data, packed = header + data, block + packed
    position, directory = 0, b""
    for number, (name, fields) in enumerate(reversed(entries)):
        entry = struct.pack("<4s4H", b"PK\x01\x02", 20, 20, 0, fields[0]) + struct.pack("<2H3IH", *fields[1:])
        entry += struct.pack("<4H2I", 0, 0, 0, 0, 0, position) + name
        directory += entry * (repeats if number == len(names) - 1 else 1)
        position += 30 + len(name) + 5
    count = len(names) + repeats - 1
    return body + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)


def test_members_that_overlap_are_not_unpacked(tmp_path):
    (tmp_path / "d.zip").write_bytes(bomb([b"a.jpg", b"b.jpg", b"c.jpg"], repeats=2))
    with zipfile.ZipFile(tmp_path / "d.zip") as archive:
        assert [member.file_size for member in archive.infolist()] == [1070, 1035, 1000, 1000]
    first, second, good, again = open_source(tmp_path / "d.zip").images(Ignored())
    for ref in (first, second, again):
        with pytest.raises(ImageError, match="the member overlaps another member of the zip file") as caught:
            refs.read_image(ref)
        assert caught.value.code == "corrupt"
    assert refs.read_image(good).data == b"x" * 1000


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("position", [9, 2**31])
def test_a_wrong_position_costs_one_row(tmp_path, number, position):
    content = zip_of({"a.jpg": b"first", "b.jpg": b"second"})
    at = [found.start() for found in re.finditer(b"PK\x01\x02", content)][number] + 42
    (tmp_path / "d.zip").write_bytes(content[:at] + struct.pack("<I", position) + content[at + 4 :])
    refs_found = list(open_source(tmp_path / "d.zip").images(Ignored()))
    bad = refs_found.pop(number)
    assert [refs.read_image(good).data for good in refs_found] == [b"second" if number == 0 else b"first"]
    with pytest.raises(ImageError, match="no header where its list says"):
        refs.read_image(bad)


def test_impossible_times_and_bytes_in_front_are_accepted(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.jpg", (1980, 0, 0, 0, 0, 0)), b"abc")
    (tmp_path / "d.zip").write_bytes(b"#!/bin/sh\n" + buffer.getvalue())
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert (ref.store.read(ref.path).data, ref.store.facts(ref.path)) == (b"abc", (3, None))


@pytest.mark.parametrize("between", [b"", b"\n", bytes(512)])
@pytest.mark.parametrize("cut", [0, 30])
def test_zip_files_that_were_joined_are_unreadable(tmp_path, between, cut):
    """Their last list names only the members of the last one; if that is cut, the list is that of the first one."""
    parts = [write_zip(tmp_path / f"{name}.zip", {f"{name}.jpg": b"x"}).read_bytes() for name in "ab"]
    joined = between.join(parts)
    (tmp_path / "d.zip").write_bytes(joined[: len(joined) - cut])
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert (ref.name, ref.error) == ("d.zip/", ("unreadable", f"the zip file cannot be read: {PART}"))


def test_zip_files_within_a_zip_file_and_behind_a_program_are_no_fault(tmp_path):
    """The program may hold the marks of zip files, and bytes may follow the list."""
    inner = write_zip(tmp_path / "i.zip", {"x.jpg": b"x"}, zipfile.ZIP_STORED).read_bytes()
    whole = write_zip(tmp_path / "o.zip", {"i.zip": inner, "a.jpg": b"a"}, zipfile.ZIP_STORED).read_bytes()
    for before, after in ((b"", b""), (b"MZ PK\x05\x06 PK\x01\x02 PK\x03\x04" + bytes(40), bytes(100))):
        (tmp_path / "d.zip").write_bytes(before + whole + after)
        assert read_all(tmp_path / "d.zip") == [("d.zip/a.jpg", b"a")]
        random_access.open_files.close()
    (tmp_path / "d.zip").write_bytes(whole[: whole.rindex(b"a.jpg")])
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert ref.error == ("unreadable", f"the zip file cannot be read: {PART}")


def test_links_and_paths_of_windows_are_not_listed_and_dots_are_left_out(tmp_path):
    names = ("a/./b.jpg", "./c.jpg", "././d.jpg", "..\\e.jpg", "x\\..\\f.jpg", "link.jpg", ".g.jpg")
    data = zip_of(dict.fromkeys(names, b"x"), {"link.jpg": stat.S_IFLNK | 0o777})
    (tmp_path / "D.ZIP").write_bytes(data)
    ignored = Ignored()
    found = [ref.name for ref in open_source(tmp_path / "D.ZIP").images(ignored)]
    assert found == ["D.ZIP/a/b.jpg", "D.ZIP/c.jpg", "D.ZIP/d.jpg"]
    assert ignored.counts == {"path with ..": 2, "not a regular file": 1, "hidden": 1}


def zip_with_names(*members: tuple[bytes, int, bytes]) -> bytes:
    """A zip file with members of these raw names, flags and extra fields."""
    body, entries = b"", b""
    for name, flags, extra in members:
        fields = (flags, 0, 0, 33, zlib.crc32(b"x"), 1, 1, len(name))
        entries += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, *fields, len(extra), 0, 0, 0, 0, len(body))
        entries += name + extra
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, *fields, 0) + name + b"x"
    count = len(members)
    return body + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entries), len(body), 0)


def unicode_path(name: str, of: bytes, version: int = 1) -> bytes:
    value = struct.pack("<BI", version, zlib.crc32(of)) + name.encode()
    return struct.pack("<2H", 0x7075, len(value)) + value


def test_names_are_utf8_if_anything_says_so_else_cp437(tmp_path):
    """Windows writes cp437 without the flag, Info-ZIP on Linux UTF-8 without it, others the flag or an extra field."""
    other = struct.pack("<2H", 0x5455, 5) + b"\x01" + bytes(4)
    path = tmp_path / "d.zip"
    path.write_bytes(
        zip_with_names(
            ("üé/1.jpg".encode(), 0, b""),
            ("üé/2.jpg".encode(), 0x800, b""),
            ("üé/3.jpg".encode("cp437"), 0, b""),
            (b"4.jpg", 0, other + unicode_path("照/4.jpg", of=b"4.jpg")),
            ("ü5.jpg".encode("cp437"), 0, unicode_path("x.jpg", of=b"another name")),
            ("ü6.jpg".encode("cp437"), 0, unicode_path("x.jpg", of="ü6.jpg".encode("cp437"), version=2)),
            ("ü7.jpg".encode(), 0x800, unicode_path("x.jpg", of="ü7.jpg".encode())),
            (b"8.jpg\0.txt", 0, b""),
            ("ü/".encode(), 0, b""),
            (b"", 0, b""),
            (b"9.jpg", 0, b"\x75\x70\xff"),
        )
    )
    ignored = Ignored()
    refs_found = list(open_source(path, all_files=True).images(ignored))
    names = ["üé/1", "üé/2", "üé/3", "照/4", "ü5", "ü6", "ü7", "8", "9"]
    assert [ref.name for ref in refs_found] == [f"d.zip/{name}.jpg" for name in names]
    assert {ref.store.read(ref.path).data for ref in refs_found} == {b"x"}
    assert next(open_source(path).retry_refs("d.zip/üé/1.jpg")).error is None
    assert ignored.counts == {}


@pytest.mark.parametrize("extra", [b"\x55\x54\x09\0\1\0\0\0\0", b""], ids=["cut", "not UTF-8"])
def test_a_zip_file_with_a_damaged_entry_is_one_row(tmp_path, extra):
    odd = (b"1.jpg", 0, extra) if extra else ("é1.jpg".encode("cp437"), 0x800, b"")
    (tmp_path / "d.zip").write_bytes(zip_with_names(odd, (b"2.jpg", 0, b"")))
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert (ref.name, ref.error[0]) == ("d.zip/", "unreadable")


@pytest.mark.parametrize("found", ["x.jpg", "c.jpg"])
def test_a_damaged_name_in_the_list_is_a_failed_row(tmp_path, toy_model, found):
    """It must not be scored under a name that it does not have."""
    path = write_zip(tmp_path / "d.zip", {"a.jpg": picture(), "b.jpg": picture(), "c.txt": b"text"})
    data = path.read_bytes()
    at = data.rindex(b"b.jpg")
    path.write_bytes(data[:at] + found.encode() + data[at + 5 :])
    run = score(path, tmp_path / "p.parquet", options(toy_model))
    rows = [(row["image"], row["error_code"], row["error_message"]) for row in read_rows(tmp_path / "p.parquet")]
    reason = "the zip file's list has another name than the member: b.jpg"
    assert rows == [("d.zip/a.jpg", None, None), (f"d.zip/{found}", "corrupt", reason)]
    assert run.manifest.ignored == {".txt": 1}


@pytest.mark.parametrize("position", [2**40, 2**63 - 1, 2**64 - 1], ids=str)
def test_a_member_beyond_the_end_is_corrupt(tmp_path, position):
    archive = bytearray(zip_with_names((b"1.jpg", 0, struct.pack("<2HQ", 1, 8, position)), (b"2.jpg", 0, b"")))
    struct.pack_into("<I", archive, archive.index(b"PK\x01\x02") + 42, 0xFFFFFFFF)
    (tmp_path / "d.zip").write_bytes(archive)
    bad, good = open_source(tmp_path / "d.zip").images(Ignored())
    with pytest.raises(ImageError) as caught:
        refs.read_image(bad)
    assert (caught.value.code, str(caught.value)) == ("corrupt", "the zip file has no header where its list says")
    assert refs.read_image(good).data == b"x"


def test_a_damaged_list_of_members_is_one_row(tmp_path):
    archive = zip_with_names((b"1.jpg", 0, b""), (b"\xff.jpg", 0x800, b""))
    at = archive.rindex(b"PK\x01\x02")
    (tmp_path / "d.zip").write_bytes(archive[:at] + b"PK\x01\x03" + archive[at + 4 :])
    (ref,) = open_source(tmp_path / "d.zip").images(Ignored())
    assert ref.error == ("unreadable", "the zip file cannot be read: Bad magic number for central directory")

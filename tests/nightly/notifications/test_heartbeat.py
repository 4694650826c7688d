"""Heartbeat pings to a real server, and to servers that do not answer."""

import socket
import threading
import time

from batchland.nightly.job_tables import HeartbeatTable
from batchland.nightly.notifications.heartbeat import ping_end, ping_start


def test_start_success_and_failure_have_different_addresses(web_server):
    url, heard = web_server
    heartbeat = HeartbeatTable(url=f"{url}/check/")
    assert [ping_start(heartbeat), ping_end(heartbeat, 0), ping_end(heartbeat, 4)] == [None, None, None]
    assert heard == ["/check/start", "/check", "/check/4"]


def test_addresses_can_be_configured_or_empty(web_server):
    url, heard = web_server
    heartbeat = HeartbeatTable(
        url=url, start="", success="{url}/?status=up", failure="{url}/?status=down&msg={exit_code}"
    )
    assert [ping_start(heartbeat), ping_end(heartbeat, 0), ping_end(heartbeat, 75)] == [None, None, None]
    assert heard == ["/?status=up", "/?status=down&msg=75"]


def test_a_failed_ping_returns_a_message(web_server):
    url, _ = web_server
    assert ping_start(HeartbeatTable(url=f"{url}/missing")) == "heartbeat: answered 404 Not Found"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = HeartbeatTable(url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert ping_start(nobody) == "heartbeat: Connection refused"


def test_a_redirect_is_an_error(web_server):
    """A login page answers 200, too."""
    url, heard = web_server
    assert ping_start(HeartbeatTable(url=f"{url}/moved")) == (
        "heartbeat: answered 302 Found; it redirects, so the ping was not taken; give the address that it leads to"
    )
    assert heard == ["/moved/start"]


def test_an_answer_that_is_not_http_is_an_error():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        heartbeat = HeartbeatTable(url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout="5s")
        assert ping_start(heartbeat) == "heartbeat: the answer is not HTTP"


def test_a_silent_server_delays_no_longer_than_the_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        heartbeat = HeartbeatTable(url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout="0.3s")
        begin = time.monotonic()
        assert ping_start(heartbeat) in ("heartbeat: no answer within 0.3 s", "heartbeat: timed out")
        assert time.monotonic() - begin < 8


def test_a_server_that_answers_byte_by_byte_delays_no_longer_than_the_timeout():
    """Each byte arrives within the timeout of urlopen, but the whole answer does not."""

    def drip(server):
        connection, _ = server.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 100:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.1)

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        heartbeat = HeartbeatTable(url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout="0.5s")
        begin = time.monotonic()
        assert ping_end(heartbeat, 0) == "heartbeat: no answer within 0.5 s"
        assert time.monotonic() - begin < 8


def test_addresses_are_in_no_message_and_server_text_is_shown_escaped():
    table = HeartbeatTable(url="http://127.0.0.1:1/secret")
    message = ping_start(table)
    assert message.startswith("heartbeat: ")
    assert "secret" not in message
    odd = table.model_copy(update={"start": "http://127.0.0.1:1/secret with spaces\n"})
    assert ping_start(odd) == (
        "heartbeat: the address is not a valid URL; remove spaces, line breaks and letters that are not ASCII"
    )

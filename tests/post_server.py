"""Servers that keep what they get: an HTTP server for webhooks, and an SMTP server for mail."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session


@dataclass
class PostServer:
    """`url` takes documents by POST; below `url/refuse` they are answered by 400, below `url/moved` by 302."""

    url: str
    got: list[tuple[str, Any]] = field(default_factory=list)
    """Paths and documents."""


@contextmanager
def post_server() -> Iterator[PostServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            server.got.append((self.path, json.loads(body)))
            moved = "moved" in self.path
            self.send_response(400 if "refuse" in self.path else 302 if moved else 200)
            if moved:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server = PostServer(f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        running.shutdown()


@dataclass
class MailServer:
    """Takes mail for everybody but nobody@example.org."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)


@contextmanager
def mail_server(*, tls: ssl.SSLContext | None = None, user: str = "", password: str = "") -> Iterator[MailServer]:
    """tls: take mail only after STARTTLS. user: and after this login."""
    server = MailServer()

    class Handler:
        async def handle_RCPT(self, smtp: Any, session: Session, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802
            if address == "nobody@example.org":
                return "550 no such user"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, smtp: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
            server.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
            server.recipients.append(list(envelope.rcpt_tos))
            return "250 OK"

    def login(smtp: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (user.encode(), password.encode()), handled=False)

    options: dict[str, Any] = {"authenticator": login, "auth_required": True} if user else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    running = Controller(
        Handler(), "127.0.0.1", server.port, tls_context=tls, require_starttls=tls is not None, **options
    )
    running.start()
    yield server
    running.stop()

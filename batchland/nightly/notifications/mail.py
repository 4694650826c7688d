"""Send a notification by mail: SMTP, as text and as HTML with the pictures in it."""

import base64
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final

from batchland._version import __version__
from batchland.nightly.job_tables import MailTable
from batchland.nightly.notifications.message import Notification
from batchland.report.html import environment
from batchland.system.deadline import within
from batchland.system.text import reason, visible

TEMPLATES: Final = Path(__file__).parent / "templates"


def send_mail(table: MailTable, notification: Notification, seconds: float) -> str | None:
    """Send it to all addresses. Returns an error message, None if the server took it for all of them.

    seconds: to wait at most, in all.
    """
    mail = compose_mail(table, notification)

    def send() -> str | None:
        with _connect(table, seconds) as server:
            refused = server.send_message(mail)
        return f"the server refuses the addresses {', '.join(refused)}" if refused else None

    return _fault_of(send, seconds)


def check_server(table: MailTable, seconds: float) -> str | None:
    """Connect and log in, without sending anything. Returns an error message, None if that works."""

    def check() -> None:
        _connect(table, seconds).quit()

    return _fault_of(check, seconds)


def compose_mail(table: MailTable, notification: Notification) -> EmailMessage:
    """The mail, pictures included."""
    mail = EmailMessage()
    mail["Subject"] = f"batchland {notification.title}"
    mail["From"] = table.sender
    mail["To"] = ", ".join(table.to)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain=table.sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"  # so that no vacation notice answers
    mail["X-Mailer"] = f"batchland/{__version__}"
    links = "".join(f"{link.text}: {link.url}\n" for link in notification.links)
    mail.set_content(notification.summary + (f"\n{links}" if links else ""))
    ids = [make_msgid(domain="batchland.invalid") for _ in notification.pictures]
    mail.add_alternative(_html(notification, [identifier[1:-1] for identifier in ids]), subtype="html")
    page = mail.get_payload()[1]  # type: ignore[index]
    assert isinstance(page, EmailMessage)
    for picture, identifier in zip(notification.pictures, ids, strict=True):
        page.add_related(base64.b64decode(picture.jpeg_base64), "image", "jpeg", cid=identifier)
    return mail


def _html(notification: Notification, ids: list[str]) -> str:
    summary = "\n".join(line for line in notification.summary.splitlines() if line != notification.error)
    page = environment(TEMPLATES).get_template("mail.html.j2")
    return page.render(night=notification, ids=ids, summary=summary)


def _fault_of(action: Callable[[], str | None], seconds: float) -> str | None:
    """The error message that the action returns or raises, None for none."""
    try:
        return within(seconds, action)
    except smtplib.SMTPAuthenticationError:
        return "the server refuses user or password"
    except smtplib.SMTPRecipientsRefused as error:
        return f"the server refuses the addresses {', '.join(error.recipients)}"
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return visible(f"the server answered {error.smtp_code} {text}")
    except UnicodeError:  # its text may show a part of the password
        return "the name of the server is invalid, or user or password has letters that are not ASCII"
    except (OSError, smtplib.SMTPException) as error:  # TimeoutError, too
        return reason(error)


def _connect(table: MailTable, seconds: float) -> smtplib.SMTP:
    if table.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            table.server, table.port, timeout=seconds, context=ssl.create_default_context()
        )
    else:
        server = smtplib.SMTP(table.server, table.port, timeout=seconds)
    try:
        if table.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if table.user:
            server.login(table.user, table.password)
    except BaseException:
        server.close()
        raise
    return server

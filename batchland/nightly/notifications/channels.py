"""Send a notification through every channel of `[notify]`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchland.nightly.job_tables import NotifyTable
from batchland.nightly.notifications.chat import slack_message, teams_message
from batchland.nightly.notifications.command import notify
from batchland.nightly.notifications.http import request
from batchland.nightly.notifications.mail import send_mail
from batchland.nightly.notifications.message import Notification


def send_all(table: NotifyTable, notification: Notification, path: Path) -> Iterator[tuple[str, str | None]]:
    """Each channel's name with an error message, or with None if it was sent. path: of the night's record."""
    seconds = table.timeout.total_seconds()
    if table.command:
        yield "command", notify(table.command, notification, path, seconds)
    if table.mail:
        yield "mail", send_mail(table.mail, notification, seconds)
    if table.slack:
        yield "Slack", _post(table.slack, slack_message(notification), seconds)
    if table.teams:
        yield "Teams", _post(table.teams, teams_message(notification), seconds)
    if table.webhook:
        yield "webhook", request(table.webhook, seconds, notification.model_dump_json().encode())


def channel_names(table: NotifyTable) -> list[str]:
    """The channels, for people, without addresses that may be secret."""
    names = [f"run {' '.join(table.command)}"] if table.command else []
    if table.mail:
        names.append(f"mail to {', '.join(table.mail.to)}")
    chats = {"Slack": table.slack, "Teams": table.teams, "webhook": table.webhook}
    return names + [name for name, url in chats.items() if url]


def _post(url: str, document: dict[str, Any], seconds: float) -> str | None:
    return request(url, seconds, json.dumps(document).encode())

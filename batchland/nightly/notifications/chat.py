"""Notifications for Slack and Teams: the JSON documents of their incoming webhooks."""

import json
from functools import partial
from html import escape
from typing import Any, Final

from batchland.nightly.notifications.message import Notification
from batchland.system.text import one_line

SLACK_TITLE: Final = 150
"""Characters; Slack refuses longer headers."""
SLACK_SECTION: Final = 3000
"""Characters; Slack refuses longer texts."""
SLACK_FIELDS: Final = 10
SLACK_FIELD: Final = 1900
TEAMS_BYTES: Final = 26_000
"""Teams refuses messages of more than 28 kB."""
_escaped = partial(escape, quote=False)


def slack_message(notification: Notification) -> dict[str, Any]:
    """For an incoming webhook of Slack. It takes no pictures: it would fetch them from public addresses only."""
    mark = ":white_check_mark:" if notification.good else ":warning:"
    title = one_line(notification.title, SLACK_TITLE - 30)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": f"{mark} {title}", "emoji": True}}
    ]
    if notification.error:
        blocks.append({"type": "section", "text": _mrkdwn(one_line(_escaped(notification.error), SLACK_SECTION))})
    figures = [
        f"*{_escaped(figure.name)}*\n{one_line(_escaped(figure.value), SLACK_FIELD)}" for figure in notification.figures
    ]
    links = [f"<{link.url}|{_escaped(link.text)}>" for link in notification.links]
    for texts in filter(None, (figures, links)):
        fields = [_mrkdwn(text) for text in texts[:SLACK_FIELDS]]
        blocks.append({"type": "section", "fields": fields})
    return {"text": title, "blocks": blocks}


def teams_message(notification: Notification) -> dict[str, Any]:
    """For a workflow of Teams "when a webhook request is received": an adaptive card, with as many pictures as fit."""
    colour = "Good" if notification.good else "Attention"
    body = [_text(notification.title, size="Large", weight="Bolder", color=colour)]
    if notification.error:
        body.append(_text(notification.error))
    facts = [{"title": figure.name, "value": one_line(figure.value, 500)} for figure in notification.figures[:20]]
    if facts:
        body.append({"type": "FactSet", "facts": facts})
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": [{"type": "Action.OpenUrl", "title": link.text, "url": link.url} for link in notification.links],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    message = {"type": "message", "attachments": [attachment]}
    for picture in notification.pictures:
        url = f"data:image/jpeg;base64,{picture.jpeg_base64}"
        body += [
            {"type": "Image", "url": url, "altText": picture.caption, "width": f"{picture.width}px"},
            _text(picture.caption, size="Small", isSubtle=True),
        ]
        if len(json.dumps(message)) > TEAMS_BYTES:
            del body[-2:]
            break
    return message


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


def _text(text: str, **attributes: Any) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **attributes}

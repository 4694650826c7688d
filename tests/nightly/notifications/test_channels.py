"""Nights that notify by mail, Slack, Teams and a webhook, each a real server of the test."""

import base64
import json
import ssl
from datetime import date
from io import BytesIO
from pathlib import Path

import jsonschema
import pytest
import trustme
from commands import batchland
from job_files import EVALUATION, JOB, deliver
from markupsafe import escape
from PIL import Image
from post_server import PostServer, mail_server, post_server

from batchland.errors import UsageError
from batchland.nightly.job import load_job
from batchland.nightly.job_tables import MailTable
from batchland.nightly.notifications.chat import TEAMS_BYTES, slack_message, teams_message
from batchland.nightly.notifications.mail import check_server, send_mail
from batchland.nightly.notifications.message import Figure, Link, Notification, Picture
from batchland.nightly.record_files import read_run
from batchland.nightly.runner import run_night

NIGHT = date(2024, 11, 23)
SCHEMAS = Path(__file__).parents[3] / "schemas"
MADE_UP = Notification(
    job="nightly",
    date=NIGHT,
    outcome="gate_failed",
    exit_code=4,
    good=False,
    title="nightly, 2024-11-23: gate failed",
    error="gate failed: a < b & c",
    summary="Job nightly, 2024-11-23: gate failed.\n",
    figures=(Figure(name="images", value="9"), Figure(name="gate top1 < 90%", value="failed")),
    links=(
        Link(text="Report on toy", url="https://photos.example.org/runs/nightly/2024-11-23/report/toy/report.html"),
    ),
    pictures=(Picture(caption="a.jpg: <Red> 34%", jpeg_base64="AAAA", width=8, height=6),),
)


@pytest.fixture
def server():
    with post_server() as running:
        yield running


def run(project, table: str, text: str = JOB):
    (project / "toy.toml").write_text(f"{text}\n[notify]\n{table}\n")
    return run_night(load_job(project / "toy.toml"), NIGHT)


def test_a_webhook_gets_the_verdict_the_figures_links_and_three_pictures(project, server, monkeypatch):
    monkeypatch.setenv("REPORTS", "photos.example.org")
    table = f'on = "always"\nwebhook = "{server.url}/hook"\nlink = "https://${{REPORTS}}/runs/"'
    text = JOB + EVALUATION.replace("[evaluation]", "[evaluation]\ngates = ['top1 < 90%']")
    deliver(project, NIGHT, per_class=3, wrong=1)
    record, attempt = run(project, table, text)
    assert record.warnings == ()
    ((path, document),) = server.got
    jsonschema.validate(document, json.loads((SCHEMAS / "notification.json").read_text()))
    assert (path, document["title"], document["outcome"]) == ("/hook", "toy, 2024-11-23: gate failed", "gate_failed")
    assert (document["exit_code"], document["good"], document["error"]) == (4, False, attempt.error)
    figures = {each["name"]: each["value"] for each in document["figures"]}
    speed = figures.pop("speed")
    assert speed.endswith(" images/s on cpu")
    assert figures == {
        "images": "9",
        "failed": "0",
        "top-1 accuracy": "66.7% (35.4 to 87.9%)",
        "gate top1 < 90%": "failed",
    }
    night = "https://photos.example.org/runs/toy/2024-11-23"
    assert document["links"] == [
        {"text": "Report on toy", "url": f"{night}/report/toy/report.html"},
        {"text": "Record of the night", "url": f"{night}/run.json"},
    ]
    # Of each class, the first picture has the colour of the next one: the three mistakes.
    captions = sorted(picture["caption"] for picture in document["pictures"])
    assert [caption.partition(" >99.9%")[0] for caption in captions] == [
        "00.Red_Tower/0.jpg: Green Hill",
        "01.Green_Hill/0.jpg: Blue Lake",
        "02.Blue_Lake/0.jpg: Red Tower",
    ]
    with Image.open(BytesIO(base64.b64decode(document["pictures"][0]["jpeg_base64"]))) as image:
        assert (image.format, image.size) == ("JPEG", (32, 24))


def test_without_labels_the_least_confident_images_are_shown(project, server):
    for number, grey in enumerate((90, 120, 200)):
        Image.new("RGB", (300, 200), (grey, grey - 20, 0)).save(project / "in" / str(NIGHT) / f"doubt-{number}.png")
    run(project, f'on = "always"\nwebhook = "{server.url}"')
    pictures = server.got[0][1]["pictures"]
    assert sorted(picture["caption"].partition(":")[0] for picture in pictures) == [
        "doubt-0.png",
        "doubt-1.png",
        "doubt-2.png",
    ]
    assert {(picture["width"], picture["height"]) for picture in pictures} == {(160, 107)}
    server.got.clear()
    run(project, f'on = "always"\nwebhook = "{server.url}"\npictures = false')
    assert server.got[0][1]["pictures"] == []


def test_mail_has_the_error_the_figures_and_the_pictures_in_it(project):
    with mail_server() as server:
        table = f"""
        [notify.mail]
        to = ["ops@example.org", "night@example.org"]
        sender = "batchland@example.org"
        server = "127.0.0.1"
        port = {server.port}
        security = "none"
        """
        record, attempt = run(project, table, "max_failed = 0\n" + JOB)
        assert (attempt.exit_code, server.mails) == (0, [])  # on failure only
        (project / "in" / str(NIGHT) / "00.Red_Tower" / "0.jpg").write_bytes(b"")
        record, attempt = run_night(load_job(project / "toy.toml"), NIGHT, force=True)
        assert record.warnings == ()
    (mail,), recipients = server.mails, server.recipients
    assert recipients == [["ops@example.org", "night@example.org"]]
    assert (mail["Subject"], mail["From"], mail["To"]) == (
        "batchland toy, 2024-11-23: too many failed",
        "batchland@example.org",
        "ops@example.org, night@example.org",
    )
    text = mail.get_body(("plain",)).get_content()
    assert attempt.error in text
    assert "toy: replaced, 9 images, 8 ok, 1 failed (empty 1)" in text
    html = mail.get_body(("html",)).get_content()
    assert "1 (empty 1)" in html
    assert (html.count(escape(attempt.error)), html.count("display:inline-block")) == (1, 3)
    pictures = [part for part in mail.walk() if part.get_content_type() == "image/jpeg"]
    assert len(pictures) == 3
    for picture in pictures:
        assert f"cid:{picture['Content-ID'][1:-1]}" in html
        with Image.open(BytesIO(picture.get_content())) as image:
            assert image.size == (32, 24)


def table_of(port: int, **changes) -> MailTable:
    values = {"to": ("ops@example.org",), "sender": "b@example.org", "server": "localhost", "port": port}
    return MailTable(**values | changes)


def test_mail_over_starttls_with_a_password(tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with mail_server(tls=context, user="batchland", password="right") as server:
        right = table_of(server.port, user="batchland", password="right", server="localhost")
        error = send_mail(right, MADE_UP, 20)
        assert "certificate verify failed" in error
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert check_server(right, 20) is None
        assert server.mails == []
        assert send_mail(right, MADE_UP, 20) is None
        wrong = right.model_copy(update={"password": "wrong"})
        assert send_mail(wrong, MADE_UP, 20) == "the server refuses user or password"
        accented = right.model_copy(update={"password": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"})
        not_ascii = "the name of the server is invalid, or user or password has letters that are not ASCII"
        assert (send_mail(accented, MADE_UP, 20), check_server(accented, 20)) == (not_ascii, not_ascii)
        assert send_mail(right.model_copy(update={"server": "mail..example.org"}), MADE_UP, 20) == not_ascii
        refused = right.model_copy(update={"to": ("ops@example.org", "nobody@example.org")})
        assert send_mail(refused, MADE_UP, 20) == "the server refuses the addresses nobody@example.org"
    assert [mail["Subject"] for mail in server.mails] == ["batchland nightly, 2024-11-23: gate failed"] * 2
    assert send_mail(right, MADE_UP, 20) == "Connection refused"


def test_a_password_is_never_sent_unencrypted():
    with pytest.raises(UsageError, match="would send the password unencrypted"):
        table_of(25, user="me", password="secret", security="none")


def test_slack_gets_blocks():
    assert slack_message(MADE_UP) == {
        "text": "nightly, 2024-11-23: gate failed",
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": ":warning: nightly, 2024-11-23: gate failed", "emoji": True},
            },
            {"type": "section", "text": {"type": "mrkdwn", "text": "gate failed: a &lt; b &amp; c"}},
            {
                "type": "section",
                "fields": [
                    {"type": "mrkdwn", "text": "*images*\n9"},
                    {"type": "mrkdwn", "text": "*gate top1 &lt; 90%*\nfailed"},
                ],
            },
            {"type": "section", "fields": [{"type": "mrkdwn", "text": f"<{MADE_UP.links[0].url}|Report on toy>"}]},
        ],
    }


def test_teams_gets_an_adaptive_card_with_as_many_pictures_as_fit():
    (attachment,) = teams_message(MADE_UP)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    body = attachment["content"]["body"]
    assert [block["type"] for block in body] == ["TextBlock", "TextBlock", "FactSet", "Image", "TextBlock"]
    assert (body[0]["text"], body[0]["color"]) == ("nightly, 2024-11-23: gate failed", "Attention")
    assert body[2]["facts"] == [
        {"title": "images", "value": "9"},
        {"title": "gate top1 < 90%", "value": "failed"},
    ]
    assert body[3]["url"] == "data:image/jpeg;base64,AAAA"
    assert attachment["content"]["actions"][0]["url"] == MADE_UP.links[0].url


@pytest.mark.parametrize(
    ("error", "images"), [("gate failed", 3), ("<&" * 1000, 2), ("\N{CJK UNIFIED IDEOGRAPH-591C}" * 2000, 1)]
)
def test_the_largest_messages_are_as_large_as_slack_and_teams_allow(error: str, images: int) -> None:
    """Longest error, many figures, links and pictures. Both refuse a message of which one text is too long."""
    pictures = tuple(MADE_UP.pictures[0].model_copy(update={"jpeg_base64": "A" * 7_000}) for _ in range(6))
    changes = {"error": error, "figures": MADE_UP.figures * 10, "links": MADE_UP.links * 20, "pictures": pictures}
    large = MADE_UP.model_copy(update=changes)
    teams = teams_message(large)
    assert len(json.dumps(teams)) <= TEAMS_BYTES
    assert [block["type"] for block in teams["attachments"][0]["content"]["body"]].count("Image") == images
    _, message, figures, links = slack_message(large)["blocks"]
    assert len(message["text"]["text"]) <= 3000
    assert [len(section["fields"]) for section in (figures, links)] == [10, 10]


def test_every_channel_is_tried_and_what_fails_is_a_warning_without_the_address(project, server: PostServer):
    table = f"""
    on = "always"
    slack = "{server.url}/refuse/T0/secret"
    teams = "{server.url}/moved/secret"
    webhook = "http://127.0.0.1:1/secret"
    command = ["sh", "-c", "exit 3"]
    """
    record, attempt = run(project, table)
    assert attempt.outcome == "ok"
    assert record.warnings == (
        "notify: command: sh ended with exit code 3",
        "notify: Slack: answered 400 Bad Request",
        "notify: Teams: answered 302 Found; it redirects, so the document was not taken; give the address that it "
        "leads to",
        "notify: webhook: Connection refused",
    )
    assert [path for path, _ in server.got] == ["/refuse/T0/secret", "/moved/secret"]
    for path in (project / "runs").rglob("*.json*"):
        assert "secret" not in path.read_text()
    plan = batchland("run", project / "toy.toml", "--date", NIGHT, "--dry-run").stdout
    assert "on always, run sh -c exit 3, Slack, Teams, webhook" in plan
    assert "secret" not in plan


def test_a_test_notification(project, server):
    (project / "toy.toml").write_text(JOB + f'[notify]\nwebhook = "{server.url}"\n')
    result = batchland("job", "notify", project / "toy.toml")
    assert (result.exit_code, result.stdout) == (0, "webhook: sent\n")
    assert (server.got[0][1]["title"], server.got[0][1]["test"]) == ("toy: a test of the notification", True)
    run_night(load_job(project / "toy.toml", ["notify.on=always"]), NIGHT)
    assert server.got[-1][1]["test"] is False
    failing = batchland("job", "notify", project / "toy.toml", "--set", f"notify.slack={server.url}/refuse")
    assert (failing.exit_code, failing.stdout, failing.stderr) == (
        69,
        "webhook: sent\n",
        "Slack: answered 400 Bad Request\n",
    )
    title = "toy, 2024-11-23: a test of the notification"
    assert (server.got[-1][1]["title"], server.got[-1][1]["test"]) == (title, True)
    assert read_run(project / "runs/toy/2024-11-23").warnings == ()


def test_notify_needs_a_channel(project):
    with pytest.raises(UsageError, match="give command, mail, slack, teams or webhook"):
        load_job(project / "toy.toml", ["notify={on='always'}"])

"""`${NAME}` and `${file:PATH}` in job files: filled in everywhere, never recorded or printed as secrets."""

import json
import sys
from datetime import date
from pathlib import Path

import forks
import pytest
from commands import batchland

from batchland.errors import UsageError
from batchland.nightly.job import load_job
from batchland.nightly.placeholders import Placeholders

NIGHT = date(2026, 11, 23)
TOKEN = "hook-token-7281"
PASSWORD = 'pass"word-\\-marzipan'  # its last word is looked for: no number, which a time or hash may contain


@pytest.fixture
def site(tmp_path: Path, toy_model: Path, colour_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and images, a password file and a token in the environment."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text(PASSWORD + "\n")
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    monkeypatch.setenv("PHOTOS", "labelled")
    monkeypatch.setenv("ON", "always")
    return tmp_path


def write_job(site: Path, text: str) -> Path:
    path = site / "toy.toml"
    path.write_text(
        'images = "${PHOTOS}"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "off"}\n' + text
    )
    return path


def test_all_strings_are_filled(site: Path) -> None:
    path = write_job(
        site,
        'ray_address = "${HOOK_TOKEN}:1"\n'
        '[heartbeat]\nurl = "https://example.org/${HOOK_TOKEN}"\n'
        '[notify]\ncommand = ["send", "--password=${file:secrets/password}", "$${HOOK_TOKEN}", "$${"]\n',
    )
    job = load_job(path, ["notify.on=${ON}"])
    assert job.images == site / "labelled"
    assert job.ray_address == f"{TOKEN}:1"
    assert job.heartbeat is not None
    assert job.heartbeat.url == f"https://example.org/{TOKEN}"
    assert job.notify is not None
    assert job.notify.on == "always"
    assert job.notify.command == ("send", f"--password={PASSWORD}", "${HOOK_TOKEN}", "${")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('ray_address = "${NO_SUCH}"', '"ray_address": ${NO_SUCH} is not set in the environment; for this text itself '
         "write $${NO_SUCH}"),
        ('[notify]\ncommand = ["a", "${file:none}"]', '"notify.command": ${file:none} cannot be read (No such file or '
         "directory)"),
        ('[notify]\ncommand = ["${file:secrets/empty}"]', '"notify.command": ${file:secrets/empty} is empty'),
        ('[heartbeat]\nurl = "http://a.org/${file:secrets/hb"', '"heartbeat.url": ${file:secrets/hb has no closing '
         "brace; for this text itself write $${file:secrets/hb"),
        ('[notify]\ncommand = ["${A{HOOK_TOKEN}}"]', '"notify.command": ${A has no closing brace; for this text itself '
         "write $${A"),
        ('[notify]\ncommand = ["${file:}"]', '"notify.command": ${file:} names no file'),
        ('[notify]\ncommand = ["${ }"]', '"notify.command": ${ } names no variable'),
        ('metrics = "${file:secrets/password}"', '"metrics": ${file:secrets/password} would be secret, but the records '
         "name this value; write it out"),
        ('[evaluation]\nlabels = "${file:secrets/password}"', '"evaluation.labels": ${file:secrets/password} would be '
         "secret, but the records name this value; write it out"),
        ('ray_address = "${file:secrets/password}"', '"ray_address": ${file:secrets/password} would be secret, but the '
         "records name this value; write it out"),
        ('[notify]\nlink = "https://${file:secrets/password}"', '"notify.link": ${file:secrets/password} would be '
         "secret, but the records name this value; write it out"),
        ('[heartbeat]\nurl = "${HOOK_TOKEN}"', "\"heartbeat.url\" = '${HOOK_TOKEN}': should be a URL, like "
         '"https://example.org/x"'),
        ('device = "${file:secrets/password}"', None),
        ('finish_by = "${file:secrets/long}"', None),
        ('[notify]\nwebhook = "http://user:${file:secrets/address}@127.0.0.1:1"', None),
        ('[notify]\non = "always"', '"notify": give command, mail, slack, teams or webhook'),
    ],
)  # fmt: skip
def test_an_invalid_placeholder_is_an_error_without_secret_values(site: Path, text: str, message: str | None) -> None:
    (site / "secrets" / "empty").touch()
    (site / "secrets" / "long").write_text("marzipan" * 30)
    (site / "secrets" / "address").write_text("a@marzipan:marzipan/")
    path = site / "toy.toml"
    device = "" if text.startswith("device") else 'device = "cpu"\n'
    path.write_text(f'images = "labelled"\nmodel = "toy.onnx"\n{device}{text}\n')
    with pytest.raises(UsageError) as caught:
        load_job(path)
    if message:
        assert str(caught.value) == f"{path}: {message}"
    assert TOKEN not in str(caught.value)
    assert "marzipan" not in str(caught.value)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_night_uses_secrets_and_records_none(site: Path, web_server: tuple[str, list[str]]) -> None:
    address, asked = web_server
    leak = site / "leak.sh"
    leak.write_text(f'#!/bin/sh\necho "$1" > {site}/sent\necho "cannot log in with $1"\nexit 3\n')
    leak.chmod(0o755)
    job = write_job(
        site,
        f'[heartbeat]\nurl = "{address}/missing/${{HOOK_TOKEN}}"\n'
        f'[notify]\non = "always"\ncommand = ["{leak}", "${{file:secrets/password}}", "${{HOOK_TOKEN}}"]\n',
    )
    command = [sys.executable, "-m", "batchland", "--verbose", "run", str(job), "--date", str(NIGHT)]
    night = forks.run(command, cwd=site)
    assert night.returncode == 0
    assert asked == [f"/missing/{TOKEN}/start", f"/missing/{TOKEN}"]
    assert (site / "sent").read_text() == PASSWORD + "\n"
    record = json.loads((site / "runs" / "toy" / str(NIGHT) / "run.json").read_text())
    assert record["config"]["notify"]["command"] == [str(leak), "${file:secrets/password}", "${HOOK_TOKEN}"]
    assert record["config"]["images"] == str(site / "labelled")
    message = f"notify: command: {leak} ended with exit code 3: cannot log in with ${{file:secrets/password}}"
    assert message in record["warnings"]
    assert f"Warning: {message}." in night.stdout
    looked = [batchland("job", "check", job), batchland("run", job, "--dry-run"), batchland("doctor", "--job", job)]
    looked.append(batchland("job", "notify", job))
    assert (
        looked[-1].stderr == f"command: {leak} ended with exit code 3: cannot log in with ${{file:secrets/password}}\n"
    )
    printed = "".join([night.stdout, night.stderr, *(each.output for each in looked)])
    written = files_below(site / "runs") | files_below(site / "out")
    for secret in (TOKEN, "marzipan"):
        assert secret not in printed
        assert [name for name, data in written.items() if secret.encode() in data] == []


def test_hiding_replaces_long_values_anywhere_and_short_ones_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "swordfish")
    monkeypatch.setenv("SHORT", "ok")
    monkeypatch.setenv("LINES", "first-line\n second-line ")
    placeholders = Placeholders(Path())
    assert placeholders.fill({"notify": {"command": ["${LONG}", "${SHORT}", 3]}}) == {
        "notify": {"command": ["swordfish", "ok", 3]}
    }
    assert placeholders.hide("ok: a swordfish.") == "ok: a ${LONG}."
    placeholders.fill("${LINES}")
    assert placeholders.hide("second-line; first-line second-line") == "${LINES}; ${LINES} ${LINES}"
    assert placeholders.hide_all({"a": ["ok", {"b": "swordfish"}, None]}) == {"a": ["${SHORT}", {"b": "${LONG}"}, None]}

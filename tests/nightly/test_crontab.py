"""The crontab entry: complete lines, `%`, unchanged other entries, and a shell that runs the line like cron."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchland.cli.main import main
from batchland.errors import UsageError
from batchland.nightly.crontab import (
    Entry,
    check_schedule,
    daemon_runs,
    entry_of,
    install,
    kept_environment,
    read,
    remove,
    render,
)
from batchland.nightly.dates import local_today
from batchland.nightly.job import load_job

OTHERS = 'MAILTO=ops@example.org\n# mine, caf\xe9\r\n5 4 * * sun  backup "a  b" \\% %stdin\n\n'.encode("latin-1")


def entry(**changes) -> Entry:
    facts = {
        "job": "nightly",
        "command": ("/opt/batchland/.venv/bin/python", "-m", "batchland", "run", "/srv/batchland/jobs/nightly.toml"),
        "folder": Path("/srv/batchland"),
        "log": Path("/srv/batchland/runs/nightly/cron.log"),
        "environment": {"PATH": "/usr/bin:/bin"},
    }
    return Entry(**facts | changes)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The file of a toy `crontab` program that keeps a table as cron's does: -l, -r, and - from its input."""
    store, program = tmp_path / "table", tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'-l) [ -e "{store}" ] && cat "{store}" || {{ echo "no crontab for $LOGNAME" >&2; exit 1; }} ;;\n'
        f'-r) rm "{store}" ;;\n'
        f'-) cat >"{store}.new"\n'
        f'   if grep -q "30 2 \\*" "{store}.new"; then echo "bad\n hour" >&2; exit 1; fi\n'
        f'   mv "{store}.new" "{store}" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return store


def test_whether_a_cron_daemon_runs(tmp_path):
    """Unknown without /proc, or if it hides the processes of others."""
    assert daemon_runs(tmp_path)
    for number, name in enumerate(("init", "cron-tool", "bash"), 1):
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/comm").write_text(f"{name}\n")
    assert not daemon_runs(tmp_path)
    (tmp_path / "3/comm").write_text("crond\n")
    assert daemon_runs(tmp_path)


def test_the_entry():
    assert render(entry()) == (
        "# >>> batchland nightly: made by `batchland cron install`, removed by `batchland cron remove`\n"
        "30 3 * * * cd /srv/batchland && PATH=/usr/bin:/bin /opt/batchland/.venv/bin/python -m batchland run "
        "/srv/batchland/jobs/nightly.toml >>/srv/batchland/runs/nightly/cron.log 2>&1 "
        "|| { echo 'batchland nightly ended with exit code' $?:; tail -n 1 /srv/batchland/runs/nightly/cron.log; "
        "echo All output: /srv/batchland/runs/nightly/cron.log; }\n"
        "# <<< batchland nightly\n"
    )


def test_percent_signs_are_escaped_and_everything_is_quoted():
    line = render(
        entry(
            job="a",
            command=("run", "it's 100%"),
            folder=Path("/srv/my $HOME"),
            log=Path("/log/%d"),
            environment={"PATH": "/bin", "NOTE": "50% off; rm"},
            schedule="@daily",
        )
    ).splitlines()[1]
    assert line == (
        "@daily cd '/srv/my $HOME' && NOTE='50\\% off; rm' PATH=/bin run 'it'\"'\"'s 100\\%' >>/log/\\%d 2>&1 "
        "|| { echo 'batchland a ended with exit code' $?:; tail -n 1 /log/\\%d; echo All output: /log/\\%d; }"
    )


def test_a_shell_with_an_empty_environment_runs_it_and_prints_a_failure(tmp_path):
    folder = tmp_path / "it's 100% ours"
    folder.mkdir()
    command = ("/bin/sh", "-c", 'echo "$PATH|$NOTE|$(pwd)"; exit 3')
    made = entry(command=command, folder=folder, log=folder / "log", environment={"PATH": "/usr/bin", "NOTE": "a b%"})
    line = render(made).splitlines()[1].removeprefix("30 3 * * * ").replace("\\%", "%")  # as cron hands it on
    result = subprocess.run(["/bin/sh", "-c", line], env={}, cwd="/", capture_output=True, text=True)
    assert result.stdout == (
        f"batchland nightly ended with exit code 3:\n/usr/bin|a b%|{folder}\nAll output: {folder}/log\n"
    )
    assert (result.stderr, (folder / "log").read_text()) == ("", f"/usr/bin|a b%|{folder}\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"folder": Path("/srv/a\nb")},
            r"^crontab: '\\n' is not allowed in a crontab line; rename the file or folder: ",
        ),
        ({"command": ("a\\b",)}, r"^crontab: '\\\\' is not allowed in a crontab line; rename the file "),
        ({"environment": {"X": "y" * 900}}, r"^crontab: the line for nightly has \d+ bytes and cron takes 990; "),
    ],
)
def test_lines_that_cron_cannot_read_are_rejected(changes, message):
    with pytest.raises(UsageError, match=message):
        render(entry(**changes))


@pytest.mark.parametrize("schedule", ["0 2 * *", "tonight", "0 2 * * * root", "@never", "0 2 * * %", ""])
def test_an_invalid_schedule_is_rejected(schedule):
    with pytest.raises(UsageError, match=r'is not five fields like "30 3 \* \* \*", nor a word like @daily'):
        check_schedule(schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("99 3 * * *", "has '99' as its minute, which goes from 0 to 59"),
        ("0 24 * * *", "has '24' as its hour, which goes from 0 to 23"),
        ("0 3 0 * *", "has '0' as its day of the month, which goes from 1 to 31"),
        ("0 3 * 13 *", "has '13' as its month, which goes from 1 to 12"),
        ("0 3 * * mon-fry", "has 'mon-fry' as its weekday, which goes from 0 to 7"),
        ("0 3 * * 1,8", "has '8' as its weekday, which goes from 0 to 7"),
        ("*/0 3 * * *", "has '*/0' as its minute, which goes from 0 to 59"),
        ("1--2 3 * * *", "has '1--2' as its minute, which goes from 0 to 59"),
    ],
)
def test_a_schedule_with_impossible_values_is_rejected(schedule, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        check_schedule(schedule)


@pytest.mark.parametrize(
    "schedule", ["*/15 0-23/2 1,15 * *", "05 03 * Jan-mar MON", "30  3 * * 0,7", "59 23 31 12 7", "5/10 3 * * *"]
)
def test_valid_schedules(schedule):
    check_schedule(schedule)


def test_install_replace_and_remove_keep_the_other_lines(table, tmp_path):
    table.write_bytes(OTHERS)
    mine, other = entry(log=tmp_path / "new" / "log"), entry(job="night", log=tmp_path / "log")
    install(mine)
    assert table.read_bytes() == OTHERS + render(mine).encode()
    assert (tmp_path / "new").is_dir()
    table.write_bytes(table.read_bytes() + b"# below\n")
    install(other)
    changed = dataclasses.replace(mine, schedule="30 3 * * 1-5")
    install(changed)
    whole = OTHERS + render(changed).encode() + b"# below\n" + render(other).encode()
    assert table.read_bytes() == whole
    assert (remove("nightly"), remove("nightly")) == (True, False)
    assert table.read_bytes() == OTHERS + b"# below\n" + render(other).encode()


def test_an_empty_crontab_is_created_and_removed(table, tmp_path):
    assert (read(), remove("nightly")) == ("", False)
    install(entry(log=tmp_path / "log"))
    assert read() == render(entry(log=tmp_path / "log"))
    assert remove("nightly")
    assert not table.exists()


def test_a_last_line_without_newline_gets_one(table, tmp_path):
    table.write_bytes(b"1 2 3 4 5 true")
    install(entry(log=tmp_path / "log"))
    assert table.read_text() == "1 2 3 4 5 true\n" + render(entry(log=tmp_path / "log"))


def test_an_entry_edited_by_hand_is_kept(table, tmp_path):
    made = entry(log=tmp_path / "log")
    begin, line, end = render(made).splitlines()
    for lines in ([begin, line, "6 6 * * * mine", end], [begin, line, "6 6 * * * mine"], ["6 6 * * * mine", end]):
        table.write_text("\n".join(lines) + "\n")
        for act in (lambda: install(made), lambda: remove("nightly")):
            with pytest.raises(UsageError, match=r"^crontab: the entry of nightly was edited by hand; remove"):
                act()
        assert table.read_text() == "\n".join(lines) + "\n"


def test_a_rejected_table_and_a_machine_without_crontab(table, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"^crontab: refused the new table and keeps the old one \(bad hour\)$"):
        install(entry(schedule="0 0 30 2 *", log=tmp_path / "log"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"^crontab: no such program; install cron, or use the systemd timer "):
        remove("nightly")


def test_the_copied_environment(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TZ"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHLAND_MODEL", "models/a.onnx")
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("SECRET", "s")
    path = "/venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert kept_environment(Path("/venv/bin")) == {"PATH": path, "BATCHLAND_MODEL": "models/a.onnx"}
    assert os.environ["PATH"] != path


def test_the_commands(table, tmp_path, toy_model, monkeypatch):
    monkeypatch.setattr("sys.executable", "/opt/venv/bin/python")
    for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TZ", "BATCHLAND_MODEL"):
        monkeypatch.delenv(name, raising=False)
    job = tmp_path / "jobs" / "nightly.toml"
    job.parent.mkdir()
    job.write_text('root = ".."\nimages = "incoming"\nmodel = "toy.onnx"\n')
    run = CliRunner().invoke
    lines = (
        "# >>> batchland nightly: made by `batchland cron install`, removed by `batchland cron remove`\n"
        f"30 1 * * * cd {tmp_path} && A=b=c PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin /opt/venv/bin/python "
        f"-m batchland run {job} >>{tmp_path}/runs/nightly/cron.log 2>&1 "
        f"|| {{ echo 'batchland nightly ended with exit code' $?:; tail -n 1 {tmp_path}/runs/nightly/cron.log; "
        f"echo All output: {tmp_path}/runs/nightly/cron.log; }}\n"
        "# <<< batchland nightly\n"
    )
    options = [str(job), "--schedule", "30 1 * * *", "--env", "A=b=c"]
    assert run(main, ["cron", "show", *options]).output == lines
    assert not table.exists()
    installed = f"Installed: nightly at '30 1 * * *', log {tmp_path}/runs/nightly/cron.log.\n"
    missing = "batchland: no process is called cron or crond; start the cron daemon, or nothing runs\n"
    for runs, errors in ((False, missing), (True, "")):
        monkeypatch.setattr("batchland.nightly.crontab.daemon_runs", lambda runs=runs: runs)
        result = run(main, ["cron", "install", *options])
        assert (result.exit_code, result.stdout, result.stderr) == (0, installed, errors)
    assert table.read_text() == lines
    for argument, message in ((str(job), "Removed: nightly.\n"), ("nightly", "There is no entry for nightly.\n")):
        assert run(main, ["cron", "remove", argument]).output == message
    for options, message in (
        (
            ["--schedule", "0 2 * *"],
            "crontab: schedule '0 2 * *' is not five fields like \"30 3 * * *\", nor a word like @daily",
        ),
        (["--env", "1A=b"], "crontab: environment '1A' is not a variable name"),
    ):
        result = run(main, ["cron", "show", str(job), *options])
        assert (result.exit_code, result.stderr) == (2, f"batchland: {message}\n")
    result = run(main, ["cron", "show", str(job), "--env", "A"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: --env takes NAME=VALUE, every NAME once")


def test_variables_that_may_be_secret_are_refused(tmp_path, toy_model, monkeypatch):
    """cron shows the line in the subject of its mails."""
    monkeypatch.setenv("HOOK", "https://example.org/marzipan")
    (tmp_path / "toy.toml").write_text('images = "in"\nmodel = "toy.onnx"\n[notify]\nwebhook = "${HOOK}"\n')
    job = load_job(tmp_path / "toy.toml")
    secret = dict.fromkeys(("SLACK_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "TEAMS_WEBHOOK", "HOOK"), "marzipan")
    for name, value in (secret | {"HTTPS_PROXY": "http://kim:marzipan@proxy:3128"}).items():
        with pytest.raises(UsageError) as caught:
            entry_of(job, variables={"LANG": "C", name: value})
        assert str(caught.value) == (
            f"crontab: {name} may be secret, and cron shows variables in its mails and in the system's log; put the "
            f"value into a file that only you may read, and write ${{file:PATH}} in {tmp_path}/toy.toml"
        )
    with pytest.raises(UsageError) as caught:
        entry_of(job, variables={"LANG": "C"})
    assert str(caught.value) == (
        f"crontab: cron does not set HOOK, which {tmp_path}/toy.toml uses, so every night would fail; put the value "
        f"into a file that only you may read, and write ${{file:PATH}} in {tmp_path}/toy.toml"
    )
    monkeypatch.delenv("HOOK")
    result = CliRunner().invoke(main, ["cron", "show", str(job.file), "--env", "HOOK=https://example.org/marzipan"])
    assert (result.exit_code, "crontab: HOOK may be secret" in result.stderr) == (2, True)
    (tmp_path / "toy.toml").write_text('images = "${SITE}/in"\nmodel = "toy.onnx"\n')
    monkeypatch.setenv("SITE", "/srv")
    result = CliRunner().invoke(main, ["cron", "show", str(job.file)])
    assert (result.exit_code, result.stderr) == (
        2,
        f"batchland: crontab: cron does not set SITE, which {tmp_path}/toy.toml uses, so every night would fail; give "
        "it with --env NAME=VALUE\n",
    )
    (tmp_path / "toy.toml").write_text('images = "${HOME}/in"\nmodel = "toy.onnx"\n')
    job = load_job(tmp_path / "toy.toml")
    harmless = {"LANG": "C", "HTTPS_PROXY": "http://proxy:3128", "GOOGLE_APPLICATION_CREDENTIALS": str(job.file)}
    assert harmless.items() <= entry_of(job, variables=harmless).environment.items()


def test_cron_mails_the_error_sentence_of_a_night(tmp_path, toy_model):
    (tmp_path / "toy.toml").write_text('images = "in/{date}"\nmodel = "toy.onnx"\ndate = "today"\ndevice = "cpu"\n')
    made = entry_of(load_job(tmp_path / "toy.toml"), variables={"PYTHONPATH": str(Path(__file__).parents[2])})
    made.log.parent.mkdir(parents=True)
    line = render(made).splitlines()[1].removeprefix("30 3 * * * ").replace("\\%", "%")
    result = subprocess.run(["/bin/sh", "-c", line], env={}, cwd="/", capture_output=True, text=True)
    today = local_today()
    code, error, log = result.stdout.splitlines()
    assert code == "batchland toy ended with exit code 66:"
    assert error == (
        f"batchland: job toy, {today}: missing input: {tmp_path}/in/{today}: does not exist; is the delivery late, or "
        f"`images` in {tmp_path}/toy.toml wrong?"
    )
    assert log == f"All output: {tmp_path}/runs/toy/cron.log"
    assert made.log.read_text().count("is the delivery late") == 1

"""One entry per job in the user's crontab: install, replace and remove it without changing any other line.

cron runs a line with /bin/sh, an almost empty environment and the home directory as its folder, and reads every `%` as
a line break. So the entry has absolute paths, sets its variables before the command, and escapes `%`. (A line
`NAME=value` of the crontab would apply to the other entries, too.)

    install(entry_of(load_job(Path("jobs/nightly.toml")), schedule="30 1 * * *"))
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchland.errors import OutputError, UsageError
from batchland.images.sources.web_names import is_secret, public_url
from batchland.nightly.job import Job
from batchland.system.paths import resolved
from batchland.system.text import first_few
from batchland.system.urls import is_url

EVERY_NIGHT: Final = "30 3 * * *"
"""Not between one and three: when summer time begins, one of these hours is missing, and some schedulers skip the
start."""
KEPT_VARIABLES: Final = ("BATCHLAND_MODEL", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TZ")
"""Copied from the environment in which the entry is installed."""
_OF_CRON: Final = ("HOME", "LOGNAME", "SHELL")
"""Variables that every cron daemon sets."""
MAX_LINE_BYTES: Final = 990
"""Bytes; Debian's cron refuses commands of 1000."""
_DAEMONS: Final = ("cron", "crond", "fcron")
"""Names of the processes of cron daemons."""
_NICKNAMES: Final = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "@reboot")
_FIELD: Final = r"[0-9A-Za-z*/,-]+"
_FIELDS: Final = (
    ("minute", range(60), ""),
    ("hour", range(24), ""),
    ("day of the month", range(1, 32), ""),
    ("month", range(1, 13), "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("weekday", range(8), "sun mon tue wed thu fri sat"),
)
"""The fields of a schedule: name, numbers, and names for the numbers."""
_SECRET_NAME: Final = re.compile(r"hook|connection_?string|(?:^|_)pat$", re.IGNORECASE)
"""Names of variables with a secret value, besides those that `is_secret` knows."""
_SPAN: Final = re.compile(r"(?:\*|([0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?)(?:/0*[1-9][0-9]*)?", re.IGNORECASE)


def check_schedule(text: str) -> None:
    """Raise UsageError unless cron can read this schedule."""
    where = f"crontab: schedule {text!r}"
    if text in _NICKNAMES:
        return
    if not re.fullmatch(rf"{_FIELD}(?: +{_FIELD}){{4}}", text):
        raise UsageError(f'{where} is not five fields like "30 3 * * *", nor a word like @daily')
    for field, (name, numbers, words) in zip(text.split(), _FIELDS, strict=True):
        for span in field.split(","):
            match = _SPAN.fullmatch(span)
            ends = [end for end in match.groups() if end] if match else [""]
            if not all(int(end) in numbers if end.isdecimal() else end.lower() in words.split() for end in ends):
                raise UsageError(f"{where} has {span!r} as its {name}, which goes from {numbers[0]} to {numbers[-1]}")


@dataclass(frozen=True)
class Entry:
    """The command that cron runs for a job, and its schedule. All paths are absolute."""

    job: str
    """Name of the job; identifies the entry."""
    command: tuple[str, ...]
    """The program and its arguments."""
    folder: Path
    """Working directory."""
    log: Path
    """The output of the command is appended to it."""
    environment: Mapping[str, str]
    """Variables to set."""
    schedule: str = EVERY_NIGHT
    """When to run, in the time zone of the cron daemon."""


def entry_of(
    job: Job, *, schedule: str = EVERY_NIGHT, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> Entry:
    """The entry that runs a job with this Python and the relevant part of this environment.

    log: by default `cron.log` in the job's folder of records. variables: to set in addition. Raises UsageError if the
    schedule or a variable is invalid, if the job file uses a variable that the entry does not set, or if a variable may
    be secret: cron shows the whole line in the subject of its mails and in the system's log, and lines that set
    variables in the header of its mails.
    """
    in_a_file = f"put the value into a file that only you may read, and write ${{file:PATH}} in {job.file}"
    check_schedule(schedule)
    for name, value in (variables or {}).items():
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"crontab: environment {name!r} is not a variable name")
        if _may_be_secret(job, name, value):
            raise UsageError(
                f"crontab: {name} may be secret, and cron shows variables in its mails and in the system's log; "
                + in_a_file
            )
    environment = kept_environment(Path(sys.executable).parent) | dict(variables or {})
    if missing := sorted(job.placeholders.variables - {*environment, *_OF_CRON}):
        secret = any(_may_be_secret(job, name, "") for name in missing)
        raise UsageError(
            f"crontab: cron does not set {first_few(missing)}, which {job.file} uses, so every night would fail"
            + (f"; {in_a_file}" if secret else ""),
            advice=None if secret else "cron_variable",
        )
    return Entry(
        job=job.name,
        command=(sys.executable, "-m", "batchland", "run", str(job.file)),
        folder=resolved(job.file.parent / job.root),
        log=(log or job.folder / "cron.log").absolute(),
        environment=environment,
        schedule=schedule,
    )


def _may_be_secret(job: Job, name: str, value: str) -> bool:
    """Whether a variable may be secret: by its use in the job file, by its name, or as a URL with a password.

    The path of an existing file is not secret.
    """
    if os.path.isfile(value):  # noqa: PTH113 - of a long value, Path raises OSError
        return False
    named = name in job.placeholders.secret_variables or is_secret(name) or _SECRET_NAME.search(name)
    return bool(named) or (is_url(value) and public_url(value) != value)


def render(entry: Entry) -> str:
    """The entry's lines in the crontab, between two marks.

    Raises UsageError if cron could not read the line.
    """
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(entry.environment.items()))
    command = " ".join(filter(None, (f"cd {shlex.quote(str(entry.folder))} &&", variables, shlex.join(entry.command))))
    log = shlex.quote(str(entry.log))
    # The output goes to the log, and its last line is the error. cron mails what is printed here: only failures.
    message = shlex.quote(f"batchland {entry.job} ended with exit code")
    mail = f"{{ echo {message} $?:; tail -n 1 {log}; echo All output: {log}; }}"
    line = f"{entry.schedule} {command} >>{log} 2>&1 || {mail}"
    if found := re.search(r"[\x00-\x1f\x7f\\]", line):
        raise UsageError(f"crontab: {found[0]!r} is not allowed in a crontab line; rename the file or folder: {line!r}")
    line = line.replace("%", r"\%")
    if (length := len(os.fsencode(line))) > MAX_LINE_BYTES:
        raise UsageError(
            f"crontab: the line for {entry.job} has {length} bytes and cron takes {MAX_LINE_BYTES}; use shorter paths, "
            f"or put variables into a script that calls batchland"
        )
    begin, end = _marks(entry.job)
    return f"{begin}\n{line}\n{end}\n"


def install(entry: Entry) -> None:
    """Put the entry into the user's crontab, replacing the job's earlier one.

    Raises UsageError without crontab or if it refuses the entry, OutputError if the log's folder cannot be made.
    """
    block = render(entry)
    try:
        entry.log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{entry.log.parent}: cannot be made for the log ({error.strerror})") from error
    table = read()
    start, stop = _find(table, entry.job) or (len(table), len(table))
    before = table[:start]
    if before and not before.endswith("\n"):
        before += "\n"
    _write(before + block + table[stop:])


def remove(job: str) -> bool:
    """Remove the job's entry from the user's crontab. Returns whether there was one.

    Raises UsageError without crontab.
    """
    table = read()
    span = _find(table, job)
    if span is not None:
        _write(table[: span[0]] + table[span[1] :])
    return span is not None


def read() -> str:
    """The user's crontab, empty if there is none. Raises UsageError without crontab, or if it may not be used."""
    code, table, message = _crontab("-l")
    if code == 0:
        return table
    if "no crontab for" in message:
        return ""
    raise UsageError(f"crontab: cannot be read ({message or code})")


def daemon_runs(processes: Path = Path("/proc")) -> bool:
    """Whether a cron daemon runs; also True where this is not known. processes: a folder like Linux's /proc."""
    if not (processes / "1/comm").exists():  # not Linux, or the processes of others are hidden
        return True
    for name in processes.glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended
            if name.read_text(errors="replace").strip() in _DAEMONS:
                return True
    return False


def kept_environment(folder: Path) -> dict[str, str]:
    """PATH with `folder` before the system's folders, and the KEPT_VARIABLES of this process."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if os.environ.get(name)}
    return {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"} | kept


def _write(table: str) -> None:
    code, _, message = _crontab("-", table) if table else _crontab("-r")
    if code != 0:
        raise UsageError(f"crontab: refused the new table and keeps the old one ({message})")


def _crontab(argument: str, table: str = "") -> tuple[int, str, str]:
    """Exit code, standard output, and the message in one line."""
    program = shutil.which("crontab")
    if program is None:
        raise UsageError("crontab: no such program; install cron, or use the systemd timer or the pod of cron/")
    result = subprocess.run(  # noqa: S603
        [program, argument],
        input=table.encode(errors="surrogateescape"),
        capture_output=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    message = " ".join(result.stderr.decode(errors="replace").split())
    # surrogateescape: the lines of others are written back byte for byte
    return result.returncode, result.stdout.decode(errors="surrogateescape"), message


def _marks(job: str) -> tuple[str, str]:
    return (
        f"# >>> batchland {job}: made by `batchland cron install`, removed by `batchland cron remove`",
        f"# <<< batchland {job}",
    )


def _find(table: str, job: str) -> tuple[int, int] | None:
    """Begin and end of the job's entry; None if there is none. Raises UsageError if it was edited by hand."""
    begin, end = (re.escape(mark) for mark in _marks(job))
    found = re.search(rf"^{begin}\n.*\n{end}(?:\n|\Z)", table, re.MULTILINE)
    if found is None and re.search(rf"^(?:{begin}|{end})$", table, re.MULTILINE):
        raise UsageError(f"crontab: the entry of {job} was edited by hand; remove its lines with `crontab -e`")
    return found.span() if found else None

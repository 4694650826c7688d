"""docs/operations.md agrees with the program: commands, exit codes, outcomes, alerts and files."""

import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from commands import batchland

from batchland import errors
from batchland.cli.main import main
from batchland.nightly.run_record import Outcome

FOLDER = Path(__file__).parents[2]
TEXT = (FOLDER / "docs" / "operations.md").read_text()
COMMANDS = sorted(
    {
        re.sub(r"\s+", " ", found).strip()
        for found in (*re.findall(r"`(batchland [^`]+)`", TEXT), *re.findall(r"^    (batchland [^#\n]+)", TEXT, re.M))
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_accepted(line):
    words = [
        {"FIRST": "2026-11-20", "LAST": "2026-11-22"}.get(word, word)
        for word in shlex.split(re.split(r" [|>] ", line)[0])[1:]
    ]
    command: click.Command = main
    words = words[words[:1] == ["--quiet"] :]  # an option of the program
    while isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    if words:  # else it is only named
        command.make_context(line, words)


def test_every_exit_code_and_outcome_is_explained():
    table = TEXT[TEXT.index("| code | outcome |") : TEXT.index("**Running a night again")]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:] if line]
    codes = {int(code) for row in rows for code in row[0].split(",")}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BatchlandError)
    ]
    raised = {kind.exit_code for kind in kinds if "exit_code" in vars(kind)} | {130, 143}
    assert codes == raised | {0, 137}
    outcomes = {row[1].strip("`") for row in rows if row[1]}
    assert outcomes == set(get_args(Outcome)) - {"running"}


def test_every_alert_is_explained():
    rules = yaml.safe_load((FOLDER / "cron" / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(re.findall(r"Batchland\w+", TEXT))


def test_links_are_not_broken():
    addresses = re.findall(r"\]\((\.\./[^)#]+)", TEXT)
    assert len(addresses) >= 7
    for address in addresses:
        assert (FOLDER / "docs" / address).exists(), address


def test_documented_files_are_the_files_of_a_night(tmp_path, toy_model, colour_folders):
    job = tmp_path / "nightly.toml"
    job.write_text(
        f'images = "{colour_folders}"\nmodel = "{toy_model}"\noutput = "predictions/nightly"\n'
        f'[evaluation]\nlabels = "{colour_folders}"\n'
    )
    batchland("run", job, "--date", "2026-11-23", "--future")
    table = TEXT[TEXT.index("| path | what |") : TEXT.index("Back up `runs/`")]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    left = [name.replace("MODEL", "toy") for name in named if not re.search(r"NAME|\.parts|\.lock|cron\.log", name)]
    assert len(left) == 7
    for name in left:
        assert (tmp_path / name).exists(), name

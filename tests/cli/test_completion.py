"""`batchland completion`: scripts that the shells accept, and what they offer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import batchland

from batchland.cli.main import main

BASH, FISH, ZSH = map(shutil.which, ("bash", "fish", "zsh"))


def offered(words: str, shell: str = "bash") -> list[str]:
    """The completions that click returns to the script of a shell, for the last of the words."""
    environment = {
        "_BATCHLAND_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = CliRunner().invoke(main, env=environment, prog_name="batchland", catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_commands_options_and_values_are_offered() -> None:
    assert offered("batchland co") == ["plain,compare", "plain,completion"]
    assert offered("batchland score --dev") == ["plain,--device"]
    assert offered("batchland train --precision ") == ["plain,auto", "plain,fp32", "plain,bf16"]
    assert offered("batchland job ch") == ["plain,check"]


@pytest.mark.parametrize("words", ["score pho", "score --out pre", "run jobs/n", "evaluate p", "merge p", "predict p"])
def test_files_are_offered_where_a_path_is_expected(words: str) -> None:
    assert offered(f"batchland {words}") == [f"file,{words.split(' ')[-1]}"]


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef batchland"), ("fish", "complete --no-files --command")])
def test_other_shells_have_a_script(shell: str, mark: str) -> None:
    result = batchland("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert mark in result.stdout
    assert f"_BATCHLAND_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "batchland"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchland "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(batchland("completion", "bash").stdout)
    typed = (
        f"source {tmp_path}/script\ncomplete -p batchland\n"
        "COMP_WORDS=(batchland score --dev) COMP_CWORD=2\n"
        "_batchland_completion batchland --dev score\necho ${COMPREPLY[@]}\n"
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run([str(BASH), "-c", typed], env=environment, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == (
        "complete -o nosort -F _batchland_completion batchland\n--device\n", "",
    )  # fmt: skip


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `batchland` is this program."""
    program = tmp_path / "batchland"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchland "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


@pytest.mark.skipif(FISH is None, reason="needs fish")
def test_fish_completes_with_the_script(tmp_path: Path, on_path: dict[str, str]) -> None:
    (tmp_path / "script.fish").write_text(batchland("completion", "fish").stdout)
    typed = f"source {tmp_path}/script.fish; complete --do-complete 'batchland ru'"
    result = subprocess.run([str(FISH), "--no-config", "-c", typed], env=on_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (
        0, "run\tRun one night of a job: score, evaluate,...\n",
    ), result.stderr  # fmt: skip


@pytest.mark.skipif(ZSH is None, reason="needs zsh")
def test_zsh_completes_with_the_script(tmp_path: Path, on_path: dict[str, str]) -> None:
    """As a user does: in an interactive zsh, whose completions a widget lists."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "_batchland").write_text(batchland("completion", "zsh").stdout)
    (tmp_path / ".zshrc").write_text(f"PS1='> '\nfpath+={folder}\nautoload -Uz compinit && compinit -u -D\n")
    typed = (
        "zmodload zsh/zpty\n"
        f"zpty z {ZSH} -i\n"
        "zpty -r z line '*> '\n"
        "zpty -w -n z $'batchland score --dev\\t'\n"
        "zpty -r z line '*--device*' && echo found\n"
        "zpty -d z\n"
    )
    environment = on_path | {"ZDOTDIR": str(tmp_path)}
    result = subprocess.run(
        [str(ZSH), "-f", "-c", typed], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "found\n", result.stderr

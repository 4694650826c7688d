"""The command line as a whole: every command explained, quick to start, errors as one line and an exit code."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from commands import batchland

import batchland as package
from batchland.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands(group=main, path=("batchland",)):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(commands())
EACH_COMMAND = pytest.mark.parametrize(("path", "command"), COMMANDS, ids=["-".join(path[1:]) for path, _ in COMMANDS])


@EACH_COMMAND
def test_every_command_has_an_example_and_a_row_in_the_readme(path, command):
    assert command.epilog, "no example"
    assert " ".join(path) in command.epilog
    assert command.help
    assert f"| `{' '.join(path)}" in README, "no row in README.md's table"


def test_every_command_and_flag_in_the_documentation_exists():
    wrong = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        for line in re.findall(r"(?:`|^    |^\$ )(batchland [^`#\n]+(?:\n[^`\n]+(?=`))?)", text, re.M):
            words = shlex.split(re.split(r" [|>] | && ", " ".join(line.split()))[0])[1:]
            command = main
            try:
                while isinstance(command, click.Group) and words and words[0] not in ("COMMAND", "--help", "--quiet"):
                    command = command.commands[words.pop(0)]
                if not isinstance(command, click.Group):
                    command.make_context(line, words)
            except (click.BadParameter, click.exceptions.Exit):
                pass  # only a part of a command, or placeholders
            except (click.UsageError, KeyError) as error:
                wrong.append(f"{path.name}: {line}: {error}")
    assert wrong == []


def test_every_extra_that_is_named_exists_and_the_readme_lists_them():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {
        name: set(",".join(re.findall(r"'(?:batchland|\.)\[([a-z,-]+)\]'", path.read_text())).split(",")) - {""}
        for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "batchland").rglob("*.py"))
        for name in [str(path.relative_to(ROOT))]
    }
    assert named["README.md"] == extras - {"bench", "demo", "dev"}
    assert {name: unknown for name, names in named.items() if (unknown := names - extras)} == {}


@EACH_COMMAND
def test_every_option_is_explained(path, command):
    unexplained = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert unexplained == []


def test_the_overview_cuts_no_sentence_short():
    result = CliRunner().invoke(main, ["--help"], terminal_width=80)
    assert "..." not in result.output.partition("Options:")[2]


def test_the_overview_lists_every_command_once_under_a_heading():
    listed = CliRunner().invoke(main, ["--help"]).output.partition("Try it:")[2].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == list(main.commands)
    assert [line for line in listed if line and not line.startswith("  ")] == [
        "Data and training:", "Models:", "Scoring:", "Evaluation:", "Nightly jobs:", "This machine:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [(["--help"], []), (["score", "--help"], ["pydantic"]), (["train", "--help"], ["pydantic"])],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments, imported):
    code = (
        "import sys; from batchland.cli.main import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "heavy = ('numpy', 'pyarrow', 'onnxruntime', 'torch', 'PIL', 'pydantic')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == str(imported)


def test_errors_are_one_line_on_stderr_and_an_exit_code(tmp_path, toy_model):
    missing = tmp_path / "none"
    result = batchland("score", missing, "--out", tmp_path / "p.parquet", "-m", toy_model)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"batchland: {missing}: does not exist; give a folder of images"


def test_a_file_instead_of_a_folder_suggests_other_commands(toy_model, tmp_path):
    result = batchland("score", toy_model, "--model", toy_model, "--out", tmp_path / "p.parquet")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        f"batchland: {toy_model}: is a file; give a folder of images, or classify single files with `batchland "
        "predict`; or name a list of them with --images",
    )


def test_score_prints_a_summary(tmp_path, toy_model, colour_folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (colour_folders / "broken.jpg").write_bytes(b"")
    for name in ("notes.txt", ".hidden.jpg", "README"):
        (colour_folders / name).touch()
    (colour_folders / "dangling.jpg").symlink_to("gone.jpg")
    for name in ("a.jpg", "b.jpg"):
        os.mkfifo(colour_folders / name)
    result = batchland("score", "labelled", "--out", "p.parquet", "--model", "toy.onnx", "--device", "cpu")
    assert result.exit_code == 0
    text = result.stdout
    assert text.startswith("Scored 10 images of labelled with toy on cpu (CPUExecutionProvider) in ")
    ignored = "6 ignored (.txt 1, dangling link 1, hidden 1, no extension 1, not a regular file 2)"
    assert f"9 ok, 1 failed (empty 1), {ignored}. Wall seconds: list " in text
    assert text.endswith("Predictions: p.parquet; manifest: p.manifest.json.\n")
    result = batchland("score", "labelled", "--out", "q.parquet", "--model", "toy.onnx", "--max-failed", "0")
    assert result.exit_code == 3
    assert "1 of 10 images failed (empty 1), more than max-failed 0 allows" in result.stderr


def test_score_takes_patterns_as_jobs_do(tmp_path, toy_model, colour_folders):
    out = tmp_path / "p.parquet"
    chosen = ("--include", "00.*/", "--include", "02.*/", "--exclude", "*/1.jpg")
    result = batchland("score", colour_folders, "--model", toy_model, "--device", "cpu", "--out", out, *chosen)
    assert result.exit_code == 0, result.output
    names = [f"{folder}/{number}.jpg" for folder in ("00.Red_Tower", "02.Blue_Lake") for number in (0, 2)]
    assert pq.read_table(out)["image"].to_pylist() == names


def test_inspect_prints_the_card(toy_model):
    result = batchland("inspect", toy_model)
    lines = result.stdout.splitlines()
    assert lines[:3] == ["name          toy", "architecture  dominant-colour", "created       2026-11-23T00:00:00Z"]
    assert lines[-4:] == [
        "classes       3",
        "            0 Red Tower  (00.Red_Tower)",
        "            1 Green Hill  (01.Green_Hill)",
        "            2 Blue Lake  (02.Blue_Lake)",
    ]
    as_json = batchland("inspect", toy_model, "--json")
    assert '"label": "Red Tower"' in as_json.stdout


def test_public_names_are_sorted_and_documented():
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert getattr(package, name).__doc__, f"{name} is not documented"
    assert not hasattr(package, "no_such_name")


def test_the_package_imports_nothing_until_asked():
    code = "import sys, batchland; print(sorted(name for name in sys.modules if name.startswith('batchland.')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "['batchland._version']\n"
    )

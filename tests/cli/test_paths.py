"""Paths that no command can use: loops of symbolic links, and a current folder that was removed."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commands import batchland

import batchland as package
from batchland.cli.main import main


def test_no_module_uses_the_resolve_of_pathlib():
    """It raises RuntimeError for a loop of links, which nobody expects; `batchland.system.paths.resolved` does not."""
    files = sorted(Path(package.__file__).parent.rglob("*.py"))
    assert [path.name for path in files if re.search(r"\.resolve\(", path.read_text())] == []


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ("score LOOP --out p.parquet -m toy.onnx", 2),
        ("score LOOP/x --out p.parquet -m toy.onnx", 2),
        ("score LOOP.tar --out p.parquet -m toy.onnx", 2),
        ("score LOOP.zip --out p.parquet -m toy.onnx", 2),
        ("score LOOP.parquet --out p.parquet -m toy.onnx", 2),
        ("score labelled --out LOOP -m toy.onnx", 74),
        ("score labelled --out LOOP/p.parquet -m toy.onnx", 74),
        ("score labelled --out LOOP/p -m toy.onnx", 74),
        ("score labelled --images LOOP.csv --out p -m toy.onnx", 2),
        ("score LOOP --images list.txt --out p -m toy.onnx", 2),
        ("score labelled --out p -m LOOP", 5),
        ("score labelled --out p -m toy.onnx --reuse LOOP", 2),
        ("score --plan LOOP --out p -m toy.onnx", 2),
        ("plan LOOP --out plan", 2),
        ("plan labelled --out LOOP", 74),
        ("plan labelled --images LOOP.csv --out plan", 2),
        ("predict LOOP -m toy.onnx", 3),
        ("inspect LOOP", 5),
        ("merge LOOP --out p.parquet", 2),
        ("evaluate LOOP --labels labelled --out report", 2),
        ("evaluate LOOP.parquet --labels labelled --out report", 2),
        ("similar LOOP LOOP.parquet", 2),
        ("data check LOOP", 2),
        ("data check labelled --samples LOOP.png", 0),
        ("run LOOP.toml", 2),
        ("job check LOOP.toml", 2),
        ("history toy --runs LOOP", 74),
        ("models list --registry LOOP", 2),
    ],
)
def test_a_loop_of_links_is_an_error_in_words(tmp_path, toy_model, colour_folders, monkeypatch, arguments, exit_code):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a.jpg\n")
    for suffix in ("", ".tar", ".zip", ".parquet", ".csv", ".png", ".toml"):
        Path(f"LOOP{suffix}").symlink_to(f"LOOP{suffix}")
    result = batchland(*arguments.split(), *(["--device", "cpu"] if arguments.startswith("score") else []))
    assert result.exit_code == exit_code, result.output


def _commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Each command with values for all that it needs."""
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from _commands(each, (*path, name))
            continue
        words = [*path, name]
        for parameter in each.params:
            if parameter.required:
                value = {"shell": "bash", "date": "2026-11-23", "night": "2026-11-23"}.get(parameter.name or "", "x")
                words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[-1], value]
        yield tuple(words)


def test_every_command_says_that_the_current_folder_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = {arguments: batchland(*arguments) for arguments in _commands()}
    problem = "batchland: the current folder does not exist any more; change to one that exists"
    assert {
        arguments: (result.exit_code, result.stderr.splitlines()[-1:])
        for arguments, result in said.items()
        if (result.exit_code, result.stderr.splitlines()[-1:]) != (2, [problem])
    } == {}
    assert batchland("--help").exit_code == batchland("score", "--help").exit_code == 0

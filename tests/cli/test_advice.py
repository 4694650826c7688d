"""The advice that the command line adds to errors: complete, filled in, and only where the command has the flag."""

import ast
from datetime import date
from pathlib import Path
from string import Formatter

import click
import pytest

import batchland
from batchland.cli.advice import _FLAG, ADVICE, with_advice
from batchland.cli.main import main
from batchland.errors import SuspiciousNightError, UsageError

PACKAGE = Path(batchland.__file__).parent


def raisers() -> list[tuple[str, str, set[str]]]:
    """Place in the code, key, and names of the values of each error with an advice."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "advice=" in text else ():
            if isinstance(node, ast.Call):
                given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                if isinstance(key := given.pop("advice", None), ast.Constant) and key.value is not None:
                    found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", key.value, set(given)))
    return found


def all_flags(command: click.Command) -> set[str]:
    if isinstance(command, click.Group):
        return {flag for each in command.commands.values() for flag in all_flags(each)}
    return {flag for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize(("where", "key", "values"), raisers())
def test_every_field_of_an_advice_is_filled_where_the_error_is_raised(where: str, key: str, values: set[str]) -> None:
    fields = {name for _, name, _, _ in Formatter().parse(ADVICE[key]) if name}
    assert fields <= values, f"{where} does not give {fields - values} to {ADVICE[key]!r}"


@pytest.mark.parametrize("key", ADVICE)
def test_every_flag_of_an_advice_is_an_option_of_a_command(key: str) -> None:
    assert set(_FLAG.findall(ADVICE[key])) <= all_flags(main)
    assert ADVICE[key][0].islower() or ADVICE[key].startswith("--")
    assert not ADVICE[key].endswith(".")


def test_advice_follows_the_message_where_the_command_has_the_flag() -> None:
    error = UsageError("labels: no predicted image has a label", advice="strip_prefix", prefix="test/")
    assert str(error) == "labels: no predicted image has a label"
    assert with_advice(error, {"--strip-prefix"}) == f"{error}; {ADVICE['strip_prefix'].format(prefix='test/')}"
    assert with_advice(error, {"--out"}) == str(error)
    assert with_advice(UsageError("x"), ()) == "x"


def test_advice_may_name_another_command() -> None:
    assert with_advice(UsageError("x", advice="adopt", model=Path("/my models/m.onnx")), ()) == (
        "x; add one with `batchland adopt '/my models/m.onnx' --out adopted.onnx`"
    )


def test_the_advice_about_a_night_has_commands_for_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = {"runs": Path("my runs"), "job_file": Path("jobs/toy.toml")}
    error = SuspiciousNightError("1 image", advice="suspicious", job="toy", night=date(2026, 11, 12), **where)
    assert with_advice(error, ()) == (
        f"1 image; to accept it: `batchland accept toy --date 2026-11-12 --runs '{tmp_path}/my runs'`; to replace it: "
        f"`batchland run {tmp_path}/jobs/toy.toml --date 2026-11-12 --force`"
    )

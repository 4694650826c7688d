"""Click options are made from the fields of option models; no field is missing or repeated."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field, field_validator

from batchland.__main__ import run
from batchland.cli.command import Command, command
from batchland.cli.data import download, split
from batchland.cli.evaluate import compare, evaluate
from batchland.cli.history import trend
from batchland.cli.main import main
from batchland.cli.options import Flag, build, options_of
from batchland.cli.score import score
from batchland.cli.train import export, train
from batchland.data.options import DownloadOptions, SplitOptions
from batchland.evaluation.options import CompareOptions, EvaluateOptions
from batchland.scoring.options import ScoreOptions
from batchland.system.field_texts import field_texts
from batchland.system.options import Options
from batchland.training.options import ExportOptions, TrainOptions
from batchland.trend.options import TrendOptions


class Baking(Options):
    """How to bake."""

    degrees: Annotated[int, Field(gt=0, le=300)] = 180
    """Temperature of the oven. More burns."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """How long. Default: until it is brown."""
    flour: Literal["rye", "wheat"] = "rye"
    """What it is made of."""
    toppings: tuple[str, ...] = ()
    """What goes on top."""
    weight: int = 2 * 10**9
    """Size of the dough, in bytes."""
    crust: bool = True
    """Bake a crust."""
    salt: bool = False
    """Add salt."""
    shares: dict[str, float] = Field(default={"a": 0.5, "b": 0.5})
    """Who gets how much."""
    recipe: Path | None = None
    """File to follow."""

    @field_validator("recipe")
    @classmethod
    def _text(cls, recipe: Path | None) -> Path | None:
        if recipe and recipe.suffix != ".txt":
            raise ValueError("should end in .txt")
        return recipe


@command(epilog="Example: bake")
@options_of(
    f"{__name__}:Baking",
    Flag("degrees", "-d", brief=True),
    "minutes",
    "flour",
    Flag("toppings", "--top", metavar="THING"),
    Flag("weight", metavar="GB"),
    "crust",
    "salt",
    Flag("shares", metavar="NAME=SHARE,..."),
    "recipe",
)
def bake(**values: object) -> None:
    """Bake."""
    values["shares"] = {}
    click.echo(build(Baking, values).model_dump_json())


HELP = """\
Usage: bake [OPTIONS]

  Bake.

Options:
  -d, --degrees INTEGER RANGE  Temperature of the oven.  [default: 180; 1<=x<=300]
  --minutes FLOAT RANGE        How long.  [default: until it is brown; x>0]
  --flour [rye|wheat]          What it is made of.  [default: rye]
  --top THING                  What goes on top. Repeatable.
  --weight GB                  Size of the dough, in GB.  [default: 2; x>0]
  --crust / --no-crust         Bake a crust.  [default: crust]
  --salt                       Add salt.
  --shares NAME=SHARE,...      Who gets how much.  [default: a=0.5,b=0.5]
  --recipe PATH                File to follow.
  --help                       Show this message and exit.

  Example: bake
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are not imported by name."""
    monkeypatch.setitem(
        __import__("sys").modules, __name__, __import__("types").SimpleNamespace(Baking=Baking, __file__=__file__)
    )


def test_the_help_shows_type_bounds_default_and_docstring_of_each_field() -> None:
    result = CliRunner().invoke(bake, ["--help"], prog_name="bake", max_content_width=100, terminal_width=100)
    assert result.output == HELP


def test_values_reach_the_model() -> None:
    assert CliRunner().invoke(bake, []).output == Baking(shares={}).model_dump_json() + "\n"
    given = ["-d", "200", "--minutes", "3", "--top", "a", "--top", "b", "--weight", "0.5", "--no-crust", "--salt"]
    assert CliRunner().invoke(bake, [*given, "--recipe", "pie.txt"]).output == (
        Baking(
            degrees=200, minutes=3.0, toppings=("a", "b"), weight=5 * 10**8, crust=False, salt=True, shares={},
            recipe=Path("pie.txt"),
        ).model_dump_json() + "\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--degrees", "0"], "Invalid value for '-d' / '--degrees': 0 is not in the range 1<=x<=300."),
        (["--flour", "corn"], "Invalid value for '--flour': 'corn' is not one of 'rye', 'wheat'."),
        (["--recipe", "pie.md"], "Invalid value for '--recipe': pie.md: should end in .txt"),
        (["--sugar"], "No such option '--sugar'. (Did you mean one of: '--salt', '--shares'?)"),
    ],
)
def test_usage_errors_print_the_usage_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(bake, arguments, prog_name="bake")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Usage: bake [OPTIONS]\nTry 'bake --help' for help.\n\nError: {message}\n"


@pytest.mark.parametrize(
    ("made", "model", "not_options"),
    [
        (score, ScoreOptions, {"time_limit", "job", "add_missing"}),
        (evaluate, EvaluateOptions, {"brightness_sample"}),
        (compare, CompareOptions, set()),
        (train, TrainOptions, set()),
        (export, ExportOptions, set()),
        (trend, TrendOptions, set()),
        (download, DownloadOptions, {"limits"}),
        (split, SplitOptions, set()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_field_is_an_option_with_its_text_and_default(
    made: click.Command, model: type[Options], not_options: set[str]
) -> None:
    options = {option.name: option for option in made.params if isinstance(option, click.Option)}
    assert set(model.model_fields) - set(options) == not_options
    for name, field in model.model_fields.items():
        if name in options and isinstance(field.default, bool | int | float | str) and field.default != "":
            expected = (field.default, round(field.default / 10**9)) if name == "cache_limit" else (field.default,)
            assert options[name].default in expected, name
        if name in options:
            first = " ".join(field_texts(model)[name].split()).partition(". ")[0].removesuffix(".")
            assert (options[name].help or "").startswith(re.sub(r"\bbytes\b", "GB", first)), name


@pytest.mark.parametrize("size", ["nan", "inf", "1e400"])
def test_sizes_must_be_finite(size: str) -> None:
    result = CliRunner().invoke(main, ["data", "download", "x.zip", "--max-size", size], prog_name="batchland")
    shown = "nan" if size == "nan" else "inf"
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for '--max-size': {shown} is not a finite size."


def test_long_values_are_shortened_in_messages() -> None:
    result = CliRunner().invoke(main, ["predict", "x.jpg", "--top-k", "9" * 5000], prog_name="batchland")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for '-k' / '--top-k': '99999")
    assert result.stderr.endswith("99' is not a valid integer range.\n")
    assert len(result.stderr.splitlines()[-1]) == len("Error: ") + 1000


def test_a_flag_of_the_program_behind_the_command_takes_no_value() -> None:
    result = CliRunner().invoke(main, ["score", "photos", "--quiet=1"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Option '--quiet' does not take a value.")


def _whole_numbers(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Option]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from _whole_numbers(each, (*path, name))
            continue
        for option in each.params:
            if isinstance(option, click.Option) and isinstance(option.type, type(click.INT)):
                yield " ".join((*path, name)), option


def test_every_number_that_costs_time_or_memory_has_an_upper_bound() -> None:
    unbounded = [
        f"{name} {option.opts[-1]}"
        for name, option in _whole_numbers(main)
        if not (isinstance(option.type, click.IntRange) and option.type.max) and option.name != "seed"
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    "option",
    ["--prefetch-factor 999999999999", "--batch-size 65537", "--num-workers 100000", "--decode-processes 1025",
     "--intra-op-threads 1025", "--part-size 10000001", "--top-k 1000001", "--shard 0/1000001"],
)  # fmt: skip
def test_too_large_numbers_are_usage_errors(option: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["score", str(tmp_path), "-o", str(tmp_path / "p"), "-m", "x", *option.split()])
    assert result.exit_code == 2
    assert option.split()[0] in result.output or "at most 1000000 shards are possible" in result.output


def test_ctrl_c_before_a_command_runs_is_an_interruption(monkeypatch):
    """Importing the model of the options takes a tenth of a second."""

    def press_ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Command, "parse_args", press_ctrl_c)
    result = CliRunner().invoke(main, ["plan", "photos", "--out", "plan"])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "batchland: interrupted\n")


def test_ctrl_c_while_commands_are_imported_is_an_interruption(monkeypatch, capsys):
    class Importing:
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "batchland.cli.main", Importing())
    with pytest.raises(SystemExit) as end:
        run()
    assert (end.value.code, *capsys.readouterr()) == (130, "", "batchland: interrupted\n")

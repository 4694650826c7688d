"""Options objects: frozen, with one-line errors for invalid values."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from batchland import (
    CompareOptions,
    EvaluateOptions,
    ExportOptions,
    Job,
    ReportOptions,
    ScoreOptions,
    TrainOptions,
)
from batchland.errors import UsageError
from batchland.system.options import Options
from batchland.trend.options import TrendOptions


class Oven(Options):
    """A nested object."""

    degrees: Annotated[int, Field(gt=0, le=300)] = 180
    """Celsius."""


class Bake(Options):
    """An options object."""

    bread: Literal["rye", "wheat"] = "rye"
    minutes: Annotated[float, Field(gt=0)] = 45.0
    oven: Oven = Oven()


def problem(make, **values):
    with pytest.raises(UsageError) as caught:
        make(**values)
    return str(caught.value)


def test_an_unknown_name_is_an_error_that_suggests_a_near_one():
    assert problem(Bake, minuts=3) == 'unknown option "minuts" (did you mean "minutes"?)'
    assert problem(Bake, degrees=3) == 'unknown option "degrees" (did you mean "oven.degrees"?)'
    assert problem(Bake, oven={"degree": 3}) == 'unknown option "oven.degree" (did you mean "oven.degrees"?)'
    assert problem(Bake, yeast=3) == 'unknown option "yeast" (known: bread, minutes, oven)'


def test_a_value_out_of_bounds_is_named_with_its_option():
    assert problem(Bake, bread="corn") == "\"bread\" = 'corn': should be 'rye' or 'wheat'"
    assert problem(Bake, minutes=0, oven={"degrees": 301}) == (
        '"minutes" = 0: should be greater than 0; "oven.degrees" = 301: should be less than or equal to 300'
    )
    assert problem(Bake, oven=3) == '"oven" = 3: should be a table'


class Kinds(Options):
    """A field of each type."""

    number: float | None = None
    count: int = 1
    flag: bool = False
    counts: tuple[int, ...] = ()
    text: str | int = ""


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("number", (1, 0.5, None), (True, "1", "nan")),
        ("count", (0, -1), (True, 1.0, "1", 2**64, -(2**64))),
        ("flag", (True, False), (0, 1, 1.0, "true", "")),
        ("counts", ((1, 2), [1]), ((True,), (1.0,), ("1",))),
        ("text", ("x", 3, "3"), (2**64,)),
    ],
)
def test_values_of_another_type_are_refused_rather_than_converted(name, accepted, refused):
    for value in accepted:
        kept = getattr(Kinds(**{name: value}), name)
        assert kept == (tuple(value) if isinstance(value, list) else value)
    for value in refused:
        assert problem(Kinds, **{name: value}).startswith(f'"{name}" = ')


def test_options_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Bake().minutes = 3


@pytest.mark.parametrize(
    "options",
    [
        CompareOptions,
        EvaluateOptions,
        ExportOptions,
        Job,
        ReportOptions,
        ScoreOptions,
        TrainOptions,
        TrendOptions,
    ],
)
def test_all_public_options_refuse_unknown_names_in_one_line(options):
    assert 'unknown option "no_such_option" (known: ' in problem(options, no_such_option=1)

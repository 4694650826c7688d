"""Option objects: what they refuse, in which words, and that TOML tables built on them keep their context."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo

from batchland.errors import UsageError
from batchland.system.options import Options


def _below(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context["root"], path) if info.context else path


class Baking(Options):
    """How to bake."""

    degrees: Annotated[int, Field(gt=0)] = 180
    """Temperature of the oven."""
    toppings: tuple[str, ...] = ()
    """What goes on top."""
    recipe: Annotated[Path, AfterValidator(_below)] = Path("cake")
    """File to follow."""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"degrees": 0}, 'Baking: "degrees" = 0: should be greater than 0'),
        (
            {"degrees": "hot"},
            "Baking: \"degrees\" = 'hot': should be a valid integer, unable to parse string as an integer",
        ),
        ({"degree": 3}, 'Baking: unknown option "degree" (did you mean "degrees"?)'),
        ({"flour": 3}, 'Baking: unknown option "flour"'),
        ({"toppings": "jam"}, 'Baking: "toppings" = \'jam\': should be a list, like ["one", "another"]'),
        (
            {"recipe": 3, "degrees": -1},
            'Baking: "degrees" = -1: should be greater than 0; "recipe" = 3: should be a path',
        ),
    ],
)
def test_wrong_options_raise_a_usage_error_that_names_them(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Baking(**values)
    assert str(caught.value) == message


def test_validating_a_table_passes_the_context_on_and_raises_what_pydantic_raises() -> None:
    assert Baking.model_validate({"recipe": "pie"}, context={"root": "/books"}).recipe == Path("/books/pie")
    with pytest.raises(ValidationError):
        Baking.model_validate({"degrees": 0})


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Baking().degrees = 200  # type: ignore[misc]

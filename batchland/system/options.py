"""The base class of all options objects. They are frozen and validated; an unknown name is an error with a suggestion.

Each option is one pydantic field with a type, a default and bounds. Its docstring is the text in `--help` and in the
documentation of job files. It may end in `Default: ...`, which explains a default of None.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from batchland.errors import UsageError
from batchland.system.names import display_path
from batchland.system.text import near_miss
from batchland.system.urls import is_url

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PLAIN: Final = {
    "model_type": "should be a table",
    "path_type": "should be a path",
    "dict_type": "should be a table",
    "tuple_type": 'should be a list, like ["one", "another"]',
    "string_pattern_mismatch": "should have only letters, digits, '.', '_' and '-', and begin with a letter or digit",
}
"""Messages for pydantic's error types that mention Python types or regular expressions."""


class Options(BaseModel):
    """Options of one command or function. Raises UsageError for an unknown name or a value out of bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    if not TYPE_CHECKING:  # pydantic's mypy plugin makes a better signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise UsageError(explain(error, type(self), "option")) from error

        # Otherwise pydantic would call __init__ for nested objects and for model_validate, too, and drop their context.
        __init__.__pydantic_base_init__ = True


def explain(error: ValidationError, options: type[BaseModel], noun: str) -> str:
    """A pydantic error as one line for users. noun: the user's word for a field: option, key."""
    first = {_path(each): each for each in reversed(error.errors())}  # a union has an error for each of its types
    wrong = [
        each
        for path, each in reversed(first.items())
        # for a list with invalid items, pydantic also reports that it is too short
        if each["type"] != "too_short" or not any(other[: len(path)] == path != other for other in first)
    ]
    return "; ".join(_explain_one(each, options, noun) for each in wrong)


def plain_message(error: ErrorDetails) -> str:
    """The problem with a value in words for users, such as `should be greater than 0`."""
    return _PLAIN.get(error["type"]) or re.sub(r"^(Value error, |Input (?=should)|String (?=should))", "", error["msg"])


def _explain_one(error: ErrorDetails, options: type[BaseModel], noun: str) -> str:
    path = _path(error)
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f'unknown {noun} "{name}" ({_suggestion(name, path, options)})'
    if error["type"] == "missing":
        return f'{noun} "{name}" is missing'
    problem = plain_message(error)
    value = display_path(error["input"]) if is_url(error["input"]) else error["input"]  # it may hold a password
    if not name or (error["type"] == "value_error" and isinstance(error["input"], Mapping)):  # of a whole table
        return problem
    return f'"{name}": {problem}' if isinstance(error["input"], Mapping) else f'"{name}" = {value!r}: {problem}'


def _path(error: ErrorDetails) -> tuple[str, ...]:
    """Names of the nested fields, without pydantic's names for the types of a union."""
    return tuple(part for part in map(str, error["loc"]) if part == "[key]" or (part != "str" and "[" not in part))


def _suggestion(name: str, path: tuple[str, ...], options: type[BaseModel]) -> str:
    known = list(_names(options))
    siblings = [each for each in known if tuple(each.split(".")[:-1]) == path[:-1]]
    near = near_miss(name, siblings) or next((each for each in known if each.split(".")[-1] == path[-1]), None)
    return f'did you mean "{near}"?' if near else f"known: {', '.join(siblings)}"


def _names(options: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all options, those of nested objects included."""
    for name, field in options.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _names(kind, f"{prefix}{name}.")

"""The base class of all options objects. They are frozen and validated; an unknown name is an error with a suggestion.

Each option is one pydantic field with a type, a default and bounds. Its docstring is the text in `--help` and in the
documentation of job files. It may end in `Default: ...`, which explains a default of None.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from batchland.errors import UsageError
from batchland.system.names import display_path
from batchland.system.text import near_miss, one_line
from batchland.system.urls import is_url

_LARGEST_INTEGER: Final = 2**53
"""Largest allowed whole number. JSON readers round larger ones."""
_SHOWN: Final = 100
"""Largest number of characters of a wrong value in a message."""
PositiveInt = Annotated[int, Field(gt=0)]
Workers = Annotated[int, Field(ge=0, le=1024)]
"""Threads or processes."""
BatchSize = Annotated[int, Field(gt=0, le=65_536)]
"""Images that are in memory together."""
Epochs = Annotated[int, Field(gt=0, le=1_000_000)]
Nights = Annotated[int, Field(gt=0, le=1_000_000)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _not_too_long(seconds: float) -> float:
    if seconds > LONGEST_SECONDS:
        raise ValueError("is longer than ten years")
    return seconds


LONGEST_SECONDS: Final = 3650 * 86400
Seconds = Annotated[PositiveFloat, AfterValidator(_not_too_long)]
"""A duration in seconds, at most ten years: the system's timers do not accept every number."""

_PLAIN: Final = {
    "model_type": "should be a table",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "path_type": "should be a path",
    "dict_type": "should be a table",
    "tuple_type": 'should be a list, like ["one", "another"]',
    "too_short": "should not be empty",
    "url_parsing": 'should be a URL, like "https://example.org/x"',
    "string_pattern_mismatch": "should have only letters, digits, '.', '_' and '-', and begin with a letter or digit",
}
"""Messages for pydantic's error types that mention Python types or regular expressions."""
_BOUNDS: Final = ("less_than", "less_than_equal", "greater_than", "greater_than_equal")


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

    @field_validator("*", mode="before")
    @classmethod
    def _right_type(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what pydantic would convert: true to 1, "8" to 8, 1 to true, a number to a date."""
        kinds = set(_leaf_types(cls.model_fields[str(info.field_name)].annotation))
        for each in value if isinstance(value, list | tuple) else (value,):
            _check_type(each, kinds)
        return value


def _leaf_types(annotation: Any) -> Iterator[type]:
    """The types in a union or a list."""
    if isinstance(annotation, type):
        yield annotation
    parts = get_args(annotation)
    for part in parts[:1] if get_origin(annotation) is Annotated else parts:
        yield from _leaf_types(part)


def _check_type(value: object, kinds: set[type]) -> None:
    """Raise ValueError for a bool, number or text that pydantic would convert to one of the kinds."""
    if not isinstance(value, bool | int | float | str):
        return
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"should be a number up to {_LARGEST_INTEGER}")
    if bool in kinds if isinstance(value, bool) else isinstance(value, tuple(kinds)):
        return
    if bool in kinds:
        raise ValueError("should be true or false")
    if float in kinds and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("should be a number")
    if int in kinds and float not in kinds:
        raise ValueError("should be a whole number")
    if dt.date in kinds and not isinstance(value, str):
        raise ValueError("should be a date, like 2026-11-23")


def explain(error: ValidationError, options: type[BaseModel], noun: str, hide: Callable[[str], str] = str) -> str:
    """A pydantic error as one line for users. noun: the user's word for a field: option, key.

    hide: removes secrets from wrong values, before they are shortened.
    """
    first = {_path(each): each for each in reversed(error.errors())}  # a union has an error for each of its types
    wrong = [
        each
        for path, each in reversed(first.items())
        # for a list with invalid items, pydantic also reports that it is too short
        if each["type"] != "too_short" or not any(other[: len(path)] == path != other for other in first)
    ]
    return "; ".join(_explain_one(each, options, noun, hide) for each in wrong)


def plain_message(error: ErrorDetails) -> str:
    """The problem with a value in words for users, such as `should be greater than 0`."""
    if error["type"] in _BOUNDS and isinstance(error["input"], float) and not math.isfinite(error["input"]):
        return "should be a finite number"  # pydantic finds nan too large
    return _PLAIN.get(error["type"]) or re.sub(r"^(Value error, |Input (?=should)|String (?=should))", "", error["msg"])


def _explain_one(error: ErrorDetails, options: type[BaseModel], noun: str, hide: Callable[[str], str]) -> str:
    path = _path(error)
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f'unknown {noun} "{name}" ({_suggestion(name, path, options)})'
    if error["type"] == "missing":
        return f'{noun} "{name}" is missing'
    problem = plain_message(error)
    value = hide(error["input"]) if isinstance(error["input"], str) else error["input"]
    value = display_path(value) if is_url(value) else value  # it may hold a password
    if not name:  # of the whole table
        return problem
    if isinstance(value, Mapping):
        return f'"{name}": {problem}'
    return f'"{name}" = {one_line(_literal(value), _SHOWN)}: {problem}'


def _literal(value: object) -> str:
    """A value as a job file writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 10**_SHOWN:
        return f"a number of more than {_SHOWN} digits"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _path(error: ErrorDetails) -> tuple[str, ...]:
    """Names of the nested fields, without pydantic's names for the types of a union."""
    return tuple(part for part in map(str, error["loc"]) if part == "[key]" or (part != "str" and "[" not in part))


def _suggestion(name: str, path: tuple[str, ...], options: type[BaseModel]) -> str:
    if len(path) > 1 and path[-1] in options.model_fields:
        return f'"{path[-1]}" belongs above all tables'
    known = list(_names(options))
    siblings = [each for each in known if tuple(each.split(".")[:-1]) == path[:-1]]
    near = next((each for each in known if each.split(".")[-1] == path[-1]), None) or near_miss(name, siblings)
    return f'did you mean "{near}"?' if near else f"known: {', '.join(siblings)}"


def _names(options: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all options, those of nested objects included."""
    for name, field in options.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _names(kind, f"{prefix}{name}.")

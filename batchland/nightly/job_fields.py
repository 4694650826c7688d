"""Types of the job file's fields: durations, paths below the job's root, dated paths, patterns."""

import datetime as dt
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from batchland.errors import BatchlandError
from batchland.images.sources.selection import pattern_matcher
from batchland.models.registry import Reference
from batchland.predictions.storage import Location, output_location, public_location
from batchland.system.options import LONGEST_SECONDS
from batchland.system.urls import is_url, split_url

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_NAME_BYTES: Final = 255
_BRACES: Final = re.compile(r"\{([^{}]*)\}|[{}]")
"""A field in braces, or a single brace."""
_DATE: Final = re.compile(r"date(?::(.+))?")
_DIRECTIVE: Final = re.compile("%(.?)", re.DOTALL)
_DIRECTIVES: Final = frozenset("aAbBcCdDeFgGhHIjmMpSuUVwWxXyYzZ%")
"""Letters behind a percent sign that strftime knows on every system."""
_DURATION: Final = r"\s*[0-9]+(\.[0-9]+)?\s*[smhd]\s*"


def _duration(value: object) -> dt.timedelta:
    if isinstance(value, dt.timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
        raise ValueError('is not a duration; write it like "90s", "10m", "3h" or "2d"')
    seconds = float(value.strip()[:-1]) * _UNITS[value.strip()[-1]]
    if seconds > LONGEST_SECONDS:
        raise ValueError("is longer than ten years")
    return dt.timedelta(seconds=seconds)


def in_seconds(value: dt.timedelta) -> str:
    """A duration as the job file writes it, like `90s`."""
    return f"{value.total_seconds():g}s"


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_duration),
    PlainSerializer(in_seconds, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["90s", "10m", "3h", "2d"]}),
]


def _not_zero(value: dt.timedelta) -> dt.timedelta:
    if not value:
        raise ValueError("is zero; give a longer time")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_not_zero)]


def _clock_time(value: object) -> object:
    if isinstance(value, dt.time):  # TOML has a type for times
        return value
    if not isinstance(value, str) or not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError('is not a time of the day; write it like "06:00"')
    return dt.time.fromisoformat(value)


ClockTime = Annotated[
    dt.time,
    BeforeValidator(_clock_time),
    PlainSerializer(lambda time: f"{time:%H:%M}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$", "examples": ["06:00"]}),
]


def below_root(path: Any, info: ValidationInfo) -> Any:
    """The path, a relative one below the job's `root`; a URL or a reference as it is.

    Raises ValueError for a name that no file can have.
    """
    if not isinstance(path, Path):
        return path
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MAX_NAME_BYTES:
        raise ValueError(f"has a name of {longest} bytes, more than the {_MAX_NAME_BYTES} that a file can have")
    return Path(info.context["root"], path.expanduser()) if info.context else path


def _undated(path: Any) -> Any:
    if _BRACES.search(str(path)):
        raise ValueError("only images and labels may contain {date}")
    return path


def _template(path: Location) -> Location:
    expand(path, dt.date(2000, 1, 1))
    return path


def _location(value: object) -> object:
    """A URL as it is, a file:// URL and any other text as a path."""
    if isinstance(value, str) and is_url(value):
        return output_location(value)
    return Path(value) if isinstance(value, str) else value


def _usable_url(location: Location) -> Location:
    if isinstance(location, str):
        split_url(location)
    return location


def checked_by(check: Any) -> Any:
    """A validator that calls `check(value)`, and turns its BatchlandError into a ValueError for pydantic."""

    def validate(value: Any) -> Any:
        try:
            if value is not None:
                check(value)
        except BatchlandError as error:
            raise ValueError(str(error)) from error
        return value

    return validate


def _no_url(path: Any) -> Any:
    if isinstance(path, str) and is_url(path):
        raise ValueError("is a URL; only images and output may be URLs, everything else is a path of this machine")
    return path


def _path_or_reference(value: object) -> object:
    if isinstance(value, Path | Reference):
        return value
    if not isinstance(value, str):
        raise ValueError("should be the path of a model, or NAME@ALIAS of the registry")
    return Reference.parse(value) or _no_url(value)


def amount_of(text: str, total: float | Fraction) -> Fraction:
    """A number, like `20`, or a percentage of `total`, like `1.5%`. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,15}|[0-9]{1,15}(\.[0-9]{1,15})?%", text):
        raise ValueError('is neither a number nor a percentage; write it like 20 or "1.5%"')
    return Fraction(text.removesuffix("%")) / 100 * Fraction(total) if text.endswith("%") else Fraction(text)


def _amount(value: object) -> object:
    if type(value) is int:
        value = str(value)
    if isinstance(value, float):
        raise ValueError('is neither a whole number nor a percentage; write it like 20 or "1.5%"')
    if isinstance(value, str):
        amount_of(value, 0)
    return value


def _percentage(value: object) -> object:
    if not isinstance(value, str) or not value.endswith("%"):
        raise ValueError('is not a percentage; write it like "50%"')
    return _amount(value)


Amount = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "examples": [20, "1.5%"]}),
]
"""A number or a percentage, as text; see `amount_of`."""
Percentage = Annotated[
    str,
    BeforeValidator(_percentage),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?%$", "examples": ["50%"]}),
]


def _share(value: str) -> str:
    if amount_of(value, 1) > 1:
        raise ValueError("is more than 100%")
    return value


Share = Annotated[Percentage, AfterValidator(_share)]
"""A percentage up to 100%."""
JobPath = Annotated[Path, BeforeValidator(_no_url), AfterValidator(_undated), AfterValidator(below_root)]
"""Relative ones are below the job's `root`."""
DatedPath = Annotated[Path, BeforeValidator(_no_url), AfterValidator(_template), AfterValidator(below_root)]
"""May contain `{date}` or, as in strftime, `{date:%Y/%m/%d}`."""
_PUBLIC: Final = (
    PlainSerializer(lambda location: str(public_location(location)), return_type=str),  # a URL may hold a password
    WithJsonSchema({"type": "string"}),
)
JobLocation = Annotated[
    Location,
    BeforeValidator(_location),
    AfterValidator(checked_by(_usable_url)),
    AfterValidator(_undated),
    AfterValidator(below_root),
    *_PUBLIC,
]
"""A JobPath or a URL."""
JobModel = Annotated[
    Path | Reference,
    BeforeValidator(_path_or_reference),
    AfterValidator(_undated),
    AfterValidator(below_root),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A JobPath, or `NAME@ALIAS` of a registry."""
DatedLocation = Annotated[
    Location,
    BeforeValidator(_location),
    AfterValidator(checked_by(_usable_url)),
    AfterValidator(_template),
    AfterValidator(below_root),
    *_PUBLIC,
]
"""A DatedPath or a URL."""
Patterns = Annotated[tuple[str, ...], AfterValidator(checked_by(pattern_matcher))]


AnyLocation = TypeVar("AnyLocation", Path, str, Location)


def expand(path: AnyLocation, date: dt.date) -> AnyLocation:
    """`path` with its `{date}` and `{date:%Y/%m/%d}` filled in. Raises ValueError for other braces."""

    def fill(braces: re.Match[str]) -> str:
        if braces[1] is None:
            raise ValueError(f"has a single {braces[0]}; write {{date}} or {{date:%Y/%m/%d}}")
        found = _DATE.fullmatch(braces[1])
        if not found:
            raise ValueError(f"{braces[0]} is unknown; write {{date}} or {{date:%Y/%m/%d}}")
        if unknown := set(_DIRECTIVE.findall(found[1] or "")) - _DIRECTIVES:
            raise ValueError(f"{braces[0]} has the unknown %{min(unknown)}; write {{date}} or {{date:%Y/%m/%d}}")
        return date.strftime(found[1]) if found[1] else date.isoformat()

    return type(path)(_BRACES.sub(fill, str(path)))

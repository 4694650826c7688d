"""Base of all option objects: frozen, checked when made, explained by the docstrings of their fields.

A field's docstring is also its text in `--help` and in the schema of job files. It may end in `Default: ...`, which
says what None stands for.
"""

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from batchland.errors import UsageError
from batchland.system.text import near_miss

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PLAIN: Final = {
    "model_type": "should be a table",
    "path_type": "should be a path",
    "dict_type": "should be a table",
    "tuple_type": 'should be a list, like ["one", "another"]',
}
"""Messages by pydantic's error type, where pydantic names Python's types."""
_PREFIX: Final = re.compile(r"^(Value error, |Input (?=should)|String (?=should))")


class Options(BaseModel):
    """Base of option objects. A wrong value or an unknown name raises UsageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            reasons = "; ".join(self._explain(each) for each in error.errors())
            raise UsageError(f"{type(self).__name__}: {reasons}") from error

    # model_validate() then works as without an __init__ here: it passes its context on and raises ValidationError.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def _explain(cls, error: ErrorDetails) -> str:
        name = ".".join(map(str, error["loc"]))
        if error["type"] == "extra_forbidden":
            near = near_miss(name, cls.model_fields)
            return f'unknown option "{name}"' + (f' (did you mean "{near}"?)' if near else "")
        return f'"{name}" = {error["input"]!r}: {plain_message(error)}' if name else plain_message(error)


def plain_message(error: ErrorDetails) -> str:
    """What is wrong with a value, such as `should be greater than 0`, without the terms of Python and pydantic."""
    return _PLAIN.get(error["type"]) or _PREFIX.sub("", error["msg"])

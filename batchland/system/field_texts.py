"""The docstrings of the fields of pydantic models, for `--help` and for schemas/.

pydantic can read them when a class is defined (`use_attribute_docstrings`), but that would make every command slower.
"""

import ast
import inspect
import textwrap
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema


@cache
def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings of fields by name, with inherited fields. Empty if the source code is missing."""
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            with suppress(OSError):
                texts |= _docstrings(inspect.getsource(each))
    return texts


def _docstrings(source: str) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


class DescribedJsonSchema(GenerateJsonSchema):
    """Gives each property the docstring of its field, for `model_json_schema(schema_generator=...)`."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of one model."""
        made = super().model_schema(schema)
        for name, text in field_texts(schema["cls"]).items():
            if name in made.get("properties", {}):
                made["properties"][name].setdefault("description", text)
        return made

"""The shape of every file that batchland writes: Arrow schemas of tables, pydantic models of JSON documents.

`schemas/*.json` at the top of the repository is generated from here by `make schemas`.
"""

from datetime import datetime
from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    """A column that carries its own description; it is stored in the files, too."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


class Document(BaseModel):
    """Base of the JSON documents: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def _zoned(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_zoned)]
"""A time in ISO 8601 with the zone's offset."""
Count = Annotated[int, Field(ge=0)]

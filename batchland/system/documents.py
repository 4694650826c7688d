"""The base of the JSON documents that batchland writes, and types of their fields.

`make schemas` generates `schemas/*.json` at the top of the repository from the documents and the Arrow schemas.
"""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Document(BaseModel):
    """Base of the JSON documents and of their parts: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def _zoned(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_zoned)]
"""A time in ISO 8601 with the zone's offset."""
Count = Annotated[int, Field(ge=0)]

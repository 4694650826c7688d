"""Which nights a trend shows, and what it compares them with."""

from datetime import date
from typing import Annotated, Self

from pydantic import Field, model_validator

from batchland.system.options import Options


class TrendOptions(Options):
    """Which nights a trend shows, and what it compares them with."""

    reference_nights: Annotated[int, Field(ge=1)] = 7
    """Compare each version of a model (by sha256) with this many of its first good nights."""
    reference: tuple[date, date] | None = None
    """Compare all versions with the good nights between these two dates, both included, instead."""
    nights: Annotated[int, Field(ge=1)] = 90
    """Nights on the page, the latest ones; the table holds all."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.reference and self.reference[0] > self.reference[1]:
            raise ValueError("the reference ends before it begins")
        return self

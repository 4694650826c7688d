"""Which nights a trend shows, and what it compares them with."""

from datetime import date

from pydantic import field_validator

from batchland.system.options import Nights, Options


class TrendOptions(Options):
    """Which nights a trend shows, and what it compares them with."""

    reference_nights: Nights = 7
    """Compare each version of a model (by sha256) with this many of its first good nights, or those since the last
    accepted change."""
    reference: tuple[date, date] | None = None
    """Compare all versions with the good nights between these two dates, both included, instead."""
    nights: Nights = 90
    """Nights on the page, the latest ones; the table holds all."""
    map: bool = True
    """Draw a map of images of the last 14 nights where their predictions have features, which takes some seconds."""

    @field_validator("reference")
    @classmethod
    def _in_order(cls, reference: tuple[date, date] | None) -> tuple[date, date] | None:
        if reference and reference[0] > reference[1]:
            raise ValueError("ends before it begins; give the earlier date first")
        return reference

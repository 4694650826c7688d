"""Modification times, in microseconds since 1970, UTC."""

from typing import Final

_FIRST_US: Final = -62_135_596_800_000_000
_END_US: Final = 253_402_300_800_000_000


def known_time(modified_us: int) -> int | None:
    """The time if it is in the years 1 to 9999, which Python and data frames can represent; None otherwise."""
    return modified_us if _FIRST_US <= modified_us < _END_US else None

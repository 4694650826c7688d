"""Numbers as people read them, the same on the page, on the terminal and in Markdown."""

import difflib
import re
import unicodedata
from collections.abc import Collection
from typing import Protocol

NONE = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """0.8123 -> `81.2%`. 100% and 0% are said of nothing else than 1 and 0."""
    if value is None:
        return NONE
    text = f"{value * 100:.{digits}f}"
    if float(text) == 100 and value < 1:
        text = f"{100 - 10**-digits:.{digits}f}"
        return f">{text}%"
    if float(text) == 0 and value > 0:
        return f"<{10**-digits:.{digits}f}%"
    return f"{text}%"


class HasInterval(Protocol):
    """A figure with a confidence interval."""

    @property
    def low(self) -> float | None:
        """Lower end, or None without an interval."""

    @property
    def high(self) -> float | None:
        """Upper end, or None without an interval."""


def interval(figure: HasInterval | None) -> str:
    """`79.0 to 83.3%`, or nothing without an interval."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.low * 100:.1f} to {figure.high * 100:.1f}%"


def count(value: int) -> str:
    """12345 -> `12,345`."""
    return f"{value:,}"


def images(value: int) -> str:
    """`1 image`, `12,345 images`."""
    return f"{value:,} image{'' if value == 1 else 's'}"


def files(value: int) -> str:
    """`1 file`, `12,345 files`."""
    return f"{value:,} file{'' if value == 1 else 's'}"


def points(value: float) -> str:
    """A difference of two shares, in percentage points, with its sign if it is one."""
    tenths = round(value * 100, 1) + 0.0  # never -0.0
    return f"{tenths:{'+' if tenths else ''}.1f}".replace("-", "\N{MINUS SIGN}") + " points"


def p_value(value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def visible(text: str) -> str:
    """A name without characters that move or hide others: control and direction marks become their code in brackets."""
    return "".join(f"[U+{ord(sign):04X}]" if _hides(sign) else sign for sign in text)


def one_line(text: str, limit: int) -> str:
    """A name for a terminal or a narrow table: visible, and cut in the middle."""
    text = visible(text)
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[-half:]}"


def markdown_text(text: str) -> str:
    """A name inside a Markdown table: visible, nothing in it taken for markup."""
    return re.sub(r"([\\`*_\[\]<#|~])", r"\\\1", visible(text))


def _hides(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and sign != "\N{ZERO WIDTH JOINER}"


def near_miss(name: str, known: Collection[str]) -> str | None:
    """The known name that looks most like `name`, whatever its case."""
    folded = {candidate.casefold().strip(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold().strip(), folded, n=1, cutoff=0.75)
    return folded[near[0]] if near else None

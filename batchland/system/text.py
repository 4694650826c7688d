"""Numbers, names, lists and tables as text, the same on pages, on the terminal and in Markdown."""

import difflib
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

NONE = "–"
SAFE_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What jobs, models and aliases may be called: these are names of folders, too."""


def percent(value: float | None) -> str:
    """0.8123 -> `81.2%`. Never rounds to 0% or 100%."""
    if value is None:
        return NONE
    text = f"{value * 100:.1f}%"
    if text == "100.0%" and value < 1:
        return ">99.9%"
    if text == "0.0%" and value > 0:
        return "<0.1%"
    return text


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
    return ends(figure.low, figure.high)


def ends(low: float, high: float) -> str:
    """`79.0 to 83.3%`, `99.8 to >99.9%`: each end as by `percent`."""
    return f"{percent(low).removesuffix('%')} to {percent(high)}"


def count(value: int) -> str:
    """12345 -> `12,345`."""
    return f"{value:,}"


def counted(value: int, noun: str, plural: str | None = None) -> str:
    """`1 night`, `12,345 nights`. plural: by default, `noun` with an s."""
    return f"{count(value)} {noun if value == 1 else plural or f'{noun}s'}"


def ignored_files(kinds: Mapping[str, int]) -> str:
    """`, 3 ignored (.zip)`, `, 5 ignored (.txt 2, .zip 3)`, or nothing. kinds: numbers of unlisted files."""
    named = [f"{visible(kind)}{f' {number:,}' if len(kinds) > 1 else ''}" for kind, number in kinds.items()]
    return f", {sum(kinds.values()):,} ignored ({', '.join(named)})" if kinds else ""


def accepted_and_asked(decisions: Mapping[str, int]) -> str:
    """`, 812 to accept, 188 to ask about`, or nothing. decisions: numbers of images by decision."""
    if not decisions:
        return ""
    return f", {decisions.get('accept', 0):,} to accept, {decisions.get('ask', 0):,} to ask about"


def images(value: int) -> str:
    """`1 image`, `12,345 images`."""
    return counted(value, "image")


def files(value: int) -> str:
    """`1 file`, `12,345 files`."""
    return counted(value, "file")


def first_few(names: Collection[str], shown: int = 3) -> str:
    """`a, b, c`, or with more names `a, b, c and 12 more`; `a; b, with a comma; c`."""
    some = list(names)[:shown]
    first = ("; " if any(", " in name for name in some) else ", ").join(some)
    return f"{first} and {count(len(names) - shown)} more" if len(names) > shown else first


def aligned(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """A line for each row, columns two spaces apart and as wide as their widest cell on a terminal.

    align: for each column `<` (left) or `>` (right).
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padding = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + pad if side == "<" else pad + cell for cell, pad, side in zip(row, padding, align, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns of a terminal: two for a wide East Asian character, none for a combining one."""
    return sum(0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def points(value: float) -> str:
    """A difference of two shares in percentage points, with its sign: `+1.2 points`, `0.0 points`."""
    tenths = round(value * 100, 1) + 0.0  # never -0.0
    return f"{tenths:{'+' if tenths else ''}.1f}".replace("-", "\N{MINUS SIGN}") + " points"


def p_value(value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def visible(text: str) -> str:
    """Replace control characters and other invisible ones, such as direction marks, by their code: `[U+202E]`."""
    return "".join(f"[U+{ord(sign):04X}]" if _is_invisible(sign) else sign for sign in text)


def reason(error: BaseException) -> str:
    """Why something failed, in words: of an error of the system without its number."""
    return visible(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def first_line(error: BaseException) -> str:
    """The first line of an error's message: those of libraries go on with traces and advice."""
    return str(error).partition("\n")[0]


def one_line(text: str, limit: int) -> str:
    """`visible` text of at most `limit` characters, shortened in the middle."""
    text = visible(text)
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[-half:]}"


def slice_value(text: str) -> str:
    """A value of a column, shortened to one line; `(none)` for an empty one."""
    return one_line(text, 80) or "(none)"


def markdown_text(text: str) -> str:
    """`visible` text with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<#|~])", r"\\\1", visible(text))


def _is_invisible(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and sign != "\N{ZERO WIDTH JOINER}"


def near_miss(name: str, known: Collection[str]) -> str | None:
    """The known name most similar to `name`, ignoring case; None if none is similar."""
    folded = {candidate.casefold().strip(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold().strip(), folded, n=1, cutoff=0.75)
    return folded[near[0]] if near else None

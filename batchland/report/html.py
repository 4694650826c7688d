"""Render the templates. Jinja escapes all text, and a page requests nothing."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchland.report import plots
from batchland.system import text
from batchland.system.files import Replaceable, check_new_file

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).parent / "templates"
LONG_TABLE: Final = 30
"""Rows; a longer table scrolls in its own box."""
FIRST_ROWS: Final = 50
"""Rows of a longer table that are shown at first."""


_HEAD_BYTES: Final = 4096
"""Within which a page names its template."""


def render_page(template: str, *, folder: Path = TEMPLATES, scripts: Sequence[str] = (), **context: Any) -> str:
    """Render a template of `folder` as one HTML document.

    scripts: names of templates/*.js that the page needs besides page.js. The content security policy allows only
    these, by hash.
    """
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", *scripts))
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment(folder)
        .get_template(template)
        .render(script=script, script_hash=digest, style=style, generator=_generator(template), **context)
    )


def check_new_page(
    path: Path, template: str, what: str, reads: Iterable[Path] = (), *, overwrite: bool = False
) -> None:
    """`check_new_file` for a page, .html, which replaces only an earlier page of the same template (or `overwrite`).

    what: for messages, as in Replaceable.
    """
    earlier = Replaceable(what, partial(is_page_of, template=template))
    check_new_file(path, ".html", reads, replaces=earlier, overwrite=overwrite)


def is_page_of(path: Path, template: str) -> bool:
    """Whether an existing file is a page of this template."""
    mark = f'<meta name="generator" content="{_generator(template)}">'.encode()
    with path.open("rb") as file:
        return mark in file.read(_HEAD_BYTES)


def _generator(template: str) -> str:
    return f"batchland {template.partition('.')[0]}"


@lru_cache
def _environment(folder: Path) -> "Environment":
    """folder: may extend and include this room's templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader((folder, TEMPLATES)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("percent", "interval", "count", "images", "points", "p_value", "visible")
    environment.filters |= {name: getattr(text, name) for name in names}
    environment.globals |= {"plot": plots, "first_rows": FIRST_ROWS}
    return environment

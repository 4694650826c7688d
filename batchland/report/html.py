"""Render the templates. Jinja escapes all text, and a page requests nothing."""

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchland._version import __version__
from batchland.report import plots
from batchland.report.options import ReportOptions
from batchland.system import text
from batchland.system.files import Replaceable, check_new_file
from batchland.system.input_mark import HEAD_BYTES, has_mark, input_mark

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).parent / "templates"
LONG_TABLE: Final = 30
"""Rows; a longer table scrolls in its own box."""
FIRST_ROWS: Final = 50
"""Rows of a longer table that are shown at first."""


def render_page(
    template: str,
    *,
    folder: Path = TEMPLATES,
    scripts: Sequence[str] = (),
    inputs: Sequence[str] = (),
    **context: Any,
) -> str:
    """Render a template of `folder` as one HTML document.

    scripts: names of templates/*.js that the page needs besides page.js. The content security policy allows only
    these, by hash. inputs: what the page is made from, for `check_new_page`.
    """
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", *scripts))
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment(folder)
        .get_template(template)
        .render(
            script=script,
            script_hash=digest,
            style=style,
            generator=_generator(template),
            mark=input_mark(inputs),
            **context,
        )
    )


def check_new_page(path: Path, template: str, what: str, options: ReportOptions) -> None:
    """`check_new_file` for a page, .html, which replaces only an earlier page of the same template and inputs.

    what: for messages, as in Replaceable.
    """
    earlier = Replaceable(what, lambda page: is_page_of(page, template) and has_mark(page, options.inputs))
    check_new_file(path, ".html", map(Path, options.inputs), replaces=earlier, overwrite=options.overwrite)


def is_page_of(path: Path, template: str) -> bool:
    """Whether an existing file is a page of this template."""
    mark = f'<meta name="generator" content="{_generator(template)}">'.encode()
    with path.open("rb") as file:
        return mark in file.read(HEAD_BYTES)


def _generator(template: str) -> str:
    return f"batchland {template.partition('.')[0]}"


@lru_cache
def environment(folder: Path) -> "Environment":
    """Settings of Jinja, and the filters. folder: of templates, which may extend and include this room's."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader((folder, TEMPLATES)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("percent", "interval", "ends", "count", "images", "points", "p_value", "slice_value", "visible")
    environment.filters |= {name: getattr(text, name) for name in names}
    environment.globals |= {"plot": plots, "first_rows": FIRST_ROWS, "version": __version__}
    return environment

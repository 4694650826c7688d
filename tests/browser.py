"""A real browser for the tests of pages: the system's Chromium, driven by Playwright, its network log kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first needs a third of the others' CPU time for a page."""
EXECUTABLE = next(filter(None, map(shutil.which, PROGRAMS)), None)
needs_browser = pytest.mark.skipif(EXECUTABLE is None, reason=f"needs {' or '.join(PROGRAMS)} on the PATH")
LOOKS = {"light": {"width": 1280, "height": 900}, "dark": {"width": 390, "height": 844}}
"""Colour schemes, and the window that each is tested in: of a desktop, and of a phone."""


class Opened:
    """A page, and all that it logged, threw, asked for or popped up."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.logged: list[str] = []
        self.requested: list[str] = []
        self._listeners = {
            "console": lambda message: self.logged.append(message.text),
            "pageerror": lambda error: self.logged.append(str(error)),
            "dialog": lambda dialog: self.logged.append(f"dialog: {dialog.message}"),
            "request": lambda request: self.requested.append(request.url),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)
        self.address = path.resolve().as_uri()
        self.look("light")
        page.goto(self.address)

    def look(self, scheme: str) -> None:
        """Give the window the size and colours of one of LOOKS."""
        self.page.set_viewport_size(LOOKS[scheme])
        self.page.emulate_media(media="null", color_scheme=scheme)

    def leave(self) -> None:
        """Make the window as good as new."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.page.evaluate("localStorage.clear()")
        self.page.goto("about:blank")
        for other in self.page.context.pages:
            if other is not self.page:
                other.close()

    def assert_quiet(self) -> None:
        """Assert that the page logged and raised nothing and requested only itself and embedded data."""
        assert self.logged == []
        assert [url for url in self.requested if not url.startswith("data:")] == [self.address]


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()


_windows: dict[Any, Any] = {}
"""By browser and options the window in which pages are opened one after the other: a new one costs 0.2 CPU seconds."""


@contextmanager
def opened(browser: Any, path: Path, *, own: bool = False, **options: Any) -> Iterator[Opened]:
    """The page at `path`; afterwards it must have been quiet. own: in a window that no other page gets."""
    key = browser, *options.items()
    window = None if own else _windows.pop(key, None)
    if window is None:
        context = browser.new_context(**options)
        context.set_default_timeout(60_000)  # a busy machine needs seconds to open a page
        window = context.new_page()
    found = Opened(window, path)
    try:
        yield found
        found.assert_quiet()
        found.leave()
    except BaseException:
        own = True
        raise
    finally:
        if own:
            window.context.close()
        else:
            _windows[key] = window


STRUCTURE = """() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const ids = all("[id]").map((each) => each.id);
    return {
        lang: document.documentElement.lang,
        headings: all("h1, h2, h3").map((each) => Number(each.tagName[1])),
        landmarks: ["header", "nav", "main", "footer"].filter((name) => all(name).length === 1),
        heads_without_scope: all("th:not([scope])").length,
        images_without_text: all("img:not([alt]), img[alt='']").length,
        plots_without_title: all("svg:not([aria-labelledby])").length,
        fields_without_label: all("input, select").filter((each) => !each.labels.length).length,
        dead_links: all("a[href^='#']").filter((each) => !ids.includes(each.hash.slice(1))).length,
        repeated_ids: ids.length - new Set(ids).size,
    };
}"""


def assert_structured(page: Any) -> None:
    """Headings in order, landmarks, and everything that a screen reader needs."""
    structure = page.evaluate(STRUCTURE)
    headings = structure.pop("headings")
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(deeper - before <= 1 for before, deeper in pairwise(headings))
    landmarks = ["header", "nav", "main", "footer"]
    assert (structure.pop("lang"), structure.pop("landmarks")) == ("en", landmarks)
    assert set(structure.values()) == {0}, structure


CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const over = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const luminance = (data) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, index) => {
        const part = data[index] / 255;
        return sum + weight * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    }, 0);
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
        const behind = [];
        for (let each = element; each; each = each.parentElement) {
            behind.unshift(getComputedStyle(each).backgroundColor);
        }
        const style = getComputedStyle(element);
        const text = element instanceof SVGElement ? style.fill : style.color;
        const [a, b] = [luminance(over(behind)), luminance(over([...behind, text]))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push([ratio.toFixed(2), element.outerHTML.slice(0, 120)]);
    }
    return poor;
}"""


def assert_readable(found: Opened) -> None:
    """Assert in each of LOOKS that nothing is cut off at the side, and that every text has enough contrast."""
    for scheme in LOOKS:
        found.look(scheme)
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), scheme
        assert texts_of_poor_contrast(found.page) == [], scheme


def texts_of_poor_contrast(page: Any) -> list[list[str]]:
    """All texts with a contrast below 4.5 to 1, as (ratio, markup). Opens all folded sections first."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found: list[list[str]] = page.evaluate(CONTRAST)
    return found

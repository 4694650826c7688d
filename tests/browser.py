"""A real browser for the tests of pages: the system's Chromium, driven by Playwright, its network log kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(EXECUTABLE is None, reason="needs chromium or google-chrome on the PATH")
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


class Opened:
    """A page, and all that it logged, threw, asked for or popped up."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.logged: list[str] = []
        self.requested: list[str] = []
        page.on("console", lambda message: self.logged.append(message.text))
        page.on("pageerror", lambda error: self.logged.append(str(error)))
        page.on("dialog", lambda dialog: self.logged.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requested.append(request.url))
        self.address = path.resolve().as_uri()
        page.goto(self.address)

    def assert_quiet(self) -> None:
        """Nothing was logged or thrown, and nothing was asked for but the page itself and what it holds."""
        assert self.logged == []
        assert [url for url in self.requested if not url.startswith("data:")] == [self.address]


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: str = "desktop", scheme: str = "light", **options: Any) -> Iterator[Opened]:
    """The page at `path`; afterwards it must have been quiet."""
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, **options)
    found = Opened(context.new_page(), path)
    yield found
    found.assert_quiet()
    context.close()

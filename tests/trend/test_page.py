"""trend.html in a real browser: no errors, no requests, readable on screens and paper, with unusual names."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from evaluation_data import HOSTILE
from nights import accepted, drawn_mix, like_others, model_run, night, unlike_others

from batchland.nightly.run_record import Outcome
from batchland.trend.measure import measure
from batchland.trend.write import write_trend

pytestmark = needs_browser

SUSPICIOUS = (4, 20, 21)
"""Numbers of nights; the first one is accepted."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Thirty nights of two models with all that can happen; the same under hostile names; a single night."""
    root = tmp_path_factory.mktemp("trends")
    plain = [f"Class {number}" for number in range(12)]
    return {
        "plain": write_trend(measure(story(plain, ("transfer", "scratch"))), root / "plain.html").html,
        "hostile": write_trend(measure(story(list(HOSTILE), HOSTILE[:2], HOSTILE[2])), root / "hostile.html").html,
        "one": write_trend(measure(story(plain, ("transfer",))[:1]), root / "one.html").html,
    }


def story(labels: list[str], models: tuple[str, ...], job: str = "nightly") -> list[Any]:
    rng = np.random.default_rng(5)
    records = []
    for number in range(30):
        day = date(2024, 10, 1) + timedelta(days=number)
        shares = np.arange(1, len(labels) + 1)[:: -1 if number > 25 else 1]
        runs = [
            model_run(
                name,
                listed=500,
                failed=number % 4,
                mix=drawn_mix(rng, 500 - number % 4, shares, labels, sure=6.0 if number < 20 else 2.0),
                right=400 - 5 * number,
                version="2" if number > 14 else "1",
                monitor=unlike_others() if number in SUSPICIOUS else like_others(0.77 - number / 100),
            )
            for name in models
        ]
        outcome: Outcome = "gate_failed" if number in (8, 29) else "suspicious" if number in SUSPICIOUS else "ok"
        record = night(day, *(() if number == 12 else runs), outcome=outcome, job=job, error=None)
        records.append(accepted(record, day) if number == SUSPICIOUS[0] else record)
    return records


@pytest.mark.parametrize("name", ["plain", "hostile", "one"])
def test_it_is_quiet_structured_and_readable(browser, pages, name):
    with opened(browser, pages[name], offline=True) as found:
        assert found.page.locator("h1").inner_text().endswith(": trend")
        assert found.page.evaluate("window.hacked") is None
        assert_structured(found.page)
        assert_readable(found)


def test_nights_are_sorted_by_click(browser, pages):
    with opened(browser, pages["plain"]) as found:
        rows = found.page.locator("#nights tbody tr")
        dates = found.page.locator("#nights tbody th")
        assert dates.first.inner_text() == "2024-10-30"
        assert rows.count() == 59  # two models, and one night that came to none
        found.page.get_by_role("button", name="Accuracy").click()
        assert dates.first.inner_text() == "2024-10-01 ref"


def test_on_paper_nothing_is_cut_off(browser, pages):
    with opened(browser, pages["plain"]) as found:
        page = found.page
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        boxes = page.locator(".scroll").evaluate_all("all => all.map((each) => getComputedStyle(each).overflow)")
        assert set(boxes) == {"visible"}
        page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 718
        room = "all => all.map((table) => table.parentElement.clientWidth - table.scrollWidth)"
        assert min(page.locator("table").evaluate_all(room)) >= 0

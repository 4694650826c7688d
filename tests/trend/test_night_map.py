"""The map of a trend: images of the last nights, what the last night has more of, and the page in a browser."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from evaluation_data import write_arrays
from feature_columns import with_features
from nights import model_run, night
from PIL import Image

from batchland.models.card import class_names
from batchland.nightly.run_record import RunRecord
from batchland.trend.measure import measure
from batchland.trend.night_map import night_maps
from batchland.trend.options import TrendOptions
from batchland.trend.write import write_trend

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
COUNT = 60
FIRST = date(2026, 11, 20)


def write_nights(root: Path, nights: int = 3) -> list[RunRecord]:
    """Nights of 60 images of three kinds, 20 each; the last one has 40 of the third kind, Blue Lake."""
    rng = np.random.default_rng(3)
    records = []
    for number in range(nights):
        kind = np.arange(COUNT) % 3
        if number == nights - 1:
            kind[:30] = 2
        images = root / f"images{number}"
        images.mkdir(parents=True)
        names = [f"{at}.jpg" for at in range(COUNT)]
        for name, which in zip(names, kind.tolist(), strict=True):
            Image.new("RGB", (40, 30), (80 * which, 90, 120)).save(images / name)
        probabilities = np.full((COUNT, 3), 0.1, np.float32)
        probabilities[np.arange(COUNT), kind] = 0.8
        sizes = np.array([(40, 30, (images / name).stat().st_size) for name in names])
        plain = root / f"plain{number}.parquet"
        write_arrays(plain, class_names(FOLDERS), names, probabilities, sizes=sizes, images=images)
        features = np.eye(6)[kind] + rng.normal(0, 0.1, (COUNT, 6))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        partition = with_features(plain, root / f"night{number}.parquet", features)
        run = model_run(listed=COUNT).model_copy(update={"partition": str(partition), "run_id": "run-1"})
        records.append(night(FIRST + timedelta(days=number), run))
    return records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return write_nights(tmp_path_factory.mktemp("nights"))


def test_points_of_all_nights_and_what_the_last_one_has_more_of(records: list[RunRecord]) -> None:
    (found,) = night_maps(records).values()
    assert found.points == 3 * COUNT
    assert found.nights == tuple(FIRST + timedelta(days=number) for number in range(3))
    data = found.data
    assert data["night"] == [number for number in range(3) for _ in range(COUNT)]
    assert (data["nights"], data["labels"]) == (
        ["2026-11-20", "2026-11-21", "2026-11-22"],
        ["Red Tower", "Green Hill", "Blue Lake"],
    )
    assert {len(data[name]) for name in ("x", "y", "predicted", "confidence", "image", "pictures")} == {3 * COUNT}
    assert set(data["confidence"]) == {800}
    assert found.groups
    assert {group.label for group in found.groups} == {"Blue Lake"}


def test_nights_without_a_difference_have_no_group(tmp_path: Path) -> None:
    records = write_nights(tmp_path, 4)[:3]
    (found,) = night_maps(records).values()
    assert (found.groups, found.tested > 0) == ((), True)


def test_without_predictions_features_or_a_second_night_there_is_no_map(
    records: list[RunRecord], tmp_path: Path
) -> None:
    assert night_maps(records[:1]) == {}
    assert night_maps([night(FIRST, model_run(listed=COUNT)), night(FIRST + timedelta(days=1))]) == {}
    trend = measure(records, TrendOptions(map=False))
    assert "<canvas" not in write_trend(trend, tmp_path / "trend.html").html.read_text()


@needs_browser
def test_the_map_in_a_browser(browser: Any, records: list[RunRecord], tmp_path: Path) -> None:
    page = write_trend(measure(records), tmp_path / "trend.html").html
    with opened(browser, page) as found:
        assert_structured(found.page)
        canvas, readout = found.page.locator("#model-1-map-canvas"), found.page.locator("#model-1-map-readout")
        canvas.scroll_into_view_if_needed()
        found.page.locator("#model-1-map-canvas[data-ready]").wait_for()
        assert found.page.locator("#model-1-map-legend").inner_text().split() == [
            "2026-11-20",
            "2026-11-21",
            "2026-11-22",
        ]
        box = canvas.bounding_box()
        for place in range(400):
            x, y = place % 20 / 20, place // 20 / 20
            found.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if readout.locator("img").count():
                break
        assert readout.inner_text().startswith("2026-11-2")
        for colour, keys in (("predicted", 3), ("confidence", 3), ("night", 3)):
            found.page.locator("#model-1-map-form select").select_option(colour)
            assert found.page.locator("#model-1-map-legend li").count() == keys
        found.page.locator("#model-1-map-form input").check()
        assert_readable(found)

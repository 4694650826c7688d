"""The map of a report: its points, its words about mistakes, and the page in a real browser."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from evaluation_data import write_arrays, write_label_folders
from feature_columns import with_features
from PIL import Image

from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.models.card import class_names
from batchland.report.map import crowded_groups, map_view
from batchland.report.page_images import page_images
from batchland.report.write import write_report

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
COUNT = 240
DRAWN_EARLY = """addEventListener("DOMContentLoaded", () => {
    window.drawnEarly = document.getElementById("map-canvas").style.height !== "";
})"""
"""Then a picture or a print of the page that is made as soon as it is loaded has the map."""
COLOURS_DRAWN = """() => {
    const pen = document.getElementById("map-canvas").getContext("2d");
    return new Set(new Uint32Array(pen.getImageData(0, 0, 700, 400).data.buffer)).size;
}"""


def write_case(root: Path, wrong: np.ndarray, kind: np.ndarray) -> Evaluation:
    """Images of six kinds, two a class, with features by kind; the wrong ones get the next class."""
    rng = np.random.default_rng(7)
    truth = kind % 3
    probabilities = np.full((COUNT, 3), 0.1, np.float32)
    probabilities[np.arange(COUNT), (truth + wrong) % 3] = 0.8
    names = [f"{FOLDERS[label]}/{number}.jpg" for number, label in enumerate(truth)]
    write_label_folders(root / "images", names)
    for number, name in enumerate(names):
        Image.new("RGB", (60, 40), (40 * int(kind[number]), 90, 120)).save(root / "images" / name)
    plain = write_arrays(root / "plain.parquet", class_names(FOLDERS), names, probabilities, images=root / "images")
    features = np.eye(6)[kind] + rng.normal(0, 0.1, (COUNT, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return evaluate(with_features(plain, root / "preds.parquet", features), root / "images")


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Nearly all mistakes are in kind 4: Green Hill, taken for Blue Lake."""
    kind = np.arange(COUNT) % 6
    wrong = (kind == 4) & (np.arange(COUNT) % 4 != 0)
    wrong[[0, 1, 2]] = True
    return write_case(tmp_path_factory.mktemp("clustered"), wrong, kind)


@pytest.mark.filterwarnings("error")
def test_equal_pictures_are_one_group() -> None:
    count, crowded = crowded_groups(np.ones((60, 4), np.float16) / 2, np.arange(60) < 30)
    assert (count, crowded) == (1 + 30 * 2, [])


def test_a_clump_of_mistakes_in_a_large_group_is_found() -> None:
    """12 similar images of 800 in two groups; other mistakes are spread."""
    rng = np.random.default_rng(4)
    features = np.eye(8)[np.arange(800) % 2] + rng.normal(0, 0.2, (800, 8))
    features[:12] = features[0] + rng.normal(0, 0.02, (12, 8))
    flagged = np.arange(800) % 20 == 13
    flagged[:12] = True
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    _, (group,) = crowded_groups(features.astype(np.float16), flagged)
    assert sorted(group.rows.tolist()) == list(range(12))
    assert group.p_value < 1e-9


def test_the_group_of_mistakes_is_named(clustered: Evaluation) -> None:
    view = map_view(clustered, page_images(clustered, []))
    assert view is not None
    assert (view.points, view.method, view.tested) == (COUNT, "t-SNE", 6 + 4 * 23)
    (group,) = view.groups
    assert (group.true_label, group.predicted_label) == ("Green Hill", "Blue Lake")
    assert (group.images, group.wrong) == (40, 20)
    assert group.elsewhere == pytest.approx(3 / 200)
    assert group.p_value < 1e-6


def test_mistakes_everywhere_are_no_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(COUNT) < 0.2
    evaluation = write_case(tmp_path, wrong, np.arange(COUNT) % 6)
    view = map_view(evaluation, page_images(evaluation, []))
    assert view is not None
    assert (view.groups, view.tested) == ((), 6 + 4 * wrong.sum())


def test_without_features_there_is_no_map(clustered: Evaluation, tmp_path: Path) -> None:
    root = clustered.image_root.parent
    evaluation = evaluate(root / "plain.parquet", root / "images")
    assert map_view(evaluation, page_images(evaluation, [])) is None
    assert 'id="map"' not in write_report(evaluation, tmp_path / "report").html.read_text()


@needs_browser
def test_the_map_in_a_browser(browser: Any, clustered: Evaluation, tmp_path: Path) -> None:
    page = write_report(clustered, tmp_path / "report").html
    assert page.stat().st_size < 2_000_000
    with opened(browser, page, own=True) as found:
        found.page.add_init_script(DRAWN_EARLY)
        found.page.reload()
        assert found.page.evaluate("drawnEarly")
        assert found.requested.pop() == found.address
        assert_structured(found.page)
        canvas = found.page.locator("#map-canvas")
        canvas.scroll_into_view_if_needed()
        found.page.locator("#map-canvas[data-ready]").wait_for()
        assert found.page.evaluate(COLOURS_DRAWN) > 10
        for section in ("#map", "#summary"):
            text = found.page.locator(section).inner_text()
            assert "20 of 40 images that look alike are wrong: 50.0%, against 1.5% elsewhere (p < 0.001)" in text
        readout, box = found.page.locator("#map-readout"), canvas.bounding_box()
        places = [(x / 20, y / 20) for y in range(1, 20) for x in range(1, 20)]
        for x, y in places:
            found.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if readout.locator("img").count():
                break
        assert "80.0%: 0" in readout.inner_text()
        canvas.click(position={"x": x * box["width"], "y": y * box["height"]})
        found.page.locator("#viewer").wait_for()
        found.page.keyboard.press("Escape")
        found.page.keyboard.press("Escape")
        for colour in ("truth", "predicted", "confidence"):
            found.page.locator("#map-form select").select_option(colour)
            assert found.page.locator("#map-legend li").count() == 3
        found.requested[:] = [url for url in found.requested if not url.endswith(".jpg")]  # files that it looked at
        assert_readable(found)

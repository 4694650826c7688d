"""Looking through images on report.html in a real browser: filters, full size, keys, CSV files, decisions on labels."""

import csv
import json
import zlib
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import LOOKS, needs_browser, opened, texts_of_poor_contrast
from evaluation_data import HOSTILE, Row, random_case, write_arrays, write_predictions
from PIL import Image

from batchland.data.corrections import read_corrections
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.schema import PairSlices
from batchland.models.card import class_names
from batchland.report import page_images as room
from batchland.report.options import ReportOptions
from batchland.report.page_images import page_images
from batchland.report.write import write_report
from batchland.system.text import percent

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.=Blue Lake")


def rows_of(*answers: tuple[str, tuple[float, ...]]) -> list[Row]:
    return [Row(name, probabilities) for name, probabilities in answers]


ROWS = rows_of(
    ("00.Red_Tower/a.jpg", (0.9, 0.06, 0.04)),
    ("00.Red_Tower/b, \"c\" #%.jpg", (0.1, 0.7, 0.2)),
    ("00.Red_Tower/d.jpg", (0.3, 0.6, 0.1)),
    ("01.Green_Hill/e.jpg", (0.2, 0.7, 0.1)),
    ("02.=Blue Lake/f.jpg", (0.25, 0.35, 0.4)),
    ("02.=Blue Lake/-g.jpg", (0.5, 0.3, 0.2)),
)  # fmt: skip
SURE = [Row(f"00.Red_Tower/sure{number}.jpg", (0.98, 0.01, 0.01)) for number in range(95)]
SURE += [Row(f"00.Red_Tower/unsure{number}.jpg", (0.6, 0.3, 0.1)) for number in range(60)]
MISLABELLED = [Row(f"02.=Blue Lake/sure{number}.jpg", (0.98, 0.01, 0.01)) for number in range(5)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ROWS, and of five images with wrong labels among many."""
    root = tmp_path_factory.mktemp("report")
    rows = []
    for number, row in enumerate([*ROWS, *SURE, *MISLABELLED]):
        file = root / "images" / row.image
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 300), (number * 40 % 256, 90, 120)).save(file)
        rows.append(row._replace(file_size=file.stat().st_size))
    predictions = write_predictions(root / "p.parquet", FOLDERS, rows, images=root / "images")
    return write_report(evaluate(predictions, root / "images"), root / "report").html


def names(page: Any) -> list[str]:
    page.locator("#images-grid .file").first.wait_for()
    return page.locator("#images-grid .file").all_inner_texts()


def forget_images(found: Any) -> None:
    """The files that the viewer opened are no requests of the page by itself."""
    found.requested[:] = [url for url in found.requested if not url.endswith(".jpg")]


@needs_browser
def test_a_cell_opens_its_images(browser, page):
    with opened(browser, page) as found:
        cell = found.page.get_by_role("button", name="2 images: Red Tower predicted as Green Hill")
        cell.evaluate("(button) => { button.click(); button.click(); }")  # the data is unpacked only once
        found.page.locator("#images-grid .file").first.wait_for()
        assert found.page.locator("#images-filter [name=truth] option").count() == 1 + 3
        assert names(found.page) == ['00.Red_Tower/b, "c" #%.jpg', "00.Red_Tower/d.jpg"]
        assert found.page.locator("#images-title").inner_text() == "Red Tower predicted as Green Hill"
        assert found.page.locator("#images-count").inner_text() == "2 images."
        forget_images(found)


@needs_browser
def test_class_bin_and_filters(browser, page):
    with opened(browser, page) as found:
        at = found.page
        at.locator("#class-table").get_by_role("button", name="=Blue Lake").first.click()
        assert names(at)[-1] == "02.=Blue Lake/-g.jpg"
        assert len(names(at)) == 6
        at.get_by_label("Answers").select_option("")
        at.get_by_label("Confidence from").fill("30")
        at.locator("#images-filter [name=high]").fill("45")
        assert names(at) == ["02.=Blue Lake/f.jpg"]
        at.keyboard.press("Escape")
        at.get_by_role("button", name="1 image at 87% to 93%").press("Enter")
        assert names(at) == ["00.Red_Tower/a.jpg"]
        at.get_by_label("Confidence from").fill("")
        at.locator("#images-filter [name=high]").fill("")
        assert len(names(at)) == 48
        at.get_by_role("searchbox", name="Name").fill("GREEN")
        assert names(at) == ["01.Green_Hill/e.jpg"]
        forget_images(found)


@needs_browser
def test_the_viewer_by_keyboard(browser, page):
    with opened(browser, page) as found:
        at = found.page
        at.get_by_role("button", name="2 images: Red Tower predicted as Green Hill").press("Enter")
        at.locator("#images-grid button").first.press("Enter")
        at.locator("#viewer").wait_for()
        assert at.locator("#viewer-place").inner_text() == "1 of 2"
        assert at.locator("#viewer-name").inner_text() == '00.Red_Tower/b, "c" #%.jpg'
        assert at.locator("#viewer-truth").inner_text() == "Red Tower 10.0%"
        choices = [row.split("\t") for row in at.locator("#viewer-choices tbody tr").all_inner_texts()]
        assert choices == [["Green Hill", "70.0%"], ["=Blue Lake", "20.0%"], ["Red Tower", "10.0%"]]
        at.wait_for_function("document.getElementById('viewer-image').naturalWidth === 400")  # the file, full size
        at.keyboard.press("ArrowRight")
        at.keyboard.press("ArrowRight")
        assert at.locator("#viewer-place").inner_text() == "2 of 2"
        at.keyboard.press("Escape")
        assert at.evaluate("document.activeElement.closest('li').textContent.includes('d.jpg')")
        at.keyboard.press("Escape")
        assert not at.locator("#images").is_visible()
        forget_images(found)


@needs_browser
def test_the_back_button_closes_what_is_open(browser, page):
    with opened(browser, page) as found:
        dialog, viewer = found.page.locator("#images"), found.page.locator("#viewer")
        cell = found.page.locator("table.matrix tbody tr").first.locator("button").nth(1)
        cell.click()
        names(found.page)
        found.page.locator("#images-grid button").first.click()
        viewer.wait_for()
        found.page.go_back()
        viewer.wait_for(state="hidden")
        assert dialog.is_visible()
        found.page.go_back()
        dialog.wait_for(state="hidden")
        cell.click()
        found.page.get_by_role("button", name="Close").first.click()
        found.page.wait_for_function("history.state === null")  # as if it had not been opened
        assert found.page.url == found.address
        forget_images(found)


@needs_browser
def test_the_list_as_csv(browser, page):
    with opened(browser, page) as found:
        found.page.get_by_role("button", name="2 images: Red Tower predicted as Green Hill").click()
        with found.page.expect_download() as download:
            found.page.get_by_role("button", name="Save as CSV").click()
        with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
            assert list(csv.reader(file)) == [
                ["image", "true_label", "predicted_label", "probability", "true_probability"],
                ['00.Red_Tower/b, "c" #%.jpg', "Red Tower", "Green Hill", "0.7", "0.1"],
                ["00.Red_Tower/d.jpg", "Red Tower", "Green Hill", "0.6", "0.3"],
            ]
        found.page.get_by_label("True class").select_option(label="=Blue Lake")
        found.page.locator("#images-filter [name=predicted]").select_option("")
        with found.page.expect_download() as download:
            found.page.get_by_role("button", name="Save as CSV").click()
        assert "'=Blue Lake" in Path(download.value.path()).read_text(encoding="utf-8-sig")  # no formula
        forget_images(found)


EDGES = (0.4, 0.39999, 0.399996, 0.40000004, 0.5, 0.49999997, 0.53333336, 0.6, 0.6666667, 0.99994, 0.99996, 1.0)
"""Confidences at the ends of bins, and others that four digits do not tell from them."""


@pytest.fixture(scope="module")
def edges_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each confidence; the last one of each is wrong."""
    root = tmp_path_factory.mktemp("edges")
    rest = [(1 - np.float32(sure)) / 2 for sure in EDGES]
    answers = np.array(
        [(sure, half, half) for sure, half in zip(EDGES, rest, strict=True) for _ in range(3)], np.float32
    )
    names = [f"{number:02}.jpg" for number in range(len(answers))]
    predictions = write_arrays(root / "p.parquet", class_names(FOLDERS), names, answers)
    labels = root / "labels.csv"
    rows = [f"{name},{FOLDERS[number % 3 == 2]}\n" for number, name in enumerate(names)]
    labels.write_text("image,label\n" + "".join(rows))
    return write_report(evaluate(predictions, labels), root / "report").html


@needs_browser
def test_every_place_counts_as_the_tables_do(browser, edges_page):
    """A bin opens the images that it counts, and a threshold accepts the same ones in the list, slider and table."""
    outcomes = pq.read_table(edges_page.parent / "outcomes.parquet").to_pandas()
    summary = json.loads((edges_page.parent / "summary.json").read_text())
    with opened(browser, edges_page) as found:
        at = found.page

        def saved() -> dict[str, tuple[str, str]]:
            with at.expect_download() as download:
                at.get_by_role("button", name="Save as CSV").click()
            with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
                return {row["image"]: (row["probability"], row["true_probability"]) for row in csv.DictReader(file)}

        bins = [each for each in summary["reliability"] if each["images"]]
        bars = at.locator("#calibration g[role=button]")
        assert bars.count() == len(bins) == 7
        for number, each in enumerate(bins):
            bars.nth(number).press("Enter")
            at.locator("#images-grid .file").first.wait_for()
            confidence = outcomes["probability"].astype(np.float64)
            inside = outcomes[(confidence > each["lower"]) & (confidence <= each["upper"])]
            assert at.locator("#images-count").inner_text() == f"{each['images']} images."
            rows = saved()
            assert sorted(rows) == sorted(inside["image"])
            for row in inside.itertuples():
                stated, true = (np.float32(value) for value in rows[row.image])
                assert (stated, true) == (row.probability, row.true_probability)
            at.keyboard.press("Escape")
        points = {point["threshold"]: point["taken"] for point in summary["coverage"]}
        for threshold in (0.5, 0.6, 0.95):
            at.locator("#costs-form [name=threshold]").fill(f"{100 * threshold:g}")
            assert at.locator("#costs-accepted").inner_text().split()[0] == str(points[threshold])
            at.get_by_role("button", name="Look through the mistakes").click()
            at.get_by_label("Answers").select_option("")
            at.get_by_label("Confidence from").fill(f"{100 * threshold:g}")
            assert len(saved()) == points[threshold]
            at.keyboard.press("Escape")
        shown = at.evaluate("[0.8125, 0.4375, 0.0625, 0.99996, 0.0002, 0.125, 1, 0].map(percent)")
        assert shown == [percent(share) for share in (0.8125, 0.4375, 0.0625, 0.99996, 0.0002, 0.125, 1, 0)]
        forget_images(found)


@needs_browser
def test_suspected_labels_are_reviewed_by_keyboard(browser, page):
    with opened(browser, page) as found:
        at = found.page
        at.get_by_role("button", name="Review these labels").click()
        at.locator("#viewer-place").filter(has_text="1 of 8").wait_for()
        assert at.get_by_role("button", name="Save corrections").is_disabled()
        for key in "wku":
            at.keyboard.press(key)
        at.get_by_label("Right label").select_option(label="Green Hill")
        at.get_by_role("button", name="Label is wrong").click()
        at.keyboard.press("w")
        at.keyboard.press("z")
        assert said(at) == "02.=Blue Lake/sure4.jpg: no longer wrong. 4 decisions"
        assert at.locator("#viewer-place").inner_text() == "5 of 8"
        at.reload()  # the browser keeps them
        at.get_by_role("button", name="Review these labels").click()
        at.locator("#viewer").wait_for()
        with at.expect_download() as download:
            at.get_by_role("button", name="Save corrections").click()
        assert download.value.suggested_filename == "corrections.csv"
        with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
            assert list(csv.reader(file)) == [
                ["path", "label", "decision"],
                ["02.=Blue Lake/sure0.jpg", "Red Tower", "wrong"],
                ["02.=Blue Lake/sure1.jpg", "'=Blue Lake", "keep"],
                ["02.=Blue Lake/sure2.jpg", "'=Blue Lake", "unsure"],
                ["02.=Blue Lake/sure3.jpg", "Green Hill", "wrong"],
            ]
        forget_images(found)
        found.requested.pop()


@needs_browser
def test_keys_decide_while_the_list_of_labels_has_the_focus(browser, page):
    with opened(browser, page) as found:
        at = found.page
        at.get_by_role("button", name="Review these labels").click()
        at.locator("#viewer-place").filter(has_text="1 of 8").wait_for()
        at.get_by_label("Right label").select_option(label="Green Hill")
        at.get_by_label("Right label").focus()
        at.keyboard.press("w")
        assert said(at) == "02.=Blue Lake/sure0.jpg: wrong, right is Green Hill. 1 decision"
        assert at.evaluate("document.activeElement.id") == "viewer"  # so that the arrow keys turn the pages again
        at.get_by_label("Right label").focus()
        at.keyboard.type("rw")  # a search in the list
        assert at.locator("#viewer-place").inner_text() == "2 of 8"
        at.get_by_label("Right label").focus()
        at.get_by_label("Right label").evaluate("select => { window.before = select.value; }")
        at.wait_for_timeout(1100)
        at.keyboard.press("k")
        assert said(at) == "02.=Blue Lake/sure1.jpg: keep. 2 decisions"
        forget_images(found)


@pytest.fixture(scope="module")
def odd_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names that are numbers or look like formulas, very large and very small probabilities, no pictures."""
    root = tmp_path_factory.mktemp("odd")
    rows = rows_of(
        ("90", (0.99973, 0.0002, 0.00007)),
        ("89", (0.7, 0.29952, 0.00048)),
        ("=1", (0.00002, 0.99998, 0.0)),
        ("'=1", (0.12345, 0.6, 0.27655)),
    )
    labels = root / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("image", "label"), ("90", FOLDERS[1]), ("89", FOLDERS[0]), ("=1", FOLDERS[2]), ("'=1", FOLDERS[0])]
        )
    predictions = write_predictions(root / "p.parquet", FOLDERS, rows)
    return write_report(evaluate(predictions, labels), root / "report").html


def look_at(at: Any, name: str) -> None:
    """Open the image in the viewer, in the list of all images."""
    if not at.locator("#images").is_visible():
        at.get_by_role("button", name="Look through the mistakes").click()
        at.locator("#images-filter [name=kind]").select_option("")
    elif at.locator("#viewer").is_visible():
        at.keyboard.press("Escape")
    at.locator("#images-grid li").filter(has=at.get_by_text(name, exact=True)).get_by_role("button").click()


def said(at: Any) -> str:
    text: str = at.locator("#review-count").inner_text()
    return text


@needs_browser
def test_undo_takes_back_the_last_decision_and_shows_its_image(browser, odd_page):
    with opened(browser, odd_page) as found:
        at = found.page
        for name in ("90", "89"):
            look_at(at, name)
            at.keyboard.press("k")
        look_at(at, "'=1")
        at.keyboard.press("z")
        assert (said(at), at.locator("#viewer-name").inner_text()) == ("89: no longer keep. 1 decision", "89")
        at.keyboard.press("k")
        at.reload()
        look_at(at, "=1")
        at.keyboard.press("z")  # the order is kept in the browser, too
        assert (said(at), at.locator("#viewer-name").inner_text()) == ("89: no longer keep. 1 decision", "89")
        found.requested.pop()


@needs_browser
def test_the_present_label_is_not_wrong(browser, odd_page):
    with opened(browser, odd_page) as found:
        at = found.page
        look_at(at, "89")
        at.keyboard.press("w")
        assert said(at) == "Red Tower is the present label: choose the right one first, or keep it. no decisions yet"
        assert at.locator("#viewer-name").inner_text() == "89"
        at.get_by_label("Right label").select_option(label="Green Hill")
        at.get_by_role("button", name="Label is wrong").click()
        assert said(at) == "89: wrong, right is Green Hill. 1 decision"


@needs_browser
def test_saved_corrections_are_safe_in_a_spreadsheet_and_are_read_back(browser, odd_page, tmp_path):
    with opened(browser, odd_page) as found:
        at = found.page
        for name, label in (("90", "=Blue Lake"), ("=1", "Red Tower"), ("'=1", "Green Hill")):
            look_at(at, name)
            at.get_by_label("Right label").select_option(label=label)
            at.get_by_role("button", name="Label is wrong").click()
        with at.expect_download() as download:
            at.get_by_role("button", name="Save corrections").click()
        saved = tmp_path / "corrections.csv"
        download.value.save_as(saved)
    assert saved.read_bytes().decode() == (
        "\ufeffpath,label,decision\r\n90,'=Blue Lake,wrong\r\n'=1,Red Tower,wrong\r\n''=1,Green Hill,wrong\r\n"
    )
    assert read_corrections(saved).labels == {"90": "=Blue Lake", "=1": "Red Tower", "'=1": "Green Hill"}


@needs_browser
def test_probabilities_have_one_text(browser, odd_page):
    with opened(browser, odd_page) as found:
        at = found.page
        gallery = at.locator("#mistakes figcaption").all_inner_texts()
        assert any(">99.9%" in text and "<0.1%" in text for text in gallery)
        shown = {}
        for name in ("90", "89", "=1", "'=1"):
            look_at(at, name)
            cells = at.locator("#viewer-choices td.number").all_inner_texts()
            shown[name] = [at.locator("#viewer-truth").inner_text(), *cells]
        assert shown == {
            "90": ["Green Hill <0.1%", ">99.9%", "<0.1%", "<0.1%"],
            "89": ["Red Tower 70.0%", "70.0%", "30.0%", "<0.1%"],
            "=1": ["=Blue Lake 0.0%", ">99.9%", "<0.1%", "0.0%"],
            "'=1": ["Red Tower 12.3%", "60.0%", "27.7%", "12.3%"],
        }


@needs_browser
def test_without_the_files_the_small_pictures_are_shown(browser, page, tmp_path):
    """A page that was sent to somebody else."""
    copied = tmp_path / "report.html"
    copied.write_text(page.read_text().replace(f'data-root="{page.parent.parent}/images"', 'data-root=""'))
    with opened(browser, copied) as found:
        found.page.get_by_role("button", name="2 images: Red Tower predicted as Green Hill").click()
        found.page.locator("#images-grid button").first.click()
        found.page.wait_for_function("document.getElementById('viewer-image').naturalWidth === 168")
        assert found.page.locator("#viewer-missing").inner_text() == "This is the small picture of the page."


@needs_browser
def test_every_text_of_the_dialog_has_enough_contrast(browser, page):
    with opened(browser, page) as found:
        found.page.get_by_role("button", name="Review these labels").click()
        found.page.locator("#viewer").wait_for()
        found.page.keyboard.press("k")
        for scheme in LOOKS:
            found.look(scheme)
            assert texts_of_poor_contrast(found.page) == []
        found.page.keyboard.press("Escape")
        for scheme in LOOKS:
            found.look(scheme)
            assert texts_of_poor_contrast(found.page) == []
        forget_images(found)


@needs_browser
def test_hostile_names_stay_text(browser, tmp_path):
    wrong = [np.roll([0.7] + [0.3 / 9] * 9, number + 1) for number in range(10)]
    rows = [
        Row(f"\u05d0/\u05d1/{folder}/{folder.replace('/', '')}.jpg", answer)
        for folder, answer in zip(HOSTILE, wrong, strict=True)
    ]
    predictions = write_predictions(tmp_path / "p.parquet", HOSTILE, rows)
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((row.image, HOSTILE[n]) for n, row in enumerate(rows))])
    files = write_report(evaluate(predictions, labels), tmp_path / "report")
    with opened(browser, files.html) as found:
        found.page.get_by_role("button", name="Look through the mistakes").click()
        assert len(names(found.page)) == 10
        for _ in range(10):
            found.page.locator("#images-grid button").first.click()
            assert found.page.locator("#viewer-choices").evaluate(
                "(at) => at.offsetWidth <= at.parentElement.clientWidth"
            )
            parts = found.page.locator("#viewer-name bdi")
            assert parts.nth(0).bounding_box()["x"] < parts.nth(1).bounding_box()["x"]
            found.page.keyboard.press("ArrowRight")
            found.page.keyboard.press("Escape")
        assert found.page.evaluate("window.hacked") is None
        assert any("[U+202E]" in name for name in names(found.page))


@needs_browser
def test_many_classes(browser, tmp_path):
    evaluation = many(tmp_path, 300, 1500)
    files = write_report(evaluation, tmp_path / "report")
    with opened(browser, files.html) as found:
        at = found.page
        assert at.locator("#class-table tbody tr:visible").count() == 50
        assert at.locator("#classes output").inner_text() == "50 of 300 rows"
        at.get_by_label("Class", exact=True).fill("class 123")
        assert at.locator("#class-table tbody tr:visible").count() == 1
        at.get_by_role("button", name="Clear").click()
        at.get_by_role("button", name="Show all 300").click()
        assert at.locator("#class-table tbody tr:visible").count() == 300
        said = at.locator("#confusion-readout")
        assert said.inner_text().startswith("24 by 24 classes with ")
        before = int(said.inner_text().split()[5])
        at.get_by_role("button", name="Zoom to errors").click()
        assert 0 < int(said.inner_text().split()[5]) <= before
        at.get_by_role("button", name="Zoom in").click()
        assert said.inner_text() == "12 by 12 of 300 classes."
        at.get_by_role("button", name="Show all").click()
        assert said.inner_text().startswith("Point at a cell, ")
        at.get_by_label("Find").fill("nobody")
        at.keyboard.press("Enter")
        assert said.inner_text() == "No class is called “nobody”."
        at.locator("#class-table th").nth(1).click(position={"x": 2, "y": 2})  # beside the button
        assert at.locator("#class-table th").nth(1).get_attribute("aria-sort") == "descending"
        right = next(row for row in evaluation.confusion.to_pylist() if row["true_index"] == row["predicted_index"])
        at.get_by_label("Find").fill(right["true_label"])
        at.keyboard.press("Enter")
        at.locator("#confusion-canvas").press("Enter")
        at.locator("#images-grid .file").first.wait_for()
        assert at.locator("#images-title").inner_text() == f"{right['true_label']} predicted as {right['true_label']}"
        assert len(names(at)) == right["images"]


def many(folder: Path, classes: int, images: int) -> Evaluation:
    folders = [f"{index:03}.Class_{index}" for index in range(classes)]
    truth, probabilities = random_case(classes, images, accuracy=0.6, seed=1)
    names = [f"{folders[index]}/{number:06}.jpg" for number, index in enumerate(truth)]
    predictions = write_arrays(folder / "p.parquet", class_names(folders), names, probabilities)
    labels = folder / "labels.csv"
    labels.write_text("image,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    return evaluate(predictions, labels, EvaluateOptions(brightness_sample=0))


def decoded(data: str) -> dict[str, Any]:
    return json.loads(zlib.decompress(b64decode(data)))


def test_the_data_of_a_small_report_are_all_images(tmp_path):
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, ROWS)
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((row.image, row.image.split("/")[0]) for row in ROWS)])
    found = page_images(evaluate(predictions, labels), ["00.Red_Tower/d.jpg"])
    assert (found.all_there, found.total, found.root) == (True, 6, "")
    assert decoded(found.data) == {
        "labels": ["Red Tower", "Green Hill", "=Blue Lake"],
        "folders": ["00.Red_Tower/", "02.=Blue Lake/", "01.Green_Hill/"],
        "folder": [0, 0, 1, 0, 2, 1],
        "file": ["d.jpg", 'b, "c" #%.jpg', "-g.jpg", "a.jpg", "e.jpg", "f.jpg"],
        "truth": [0, 0, 2, 0, 1, 2],
        "predicted": [1, 1, 0, 0, 1, 2],
        "confidence": [0.6, 0.7, 0.5, 0.9, 0.7, 0.4],
        "true": [0.3, 0.1, 0.2, None, None, None],
        "choices": [
            [0, 300, 2, 100], [2, 200, 0, 100], [1, 300, 2, 200], [1, 60, 2, 40], [0, 200, 2, 100], [1, 350, 0, 250],
        ],
        "suspected": [0] * 6,
        "slices": {},
    }  # fmt: skip


def sliced(folder: Path) -> Evaluation:
    """40 images of class a: small ones, camera c1 at site s1 and some others are wrong; site is null in places."""
    camera, site = (
        [f"c{number % 14}" for number in range(140)],
        [None if n % 5 == 4 else f"s{n % 5}" for n in range(140)],
    )
    wrong = [(camera[n] == "c1" and site[n] == "s1") or n % 40 == 7 for n in range(140)]
    names = [f"a/{number:03}.{'png' if number % 7 == 0 else 'jpg'}" for number in range(140)]
    rows = [
        Row(name, (0.2, 0.8) if bad else (0.9, 0.1), width=90 if bad else 640)
        for name, bad in zip(names, wrong, strict=True)
    ]
    predictions = write_predictions(folder / "p.parquet", ("a", "b"), rows)
    table = pq.read_table(predictions)
    for name, values in (("camera", camera), ("site", site)):
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, predictions)
    labels = folder / "labels.csv"
    labels.write_text("image,label\n" + "".join(f"{name},a\n" for name in names))
    return evaluate(predictions, labels, EvaluateOptions(by=("camera", "site")))


def test_the_data_say_which_slices_an_image_is_in(tmp_path):
    evaluation = sliced(tmp_path)
    data = decoded(page_images(evaluation, []).data)
    assert list(data["slices"]) == ["image size", "shape", "format", "camera", "site"]
    images = list(zip(data["file"], data["truth"], data["predicted"], strict=True))
    for part in evaluation.summary.slices:
        values, rows = data["slices"][part.dimension]["values"], data["slices"][part.dimension]["rows"]
        inside = [image for image, number in zip(images, rows, strict=True) if values[number] == part.value]
        if part.value != "others (3)":  # of an own column, the page has each value
            assert len(inside) == part.images, part
            assert sum(truth == given for _, truth, given in inside) / len(inside) == part.accuracy.value


def test_one_weak_pair_is_described_in_the_singular(tmp_path):
    evaluation = sliced(tmp_path)
    pairs = PairSlices(tested=1, found=1, weakest=())
    evaluation = replace(evaluation, summary=evaluation.summary.model_copy(update={"pair_slices": pairs}))
    page = write_report(evaluation, tmp_path / "report", ReportOptions(picture_bytes=0)).html.read_text()
    assert page.split('<h3 id="pairs">Weak pairs</h3>')[1].split("</p>")[0].strip() == (
        "<p>1 combination of two columns with at least 20 images was tested. 1 is weaker than all other images "
        "(p &lt; 0.1 by Fisher's exact test, after adjustment by Benjamini and Hochberg, weighted by size). On "
        "average, at most a tenth of such findings are chance."
    )


@pytest.mark.parametrize(("repeats", "kind"), [(1, "scroll fit"), (9, "scroll fit tall")])
def test_a_long_table_of_slices_scrolls(tmp_path, repeats, kind):
    evaluation = sliced(tmp_path)
    summary = evaluation.summary.model_copy(update={"slices": evaluation.summary.slices * repeats})
    page = write_report(replace(evaluation, summary=summary), tmp_path / "report", ReportOptions(picture_bytes=0)).html
    assert f'<div class="{kind}" tabindex="0" role="region" aria-label="Slices">' in page.read_text()


@needs_browser
def test_a_slice_opens_its_wrong_images(browser, tmp_path):
    evaluation = sliced(tmp_path)
    files = write_report(evaluation, tmp_path / "report")
    with opened(browser, files.html) as found:
        at = found.page
        title, count = at.locator("#images-title"), at.locator("#images-count")
        for name, first in (
            ("under 0.1 megapixels", "image size: under 0.1 megapixels; wrong"),
            ("others (3)", "camera: others; wrong"),
            ("(none)", "site: (none)"),
        ):
            at.locator("#slices").get_by_role("button", name=name, exact=True).press("Enter")
            at.locator("#images-grid .file").first.wait_for()
            assert title.inner_text() == first
            at.keyboard.press("Escape")
        at.locator("#slices").get_by_role("button", name="c1", exact=True).click()
        assert names(at) == ["a/001.jpg", "a/071.jpg", "a/127.jpg"]
        assert (title.inner_text(), count.inner_text()) == ("camera: c1; wrong", "3 images.")
        at.locator("#images-filter [name=kind]").select_option("")
        assert len(names(at)) == 10
        at.get_by_role("button", name="Clear camera: c1").click()
        assert (title.inner_text(), count.inner_text()) == ("Images", "140 images.")
        assert not at.locator("#images-slice").is_visible()


def test_a_large_report_has_some_images_of_every_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_ROWS", 400)
    evaluation = many(tmp_path, 5, 3000)
    data = decoded(page_images(evaluation, []).data)
    cells = list(zip(data["truth"], data["predicted"], strict=True))
    assert len(cells) == 400
    wrong = [cell for cell in cells if cell[0] != cell[1]]
    assert len(wrong) == 240
    confusion = evaluation.confusion.to_pylist()
    for cell in confusion:
        place = (cell["true_index"], cell["predicted_index"])
        assert cells.count(place) >= min(cell["images"], 4), place
    mistakes = evaluation.mistakes.to_pylist()
    first = [row for row in mistakes if (row["true_index"], row["predicted_index"]) == wrong[0]]
    assert np.float32(data["confidence"][0]) == first[0]["probability"]  # the most confident of its cell


def test_long_names_leave_room_for_fewer_images(tmp_path, monkeypatch):
    evaluation = many(tmp_path, 5, 3000)
    monkeypatch.setattr(room, "MAX_BYTES", 20_000)
    found = page_images(evaluation, [])
    assert 15_000 < len(found.data) <= 20_000
    assert 0 < len(found.rows) < 3000
    assert not found.all_there


def test_suspected_labels_are_those_of_the_table(tmp_path):
    """Not all with a high probability: at most as many as wrong labels are estimated."""
    evaluation = many(tmp_path, 5, 100)
    images = evaluation.mistakes["image"].to_pylist()
    mistakes = evaluation.mistakes
    for name, values in (
        ("label_error_probability", pa.array([0.7] * len(images), pa.float32())),
        ("suspected_label_error", pa.array([number < 3 for number in range(len(images))])),
    ):
        mistakes = mistakes.set_column(mistakes.schema.get_field_index(name), mistakes.schema.field(name), values)
    found = page_images(replace(evaluation, mistakes=mistakes), [])
    names = list(found.rows)
    suspected = {names[row] for row, each in enumerate(decoded(found.data)["suspected"]) if each}
    assert suspected == set(images[:3])


def test_changed_predictions_give_no_choices(tmp_path):
    evaluation = many(tmp_path, 5, 30)
    (tmp_path / "p.parquet").unlink()
    assert decoded(page_images(evaluation, []).data)["choices"] == [[]] * 30
    assert write_report(evaluation, tmp_path / "report", ReportOptions(picture_bytes=0)).html.exists()

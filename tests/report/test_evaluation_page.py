"""report.html in a real browser: no errors, no requests, sortable, readable, and safe with unusual names."""

import csv
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import LOOKS, assert_readable, assert_structured, needs_browser, opened, playwright
from evaluation_data import HOSTILE, Row, random_case, write_arrays, write_label_folders, write_predictions
from PIL import Image

from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.gates import check_gates, parse_gate
from batchland.evaluation.options import EvaluateOptions
from batchland.models.card import class_names
from batchland.report.options import ReportOptions
from batchland.report.write import write_report

pytestmark = needs_browser


def made_up(folder: Path, folders: list[str], images: int, *, failed: int = 0, picture: bytes = b"") -> Evaluation:
    """Random predictions of these classes; `picture` is written as the image of each mistake."""
    truth, probabilities = random_case(len(folders), images, accuracy=0.6, seed=1)
    names = [f"{folders[index]}/{number:06}.jpg" for number, index in enumerate(truth)]
    ok = np.arange(images) >= failed
    sizes = np.tile(np.array([640, 480, len(picture) or 50_000]), (images, 1))
    sizes[::3, :2] = 2000, 3000
    predictions = write_arrays(
        folder / "preds.parquet",
        class_names(folders),
        names,
        probabilities,
        ok=ok,
        error_codes=[None if good else ("empty", "truncated")[number % 2] for number, good in enumerate(ok)],
        sizes=sizes,
        images=folder / "images",
        model=f"of {len(folders)} classes",
    )
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((name, name.rpartition("/")[0]) for name in names)])
    if picture:
        wrong = evaluate(predictions, labels).mistakes["image"].to_pylist()
        (folder / "one.jpg").write_bytes(picture)
        for name in wrong:
            (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / "one.jpg", folder / "images" / name)
    return evaluate(predictions, labels, EvaluateOptions(brightness_sample=0))


def noise(side: int = 400) -> bytes:
    """A JPEG that cannot be made small."""
    buffer = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same kind of report of 5, 30 and 300 classes, and one of hostile names among many."""
    root = tmp_path_factory.mktemp("pages")
    found = {}
    for name, folders in {
        "5": [f"{index:02}.Class_{index}" for index in range(5)],
        "30": [f"{index:02}.Class_{index}" for index in range(30)],
        "300": [f"{index:03}.Class_{index}" for index in range(300)],
        "hostile": [*HOSTILE, *(f"{index}.Class_{index}" for index in range(10, 20))],
    }.items():
        evaluation = made_up(root / name, folders, 1500, failed=7, picture=noise(60) if name == "5" else b"")
        gates = check_gates([parse_gate("top1 < 0.99"), parse_gate("failed > 100")], evaluation)
        found[name] = write_report(evaluation, root / name / "report", gates=gates).html
    return found


@pytest.mark.parametrize("name", ["5", "30", "300", "hostile"])
def test_each_page_is_quiet_structured_and_readable(browser: Any, pages: dict[str, Path], name: str) -> None:
    folder = pages[name].parent.parent
    with opened(browser, pages[name], offline=True) as found:
        page = found.page
        assert page.locator("h1").inner_text().endswith(": evaluation")
        assert page.locator("header p").inner_text().splitlines()[1] == (
            f"Predictions {folder}/preds.parquet, labels {folder}/labels.csv"
        )
        assert_structured(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        rows = "[...document.querySelectorAll('#class-table tbody tr')].map((row) => row.offsetHeight)"
        exact = rows.replace("row.offsetHeight", "row.getBoundingClientRect().height")
        for scheme in LOOKS:
            found.look(scheme)
            assert page.evaluate(exact) == page.evaluate(rows)  # whole pixels
        assert_readable(found)


def test_hostile_names_are_only_text(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["hostile"]) as found:
        page = found.page
        page.wait_for_timeout(200)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0  # there are no pictures, so none came from a name
        assert page.locator("script").count() == 6  # ours, and the data of matrix, images, pictures, curves, costs
        shown = page.locator("#class-table th[scope=row]").all_inner_texts()
        for label in (
            "<script>window.hacked=1</script>",
            '"><img src=x onerror=window.hacked=1>',
            "{{ 7*7 }}{% raw %}",
            "&lt;b&gt; &amp;",
            "[U+202E]gnp.evil",
            "line[U+000A]break[U+0007]",
        ):
            assert label in shown
        data = page.evaluate("JSON.parse(document.getElementById('confusion-data').textContent).labels")
        assert {"</script><script>window.hacked=1</script>", "[U+202E]gnp.evil"} <= set(data)


def test_the_content_security_policy(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["5"]) as found:
        page = found.page
        page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<img src="https://evil.example/x.png">');
        }""")
        page.wait_for_timeout(100)
        assert page.evaluate("window.hacked") is None
        assert len(found.logged) == 2
        assert all("Content Security Policy" in text for text in found.logged)
        found.logged.clear()
        found.requested.remove("https://evil.example/x.png")  # tried, and blocked: it is one of the two


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"#class-table tbody tr:not([hidden]) > :nth-child({number})").all_inner_texts()


def test_sorting_by_click_and_key(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["30"]) as found:
        page = found.page
        head = page.locator("#class-table thead th")
        accuracies = [float(text.rstrip("%")) for text in column(page, 3)]
        assert accuracies == sorted(accuracies)  # the worst first
        assert head.nth(2).get_attribute("aria-sort") == "ascending"
        page.locator("#class-table").get_by_role("button", name="Images").click()
        images = [int(text.replace(",", "")) for text in column(page, 2)]
        assert images == sorted(images, reverse=True)
        assert [head.nth(index).get_attribute("aria-sort") for index in (1, 2)] == ["descending", None]
        page.locator("#class-table").get_by_role("button", name="Images").press("Enter")
        assert column(page, 2) == [f"{count:,}" for count in sorted(images)]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        assert column(page, 1) == [f"Class {index}" for index in range(30)]  # 2 before 10
        assert head.nth(0).get_attribute("aria-sort") == "ascending"


def test_filtering_classes(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["30"]) as found:
        page = found.page
        status = page.locator("form[data-filters] output")
        assert status.inner_text() == "30 rows"
        page.get_by_label("Class", exact=True).fill("CLASS 2")
        assert sorted(column(page, 1)) == ["Class 2", *(f"Class {index}" for index in range(20, 30))]
        assert status.inner_text() == "11 of 30 rows"
        page.get_by_label("Class", exact=True).fill("")
        page.get_by_role("combobox", name="Accuracy").select_option("0.7")
        assert column(page, 3)
        assert all(float(text.rstrip("%")) < 70 for text in column(page, 3))
        page.get_by_role("button", name="Clear").click()
        playwright.expect(status).to_have_text("30 rows")
        assert len(column(page, 1)) == 30


def test_a_matrix_of_few_classes_is_a_table(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["5"]) as found:
        matrix = found.page.locator("table.matrix")
        assert matrix.locator("thead th").all_inner_texts() == ["True class", *(f"Class {index}" for index in range(5))]
        assert matrix.locator("tbody tr").count() == 5
        assert found.page.locator("canvas").count() == 0


DRAWN = """async (canvas) => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return canvas.toDataURL();
}"""


def test_a_matrix_of_many_classes_by_key_and_by_name(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["300"]) as found:
        page = found.page
        canvas, readout = page.locator("#confusion-canvas"), page.locator("#confusion-readout")
        page.locator("#confusion-order").select_option("model")
        canvas.focus()
        page.keyboard.press("0")
        page.keyboard.press("ArrowDown")  # the first key goes to the first cell that is shown
        assert readout.inner_text().startswith("Class 0, right: ")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert readout.inner_text().startswith("Class 1, predicted as Class 2: ")
        page.keyboard.press("0")
        before = canvas.evaluate(DRAWN)
        page.keyboard.press("+")
        assert canvas.evaluate(DRAWN) != before
        page.keyboard.press("0")
        assert canvas.evaluate(DRAWN) == before
        page.get_by_label("Find").fill("class 123")
        page.keyboard.press("Enter")
        assert readout.inner_text().startswith("Class 123, right: ")
        page.locator("#confusion-order").select_option("accuracy")
        assert readout.inner_text().startswith("Point at a cell, or use the arrow keys.")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 125)
        assert ", predicted as " in readout.inner_text()


def test_the_canvas_has_the_numbers_of_the_table(browser: Any, pages: dict[str, Path]) -> None:
    """The diagonal cell of a class in the canvas shows the same numbers as its row in the table."""
    with opened(browser, pages["30"]) as found:
        page = found.page
        page.get_by_label("Find").fill("Class 7")
        page.keyboard.press("Enter")
        head = page.get_by_role("rowheader", name="Class 7", exact=True)
        row = page.locator("#class-table tbody tr").filter(has=head)
        images, accuracy = (row.locator("td").nth(index).inner_text() for index in (0, 1))
        assert page.locator("#confusion-readout").inner_text().endswith(f" of {images} images ({accuracy})")


def test_without_script_only_the_controls_are_missing(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["5"], java_script_enabled=False) as found:
        assert found.page.locator("#class-table tbody tr").count() == 5
        assert not found.page.locator("form[data-filters]").is_visible()


def test_print_shows_everything(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["30"]) as found:
        page = found.page
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert not page.locator("nav").is_visible()
        assert page.locator("details:not([open])").count() == 0
        boxes = page.locator(".scroll").evaluate_all("all => all.map((each) => getComputedStyle(each).overflow)")
        assert set(boxes) == {"visible"}
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == 0
        assert page.pdf().startswith(b"%PDF")


def test_pictures_keep_to_their_size_limit(browser: Any, tmp_path: Path) -> None:
    evaluation = made_up(tmp_path, ["a", "b", "c"], 300, picture=noise())
    files = write_report(evaluation, tmp_path / "report", ReportOptions(picture_bytes=200_000))
    assert 100_000 < files.html.stat().st_size < 300_000
    with opened(browser, files.html) as found:
        assert found.page.locator("main img").count() > 5
        loaded = "all => all.every((each) => each.naturalWidth > 20 && each.src.startsWith('data:image/jpeg'))"
        assert found.page.locator("main img").evaluate_all(loaded)
        assert "left out to keep the page small" in found.page.content()


def test_a_changed_picture_is_not_shown(browser: Any, tmp_path: Path) -> None:
    rows = [Row("a/1.jpg", (0.1, 0.9), file_size=len(noise(60))), Row("a/2.jpg", (0.2, 0.8), file_size=1)]
    images = write_label_folders(tmp_path / "images", [row.image for row in rows], noise(60))
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b"), rows, images=images)
    files = write_report(evaluate(predictions, images), tmp_path / "report")
    with opened(browser, files.html) as found:
        shown = found.page.locator("#mistakes figure").all_inner_texts()
        assert len(shown) == 2
        assert "changed after scoring" in shown[1]
        assert found.page.locator("#mistakes img").count() == 1


def test_pictures_outside_the_root_are_not_shown(browser: Any, tmp_path: Path) -> None:
    secret = write_label_folders(tmp_path, ["secret.jpg", "images/a/1.jpg"], noise(60)) / "secret.jpg"
    names = (str(secret), "../secret.jpg", "a/../../secret.jpg")
    rows = [Row(name, (0.1, 0.9), file_size=len(noise(60))) for name in names]
    predictions = write_predictions(tmp_path / "p.parquet", ("a", "b"), rows, images=tmp_path / "images")
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{name},a\n" for name in names))
    files = write_report(evaluate(predictions, labels), tmp_path / "report")
    with opened(browser, files.html) as found:
        assert found.page.locator("main img").count() == 0
        assert "outside the scored folder (the images below " in found.page.content()


def test_50_classes_and_10_000_images_stay_under_2_megabytes(browser: Any, tmp_path: Path) -> None:
    folders = [f"{index:02}.Some_Famous_Place_No_{index}" for index in range(50)]
    evaluation = made_up(tmp_path, folders, 10_000, failed=40, picture=noise())
    files = write_report(evaluation, tmp_path / "report")
    assert files.html.stat().st_size < 2_000_000
    with opened(browser, files.html) as found:
        assert found.page.locator("main img").count() > 30

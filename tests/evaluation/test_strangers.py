"""A model that detects strangers: images of none of its classes."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from toys import toy_card, write_toy_model

from batchland import ScoreOptions, evaluate, score, write_report
from batchland.cli.main import main
from batchland.embeddings.duplicates import find_duplicates
from batchland.embeddings.similar import SimilarOptions, find_similar
from batchland.images.preprocess import preprocess
from batchland.models.decisions import KnownPhotos
from batchland.models.known import NEIGHBOURS, different_pictures, distances_within
from batchland.models.session import open_session

FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")


def photo(path: Path, colour: tuple[float, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), np.clip(colour, 0, 255).astype(np.uint8))).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with features, sixty photos of three colours, and the predictions of them."""
    rng = np.random.default_rng(0)
    write_toy_model(tmp_path / "toy.onnx", toy_card().model_copy(update={"features": 3}))
    for number in range(60):
        colour = 110 * rng.random(3)
        colour[number % 3] = 200
        photo(tmp_path / "photos" / FOLDERS[number % 3] / f"{number:02}.png", tuple(colour))
    options = ScoreOptions(model=tmp_path / "toy.onnx", features=True)
    score(tmp_path / "photos", tmp_path / "preds.parquet", options)
    return tmp_path


def calibrate(folder: Path, *more: str, predictions: str = "preds.parquet") -> str:
    given = ["--labels", folder / "photos", "--model", folder / "toy.onnx", "--out", folder / "knows.onnx", "--known"]
    return CliRunner().invoke(main, ["calibrate", str(folder / predictions), *map(str, given), *more]).output


def test_strangers_are_detected(folder: Path) -> None:
    assert calibrate(folder) == (
        "known: 60 different labelled images; a stranger is farther than 95% of them\n"
        f"{folder}/knows.onnx: calibrated; score with it\n"
    )
    card = open_session(folder / "knows.onnx", "cpu").card
    assert card.known is not None
    assert (card.known.images, len(card.known.distances)) == (60, 60)
    rng = np.random.default_rng(1)
    for number in range(100):
        colour = 110 * rng.random(3)
        colour[number % 3] = 200
        photo(folder / "night" / f"known-{number:03}.png", tuple(colour))
    for number in range(30):
        photo(folder / "night" / f"stranger-{number:02}.png", tuple(150 + 50 * rng.random(3)))
    (folder / "night" / "broken.jpg").write_bytes(b"")
    score(folder / "night", folder / "night.parquet", ScoreOptions(model=folder / "knows.onnx"))
    table = pq.read_table(folder / "night.parquet", columns=["image", "known"])
    known = dict(zip(table["image"].to_pylist(), table["known"].to_pylist(), strict=True))
    assert known.pop("broken.jpg") is None
    assert all(value < 0.05 for name, value in known.items() if name.startswith("stranger"))
    usual = [value for name, value in known.items() if name.startswith("known")]
    assert np.mean(np.array(usual) < 0.05) < 0.10
    assert "features" not in pq.read_schema(folder / "night.parquet").names


def test_the_distance_in_the_graph_is_that_of_the_features(folder: Path) -> None:
    calibrate(folder)
    session = open_session(folder / "knows.onnx", "cpu", features=True)
    files = sorted((folder / "photos").rglob("*.png"))
    pixels = np.stack([preprocess(path.read_bytes(), session.card.preprocess) for path in files])
    answer = session.answer(pixels)
    assert answer.features is not None
    assert answer.distance is not None
    cosines = np.sort(answer.features @ answer.features.T, axis=1)[:, -NEIGHBOURS:]
    np.testing.assert_allclose(answer.distance[:, 0], 1 - cosines.mean(axis=1), atol=1e-3)
    np.testing.assert_array_equal(
        answer.probabilities, open_session(folder / "toy.onnx", "cpu").predict(pixels)
    )  # byte for byte


def test_a_model_can_be_calibrated_again(folder: Path) -> None:
    calibrate(folder)
    first = (folder / "knows.onnx").read_bytes()
    (folder / "knows.onnx").rename(folder / "toy.onnx")
    score(
        folder / "photos",
        folder / "preds.parquet",
        ScoreOptions(model=folder / "toy.onnx", features=True, overwrite=True),
    )
    calibrate(folder)
    assert (folder / "knows.onnx").read_bytes() == first


def test_a_calibrated_model_has_the_features_of_the_model_before(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """But its rows are others, so they are not reused."""
    calibrate(folder)
    before, after, knows = folder / "preds.parquet", folder / "after.parquet", folder / "knows.onnx"
    score(folder / "photos", after, ScoreOptions(model=knows, features=True, reuse=(str(before),)))
    assert caplog.messages[-1].partition(": no row")[2] == (
        " is reused from it: it differs in model, which has the same features but other classes, thresholds or known "
        "photos"
    )
    assert find_duplicates([before, after]).result.used_features
    name = f"{FOLDERS[0]}/00.png"
    both = find_similar(name, [before, after]).result
    alone = find_similar(str(folder / "photos" / name), [before], SimilarOptions(model=knows)).result
    assert (both.images, alone.images) == (120, 60)
    other = write_toy_model(folder / "other.onnx", toy_card(12).model_copy(update={"features": 3}))
    result = CliRunner().invoke(main, ["similar", str(folder / "photos" / name), str(after), "--model", str(other)])
    sha256 = open_session(knows, "cpu").sha256[:12]
    assert (result.exit_code, result.output) == (
        2,
        f"batchland: {other}: is not the model that scored {after}, toy (sha256 {sha256}); give that model with "
        "--model\n",
    )
    (folder / "knows.onnx").rename(folder / "moved.onnx")
    result = CliRunner().invoke(main, ["similar", str(folder / "photos" / name), str(after)])
    assert (result.exit_code, result.output) == (
        2,
        f"batchland: {knows}: does not exist any more; it is the model that scored {after}; give that model with "
        "--model\n",
    )


def test_photos_are_compared_with_others_only() -> None:
    photos = np.eye(7, dtype=np.float32)
    photos[1] = photos[0]
    one_alike, none_alike = 1 - 1 / NEIGHBOURS, 1.0
    np.testing.assert_allclose(distances_within(photos), [one_alike] * 2 + [none_alike] * 5)


def test_copies_are_one_known_photo() -> None:
    """Thirty copies of one photo gave distances below 0, and a limit that all other photos exceeded."""
    photos = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    photos = (photos / np.linalg.norm(photos, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(different_pictures(photos[[2, 0, 2, 2, 1, 0]]), photos[[2, 0, 1]])
    assert distances_within(np.repeat(photos[:1], 30, axis=0)).min() >= 0


def test_the_share_is_a_conformal_p_value() -> None:
    rule = KnownPhotos(images=4, labels_fingerprint="", distances=(0.1, 0.2, 0.3, 0.4))
    found = rule.share_as_far(np.array([0.05, 0.1, 0.15, 0.4, 0.8], np.float32))
    np.testing.assert_allclose(found, [1, 1, 0.8, 0.4, 0.1], rtol=1e-5)


def test_five_per_cent_of_known_photos_are_strangers() -> None:
    """Simulated: 500 labelled sets of 40 photos each, and one further photo for each set."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        photos = rng.normal(size=(41, 8)).astype(np.float32)
        photos /= np.linalg.norm(photos, axis=1, keepdims=True)
        rule = KnownPhotos(images=40, labels_fingerprint="", distances=tuple(distances_within(photos[:40])))
        nearest = np.sort(photos[:40] @ photos[40])[-NEIGHBOURS:]
        shares.append(float(rule.share_as_far(np.array([1 - nearest.mean()], np.float32))[0]))
    assert 0.02 < np.mean(np.array(shares) <= 0.05) < 0.07


def test_what_is_missing_is_named(folder: Path) -> None:
    score(folder / "photos", folder / "plain.parquet", ScoreOptions(model=folder / "toy.onnx"))
    assert calibrate(folder, predictions="plain.parquet") == (
        f"batchland: {folder}/plain.parquet: has no features; score the labelled images with them; use "
        "`batchland score --features`\n"
    )
    for path in sorted((folder / "photos").rglob("*.png"))[:41]:
        path.unlink()
    assert calibrate(folder).startswith(
        f"batchland: {folder}/preds.parquet: 19 different pictures with a label; known needs at least 20"
    )
    write_toy_model(folder / "toy.onnx")
    assert calibrate(folder) == (
        f"batchland: {folder}/toy.onnx: gives no features; export or adopt it again to add them\n"
    )


def test_the_report_shows_the_least_known_images(folder: Path) -> None:
    calibrate(folder)
    photo(folder / "photos" / FOLDERS[0] / "grey.png", (180, 180, 180))
    score(folder / "photos", folder / "again.parquet", ScoreOptions(model=folder / "knows.onnx"))
    evaluation = evaluate(folder / "again.parquet", folder / "photos")
    assert evaluation.strangers is not None
    first = evaluation.strangers.to_pylist()[0]
    assert (first["image"], first["true_label"]) == ("00.Red_Tower/grey.png", "Red Tower")
    assert first["known"] < 0.05
    assert evaluation.summary.strangers == len(evaluation.strangers)
    page = write_report(evaluation, folder / "report").html.read_text()
    section = page.partition('<section id="strangers"')[2].partition("</section>")[0]
    assert f"{evaluation.summary.strangers} images of 61" in section
    assert re.findall(r"[\w.]+/\w+\.png", re.sub("</?bdi>|<wbr>", "", section))[0] == "00.Red_Tower/grey.png"

"""`batchland classes add`: a class from a few photos, its figures, and the accuracy of the old classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import batchland
from photo_like import photo
from PIL import Image
from toys import COLOURS, options, write_dense_model

from batchland import score
from batchland.embeddings.new_class import _chosen, _compared, _cost, _fit, _Labelled, _limit_of_fit, _Photos
from batchland.images.preprocess import preprocess
from batchland.models.canaries import read_canaries
from batchland.models.card import AddedClass
from batchland.models.features import keep_features
from batchland.models.session import open_session
from batchland.predictions.reader import StoredPredictions

RNG = np.random.default_rng(3)


def write_pictures(folder: Path, count: int, pattern: np.ndarray) -> None:
    """PNG files of 8 x 8 pixels: another photo each time, with a pattern, 0 to 255, over it."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.clip(0.7 * photo(RNG, 8) + 0.8 * (pattern - 125) + 30, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx with features, photos `mill/` of vertical stripes, labelled photos `old/` of other patterns."""
    data = tmp_path_factory.mktemp("classes")
    keep_features(write_dense_model(data / "model.onnx"))
    stripes = np.tile(np.repeat([30.0, 220.0], 2), 2)[None, :, None] * np.ones((8, 1, 3))
    write_pictures(data / "mill", 12, stripes)
    for folder in COLOURS:
        write_pictures(data / "old" / folder, 8, RNG.uniform(0, 255, (8, 8, 3)))
    return data


def test_the_new_class_is_recognised_and_the_old_answers_stay(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.onnx"
    arguments = ("classes", "add", "Old Mill", data / "mill", "--model", data / "model.onnx", "--out", out)
    result = batchland(*arguments, "--labels", data / "old")
    assert result.exit_code == 0, result.stderr
    before, after = open_session(data / "model.onnx", "cpu", features=True), open_session(out, "cpu", features=True)
    assert after.card.labels == ("Red Tower", "Green Hill", "Blue Lake", "Old Mill")
    assert after.card.folders[-1] == "Old_Mill"
    (added,) = after.card.added
    pixels = {
        kind: np.stack([preprocess(file.read_bytes(), before.card.preprocess) for file in sorted(path.rglob("*.png"))])
        for kind, path in (("mill", data / "mill"), ("old", data / "old"))
    }
    right = before.predict(pixels["old"]).argmax(axis=1) == np.repeat([0, 1, 2], 8)
    assert added == AddedClass(
        label="Old Mill",
        photos=12,
        scenes=12,
        recognised=12,
        labelled=24,
        right_before=int(right.sum()),
        right_after=int(right.sum()),
        taken=0,
    )
    assert result.stdout.splitlines()[0] == (
        "Old Mill: 12 of 12 photos recognised when held out, 100.0% (75.8 to 100.0%)"
    )
    assert (
        "added         label Old Mill, photos 12, scenes 12, recognised 12, labelled 24, right_before "
        in batchland("inspect", out).stdout
    )
    assert (after.predict(pixels["mill"]).argmax(axis=1) == 3).all()
    old, new = before.predict(pixels["old"]), after.predict(pixels["old"])
    np.testing.assert_allclose(new.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(new[:, :3] / new[:, :3].sum(axis=1, keepdims=True), old, atol=1e-4)
    assert after.features_sha256 == before.sha256
    canaries = read_canaries(out)
    assert canaries is not None
    assert canaries.info.model_sha256 == after.sha256


def test_a_second_class_and_scoring(data: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "rows", 6, np.tile(np.repeat([220.0, 30.0], 2), 2)[:, None, None] * np.ones((1, 8, 3)))
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    result = batchland("classes", "add", "Old Mill", data / "mill", "-m", data / "model.onnx", "-o", first)
    assert (
        "note: the threshold is the one that 95% of these photos pass, so this share is no accuracy; how many images "
        "of the old classes are now classified as the new one is unknown, and may be most: measure it with --labels\n"
    ) in result.stdout
    shown = [line for line in batchland("inspect", first).stdout.splitlines() if line.startswith("added")]
    assert [line.split(maxsplit=1)[1] for line in shown] == ["label Old Mill, photos 12, scenes 12, recognised 11"]
    assert batchland("classes", "add", "Field", tmp_path / "rows", "-m", first, "-o", second).exit_code == 0
    assert len(open_session(second, "cpu").card.added) == 2
    for out in (second, shutil.copy(data / "model.onnx", tmp_path / "m.onnx")):
        before = Path(out).read_bytes()
        again = ("classes", "add", "Old Mill", data / "mill", "-m", data / "model.onnx", "-o", out)
        result = batchland(*again)
        message = f"batchland: {out}: exists and is not an earlier model with this class added; give another name; "
        assert (result.exit_code, result.stderr) == (2, f"{message}--overwrite replaces it\n")
        assert Path(out).read_bytes() == before
        assert batchland(*again, "--overwrite").exit_code == batchland(*again).exit_code == 0
    score(data / "mill", tmp_path / "preds.parquet", options(second, features=True))
    labels = StoredPredictions(tmp_path / "preds.parquet").table("preds.parquet", ["label"])["label"].to_pylist()
    assert labels.count("Old Mill") >= 10


def test_copies_count_as_one_scene(data: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "few", 3, RNG.uniform(0, 255, (8, 8, 3)))
    for number in range(5):
        (tmp_path / "few" / f"copy{number}.png").write_bytes((tmp_path / "few" / "0.png").read_bytes())
    (tmp_path / "few" / "broken.png").write_text("no photo")
    result = batchland("classes", "add", "Few", tmp_path / "few", "-m", data / "model.onnx", "-o", tmp_path / "n.onnx")
    assert (result.exit_code, result.stderr) == (
        2,
        f"batchland: {tmp_path / 'few'}: has 3 readable photos of different scenes; a class needs 5, and better has "
        "20\n",
    )
    assert not (tmp_path / "n.onnx").exists()


def test_few_labelled_photos_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "old", tmp_path / "old")
    for number in range(2, 8):
        (tmp_path / "old" / "00.Red_Tower" / f"{number}.png").unlink()
    arguments = ("classes", "add", "Old Mill", data / "mill", "-m", data / "model.onnx", "-o", tmp_path / "n.onnx")
    result = batchland(*arguments, "--labels", tmp_path / "old")
    assert (result.exit_code, result.stderr) == (
        2,
        f"batchland: {tmp_path / 'old'}: has 18 labelled photos; a limit of 5.0% needs at least 20; with labelled "
        "photos, --most-taken allows more\n",
    )


def test_the_limit_holds_in_the_cross_validation() -> None:
    """A twentieth of 90 photos is 4 photos."""
    rng = np.random.default_rng(2)
    before, taken = [], []
    for _ in range(4):
        features = rng.normal(size=(110, 24)).astype(np.float32) + 0.15 * (np.arange(110) >= 90)[:, None]
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        even = np.full((110, 2), 0.5, np.float32)
        old = _Labelled(features[:90], even[:90], np.zeros(90, np.intp))
        new = _Photos(features[90:], even[90:], np.arange(20), ())
        before.append(_cost(new, old, 0.05).taken > 4)
        taken.append(_limit_of_fit(new, old, 0.05)[1].taken)
    assert (any(before), max(taken)) == (True, 4)


def test_a_class_without_recognised_photos_is_refused(data: Path, tmp_path: Path) -> None:
    """The labelled photos of the old classes look like those of the new one."""
    for folder in COLOURS:
        shutil.copytree(data / "mill", tmp_path / "old" / folder)
    out = tmp_path / "n.onnx"
    arguments = ("classes", "add", "Old Mill", data / "mill", "-m", data / "model.onnx", "-o", out)
    result = batchland(*arguments, "--labels", tmp_path / "old")
    message = (
        f"batchland: {data / 'mill'}: none of 12 photos is recognised when held out, because the old classes look like "
        "them; give other photos, or train again; with labelled photos, --most-taken allows more\n"
    )
    assert (result.exit_code, result.stderr) == (2, message)
    assert not out.exists()


def test_the_threshold_is_searched_above_the_largest_old_similarity() -> None:
    """The nearest old photo may not be taken, and all new photos are more similar than it."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.01, (22, 4)).astype(np.float32)
    features = noise + np.repeat(np.eye(4, dtype=np.float32)[[0, 1]], [10, 12], axis=0)
    features[0] = 0.05 * features[0] + 0.95 * features[15]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    even = np.full((22, 2), 0.5, np.float32)
    old = _Labelled(features[:10], even[:10], np.zeros(10, np.intp))
    prototype, held_out = _fit(_Photos(features[10:], even[10:], np.arange(12), ()), old, 0.05)
    assert prototype.threshold < 1
    assert not _chosen(prototype, old.features @ prototype.vector, even[:10]).any()
    assert _chosen(prototype, held_out, even[10:]).all()


def test_classes_that_look_the_same_are_known() -> None:
    assert _compared("Cafe\u0301") == _compared("CAF\u00c9")


def test_known_classes_and_models_without_features_are_errors(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "n.onnx"
    result = batchland("classes", "add", "red tower", data / "mill", "-m", data / "model.onnx", "-o", out)
    message = f"batchland: class 'red tower': {data / 'model.onnx'} already has this class; give another name\n"
    assert (result.exit_code, result.stderr) == (2, message)
    result = batchland("classes", "add", "Old\tMill", data / "mill", "-m", data / "model.onnx", "-o", out)
    message = r"batchland: class 'Old\tMill': has control characters; give it a name without them" + "\n"
    assert (result.exit_code, result.stderr) == (2, message)
    plain = write_dense_model(tmp_path / "plain.onnx")
    result = batchland("classes", "add", "Old Mill", data / "mill", "-m", plain, "-o", out)
    assert result.exit_code == 5
    assert result.stderr.startswith(f"batchland: {plain}: gives no features; ")

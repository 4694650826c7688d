"""Predictions of a few images."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import batchland
from toys import picture

from batchland.errors import UsageError
from batchland.models.session import open_session
from batchland.scoring.options import ScoreOptions
from batchland.scoring.predict import predict, prediction_table
from batchland.scoring.score import score


def test_predictions_are_those_of_score(toy_model: Path, colour_folders: Path, tmp_path: Path) -> None:
    (colour_folders / "cut.jpg").write_bytes(picture()[:-60])
    names = sorted(str(path.relative_to(colour_folders)) for path in colour_folders.rglob("*.jpg"))
    score(colour_folders, tmp_path / "preds.parquet", ScoreOptions(model=toy_model, device="cpu", top_k=2))
    scored = {row["image"]: row for row in pq.read_table(tmp_path / "preds.parquet").to_pylist()}
    session = open_session(toy_model, "cpu")
    predictions = list(predict([colour_folders / name for name in names], session, top_k=2))
    assert len(predictions) == 10
    for name, prediction in zip(names, predictions, strict=True):
        row = scored[name]
        assert prediction.image == str(colour_folders / name)
        assert [choice.model_dump() for choice in prediction.choices] == (row["top_k"] or [])
        assert (prediction.error_code, prediction.error_message) == (row["error_code"], row["error_message"])


def test_images_keep_their_order_and_may_repeat(toy_model: Path, colour_folders: Path) -> None:
    red, blue = (colour_folders / folder / "0.jpg" for folder in ("00.Red_Tower", "02.Blue_Lake"))
    images = [red, blue, red] * 30
    predictions = list(predict(images, open_session(toy_model, "cpu"), top_k=99))
    assert [prediction.choices[0].label for prediction in predictions] == ["Red Tower", "Blue Lake", "Red Tower"] * 30
    assert {len(prediction.choices) for prediction in predictions} == {3}


def test_one_path_instead_of_a_list_is_rejected(toy_model: Path) -> None:
    with pytest.raises(UsageError, match=r"images is one path, 'a\.jpg'; give a list of paths"):
        list(predict("a.jpg", open_session(toy_model, "cpu")))


def test_the_command_prints_predictions_and_failures(
    toy_model: Path, colour_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("red.jpg").write_bytes(picture())
    Path("notes.txt").write_text("no picture")
    Path("\x1b[2J.png").write_bytes(picture((0, 0, 255), kind="PNG"))
    images = ["red.jpg", "notes.txt", "none.jpg", "labelled", "\x1b[2J.png"]
    result = batchland("predict", *images, "--model", toy_model, "-k", "2", "--device", "cpu")
    assert (result.exit_code, result.stderr) == (3, "batchland: 3 of 5 images failed, see above\n")
    assert result.stdout == (
        "red.jpg\n"
        "  1  Red Tower   >99.9%\n"
        "  2  Green Hill   <0.1%\n"
        "notes.txt\n"
        "  failed: the content is not that of an image file (not_an_image)\n"
        "none.jpg\n"
        "  failed: No such file or directory (vanished)\n"
        "labelled\n"
        "  failed: is a folder; score it with `batchland score` (io_error)\n"
        "[U+001B][2J.png\n"
        "  1  Blue Lake   >99.9%\n"
        "  2  Red Tower    <0.1%\n"
    )


def test_the_command_prints_json(toy_model: Path, colour_folders: Path) -> None:
    image = str(colour_folders / "01.Green_Hill" / "0.jpg")
    result = batchland("predict", image, "--model", toy_model, "-k", "1", "--json", "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, "")
    (answer,) = json.loads(result.stdout)
    (choice,) = answer.pop("choices")
    assert answer == {"image": image, "error_code": None, "error_message": None}
    assert (choice["label"], choice["class_index"]) == ("Green Hill", 1)


def test_failed_images_alone_do_not_call_the_model(toy_model: Path, tmp_path: Path) -> None:
    (prediction,) = predict([tmp_path / "none.jpg"], open_session(toy_model, "cpu"))
    assert prediction_table([prediction]) == f"{tmp_path}/none.jpg\n  failed: No such file or directory (vanished)\n"

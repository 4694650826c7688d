"""Model cards: class names from folders, the JSON round trip, and errors for unusable cards."""

import json

import pytest
from pydantic import ValidationError
from toys import toy_card

from batchland.errors import ModelError
from batchland.models.card import ClassName, ModelCard, class_names


def test_labels_of_folders():
    folders = ["09.Golden_Gate_Bridge", "daisy", "10.", "11.__", "07.Stonehenge", "12.St._Basil's", "1.a.b"]
    assert [name.label for name in class_names(folders)] == [
        "Golden Gate Bridge", "daisy", "10.", "11.__", "Stonehenge", "St. Basil's", "a.b",
    ]  # fmt: skip
    assert [name.folder for name in class_names(folders)] == folders


def test_folders_with_the_same_label_keep_their_own_names():
    names = class_names(["01.Old_Bridge", "02.Old_Bridge", "03.New_Bridge"])
    assert names == (
        ClassName(folder="01.Old_Bridge", label="01.Old_Bridge"),
        ClassName(folder="02.Old_Bridge", label="02.Old_Bridge"),
        ClassName(folder="03.New_Bridge", label="New Bridge"),
    )


def test_no_label_is_another_folders_name():
    folders = ["01.Bridge", "02.Bridge", "3.01.Bridge"]
    assert [name.label for name in class_names(folders)] == folders


def test_a_card_is_equal_after_a_json_round_trip():
    card = toy_card()
    assert ModelCard.from_json(card.to_json(), "x.onnx") == card


def changed(**changes):
    return json.dumps(json.loads(toy_card().to_json()) | changes)


DAMAGED = "x.onnx: its batchland card is damaged ({}); export the model again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            changed(schema_version=2),
            "x.onnx: its card has schema_version 2, this version of batchland reads 1; update batchland, "
            "or export the model again",
        ),
        (
            "{",
            "x.onnx: its batchland card is not JSON (Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1)); export the model again",
        ),
        (
            changed(classes=[]),
            DAMAGED.format("classes: Tuple should have at least 1 item after validation, not 0"),
        ),
        (changed(preprocess={"height": -1}), DAMAGED.format("preprocess.height: Input should be greater than 0")),
        (changed(colour="red"), DAMAGED.format("colour: Extra inputs are not permitted")),
        (
            changed(prediction_sets={"coverage": 0.9, "threshold": float("nan"), "images": 9}),
            DAMAGED.format("prediction_sets.threshold: Input should be a finite number"),
        ),
    ],
    ids=["newer", "no json", "no classes", "bad spec", "unknown key", "not finite"],
)
def test_an_unusable_card_is_a_model_error(text, message):
    with pytest.raises(ModelError) as caught:
        ModelCard.from_json(text, "x.onnx")
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["folder", "label"])
def test_class_names_are_unique(kind):
    names = [{"folder": "a", "label": "A"}, {"folder": "b", "label": "B"}]
    names[1][kind] = names[0][kind]
    with pytest.raises(ValidationError, match=f"class {kind} .* appears twice"):
        toy_card().model_validate(toy_card().model_dump() | {"classes": names})


def test_a_card_with_a_key_twice_is_an_error():
    text = toy_card().to_json().replace('{"schema_version":', '{"name":"other","schema_version":')
    with pytest.raises(ModelError) as caught:
        ModelCard.from_json(text, "x.onnx")
    assert str(caught.value) == "x.onnx: its batchland card has the key 'name' 2 times; export the model again"

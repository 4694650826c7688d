"""What a model must be to be scored with: its card, and a graph that fits it. Knows nothing of devices."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchland.errors import ModelError
from batchland.models.card import METADATA_KEY, ModelCard

Probabilities = npt.NDArray[np.float32]

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "probabilities"


def read_model(path: Path) -> bytes:
    """The file's content. Raises ModelError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give an exported or adopted model") from error
    if not content:
        raise ModelError(f"{path}: is empty; export the model again")
    return content


def checked_card(path: Path, session: Any) -> ModelCard:
    """The card of an onnxruntime session's model, whose graph fits it. Raises ModelError."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{path}: has no batchland card (class names and preprocessing); add one with `batchland adopt {path.name} "
            f"--classes labels.txt --preprocess imagenet --out adopted.onnx`"
        )
    card = ModelCard.from_json(text, str(path))
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    wanted = ("tensor(uint8)", list(card.preprocess.shape))
    kind, shape = inputs.get(INPUT_NAME, ("no such input", []))
    if len(inputs) != 1 or (kind, shape[1:]) != wanted or isinstance(shape[0], int):
        raise ModelError(
            f"{path}: its input is {inputs}, but its card asks for {INPUT_NAME} uint8 [batch, "
            f"{', '.join(map(str, wanted[1]))}]; export the model again"
        )
    outputs = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    kind, shape = outputs.get(OUTPUT_NAME, ("no such output", []))
    if kind != "tensor(float)" or len(shape) != 2 or shape[1] != len(card.classes):
        raise ModelError(
            f"{path}: its output is {outputs}, but its card names {len(card.classes)} classes; export the model again"
        )
    return card


def check_answer(path: Path, card: ModelCard, images: int, probabilities: Probabilities) -> None:
    """Raise ModelError unless there is a row per image."""
    if probabilities.shape != (images, len(card.classes)):
        raise ModelError(
            f"{path}: gave probabilities of shape {list(probabilities.shape)} for {images} images and "
            f"{len(card.classes)} classes; export the model again"
        )

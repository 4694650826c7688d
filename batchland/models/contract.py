"""Requirements of a model file: a card, a graph that matches it, and answers that match both."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.errors import ModelError
from batchland.models.card import METADATA_KEY, ModelCard
from batchland.system.files import Replaceable, check_new_file, read_error
from batchland.system.regular_files import read_regular
from batchland.system.text import visible

_log: Final = logging.getLogger("batchland")

Probabilities = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "probabilities"
FEATURES_NAME: Final = "features"
"""Output of models whose card has `features`."""
DISTANCE_NAME: Final = "distance"
"""Output of models whose card has `known`."""
_CARD_ENTRY: Final = b"\x0a" + bytes([len(METADATA_KEY)]) + METADATA_KEY.encode() + rb"\x12([\x80-\xff]*[\x00-\x7f])"
"""An entry of metadata_props: its key, and the length of the value, seven bits a byte."""
_GIT_LFS: Final = b"version https://git-lfs"
TOLERANCE: Final = 0.01
"""How far a sum of probabilities may be from 1, and a probability below 0: rounding of half floats."""


class Answer(NamedTuple):
    """The outputs of a model for a batch of pictures."""

    probabilities: Probabilities
    """float32 [batch, classes]."""
    features: Features | None = None
    """float32 [batch, features], rows of length 1; None if they were not asked for."""
    distance: npt.NDArray[np.float32] | None = None
    """Distance from the known photos, float32 [batch, 1]; None if the model has no such output."""


def further_outputs(card: ModelCard, *, features: bool) -> dict[str, int]:
    """The outputs to compute besides probabilities, and their widths. They are named as the fields of Answer."""
    outputs = {FEATURES_NAME: card.features} if features and card.features else {}
    return outputs | ({DISTANCE_NAME: 1} if card.known else {})


def read_model(path: Path) -> bytes:
    """The content of a model file, which must be a regular file. Raises ModelError."""
    try:
        content = read_regular(path)
    except OSError as error:
        raise read_error(error, str(path), expected=_expected_file(path), wrong=ModelError) from error
    if not content:
        raise ModelError(f"{path}: is empty; export the model again")
    require_content(path, content)
    return content


def require_content(path: Path, content: bytes) -> None:
    """Raise ModelError if it is the small text that Git LFS leaves in place of a large file."""
    if content.startswith(_GIT_LFS):
        raise ModelError(
            f"{path}: is only the pointer of Git LFS to the model; get the file itself with `git lfs pull`"
        )


def _expected_file(path: Path) -> str:
    """Advice for a file that cannot be read: what to give instead."""
    if not path.suffix and "@" not in path.name:
        return f"an exported or adopted model; a job names a version in the registry as {path.name}@ALIAS"
    name, _, version = path.name.partition("@")
    if not name or not version or "@" in version or path.suffix == ".onnx":
        return "an exported or adopted model"
    return (
        f"the file of that version, models/{name}/NUMBER/{name}.onnx; only jobs take NAME@VERSION "
        f"(`batchland models show {name}` names the versions)"
    )


def check_new_model(
    path: Path,
    reads: Iterable[Path] = (),
    *,
    what: str = "a model with a batchland card",
    replaces: Callable[[ModelCard], bool] = lambda _: True,
    overwrite: bool = False,
) -> None:
    """`check_new_file` for a model with a card, which replaces only an earlier one with a card; its name is logged.

    what: the models that may be replaced, for messages. replaces: tests the card of one.
    """

    def is_replaced(file: Path) -> bool:
        text = _card_text(read_model(file))
        with suppress(ModelError):
            card = ModelCard.from_json(text or "", str(file))
            if not replaces(card):
                return False
            _log.info("%s: will replace the model %s of %s", file, visible(card.name), card.created_at[:10])
        return text is not None

    check_new_file(path, ".onnx", reads, replaces=Replaceable(what, is_replaced), overwrite=overwrite)


def _card_text(content: bytes) -> str | None:
    """The card in a model file, without parsing the graph; None if it has none."""
    found = re.search(_CARD_ENTRY, content)
    if found is None:
        return None
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(found[1]))
    return content[found.end() : found.end() + length].decode("utf-8", "replace")


def require_self_contained(path: Path, content: bytes) -> None:
    """Raise ModelError if tensors of the model are in other files, because the sha256 does not cover those."""
    if outside := tensor_outside(content):
        raise ModelError(f"{path}: keeps its weights in another file ({outside}); save it as one ONNX file")


def tensor_outside(content: bytes) -> str | None:
    """The name of a tensor that an ONNX file keeps in another file."""
    if b"location" not in content:  # every reference to a file has this key
        return None
    import onnx  # a third of a second

    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf has its own exceptions; onnxruntime will report the problem
        return None
    outside = next((tensor for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL), None)
    return None if outside is None else outside.name or "a constant"


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of a protobuf message of ONNX: weights, constants, those in branches and functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.name == "TensorProto":
                yield part
            else:
                yield from _tensors(part)


def checked_card(path: Path, session: Any) -> ModelCard:
    """The card of an onnxruntime session's model. Raises ModelError if it has none or its graph does not match."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path}: has no batchland card (class names and preprocessing)", advice="adopt", model=path)
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
    for name, width in further_outputs(card, features=True).items():
        kind, shape = outputs.get(name, ("no such output", []))
        if kind != "tensor(float)" or shape[1:] != [width]:
            raise ModelError(
                f"{path}: its output is {outputs}, but its card has {name} of width {width}; export it again"
            )
    return card


def require_features(path: Path, card: ModelCard) -> None:
    """Raise ModelError if the model has no output of features."""
    if card.features is None:
        raise ModelError(f"{path}: gives no features; export or adopt it again to add them", advice="no_features")


def are_probabilities(rows: Probabilities) -> npt.NDArray[np.bool_]:
    """For each row whether its numbers are probabilities: none of them negative, their sum about 1. False for NaN."""
    lowest, sums = rows.min(axis=1), rows.sum(axis=1)
    return (lowest >= -TOLERANCE) & (np.abs(sums - 1) <= TOLERANCE)


def check_answer(path: Path, card: ModelCard, images: int, probabilities: Probabilities) -> None:
    """Raise ModelError unless there is one row per image, and at least one row of probabilities among the finite ones.

    Single wrong rows, and rows that are not finite, make their images fail, not the run.
    """
    if probabilities.shape != (images, len(card.classes)):
        raise ModelError(
            f"{path}: returned probabilities of shape {list(probabilities.shape)} for {images} images and "
            f"{len(card.classes)} classes; export the model again"
        )
    if not (images and are_probabilities(probabilities).any()):
        finite = probabilities[np.isfinite(probabilities).all(axis=1)]
        if len(finite):
            raise ModelError(
                f"{path}: its outputs are not probabilities: they lie between {finite.min():.3g} and "
                f"{finite.max():.3g} and sum to {finite[0].sum():.3g}; export or adopt the model again"
            )

"""Write a model again with another card."""

from collections.abc import Callable
from pathlib import Path

import onnx

from batchland.models.canaries import write_canaries
from batchland.models.card import METADATA_KEY, ModelCard
from batchland.models.contract import check_new_model, read_model, require_self_contained
from batchland.models.session import Session, open_session
from batchland.system.files import new_file

Change = Callable[[onnx.ModelProto], None]
"""Changes a model in place."""


def check_model(model: Path, out: Path) -> Session:
    """Open a model to change its card, and check that `out` can be written. Raises as `open_session` and
    `check_new_model` do."""
    check_new_model(out, (model,))
    return open_session(model, "cpu")


def write_with_card(model: Path, card: ModelCard, out: Path, change: Change | None = None) -> None:
    """Write `model` to `out` with this card, and its canaries beside it. Raises ModelError, OutputError.

    change: applied to the model before.
    """
    content = read_model(model)
    require_self_contained(model, content)
    whole = onnx.load_model_from_string(content)
    if change:
        change(whole)
    for entry in whole.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = card.to_json()
    with new_file(out) as temporary:
        onnx.save(whole, temporary)
    write_canaries(open_session(out, "cpu"))

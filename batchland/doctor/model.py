"""Check that a model answers on a device."""

from collections.abc import Iterator
from pathlib import Path

from batchland.doctor.check import Check
from batchland.errors import UsageError


def check_model(name: str, path: Path | None, device: str, *, canaries: bool = True) -> Iterator[Check]:
    """Check that the model answers on the device. path: None means the model that scoring would use.

    canaries: check, too, that its canaries are its own.
    """
    import numpy as np

    from batchland.models.canaries import own_canaries
    from batchland.models.session import open_session
    from batchland.scoring.options import find_model

    try:
        chosen = find_model(path)
    except UsageError as error:
        yield Check(name, "warn", str(error), "make one with `batchland adopt` or `batchland export`, or name one")
        return
    session = open_session(chosen, device)
    session.predict(np.zeros((1, *session.card.preprocess.shape), np.uint8))
    if canaries:
        own_canaries(session.path, session.sha256)
    card = session.card
    found = f"{session.path}: {card.name}, {len(card.classes)} classes, sha256 {session.sha256[:12]}, runs on "
    yield Check(name, "ok", found + session.device)

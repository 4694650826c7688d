"""Read photo files: what copies are found by, and the answers of a model."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from batchland.embeddings.copies import near_copies
from batchland.embeddings.neighbours import Rows
from batchland.images.loader import BatchLoader, load_measured
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.models.contract import Features, Probabilities
from batchland.models.session import Session


class Photos(NamedTuple):
    """Readable photos. All fields but `skipped` have the same length and order."""

    names: tuple[str, ...]
    signals: tuple[bytes, ...]
    """A row of SIGNAL_DTYPE per photo."""
    features: Features | None
    """[photos, features]; None without a model, or without photos."""
    probabilities: Probabilities | None
    """[photos, classes]; None without a model, or without photos."""
    skipped: tuple[str, ...]
    """Names of the photos that cannot be read."""

    def copies(self) -> list[Rows]:
        """Groups of near-copies."""
        return near_copies(self.signals, self.features)


def read_photos(photos: Iterable[ImageRef], spec: PreprocessSpec, session: Session | None) -> Photos:
    """Read photos. session: a model with features that is open for them; None if signals are enough."""
    names, signals, features, probabilities, skipped = [], [], [], [], []
    for batch in BatchLoader(photos, spec, 16, load=load_measured):
        good = [row for row, outcome in enumerate(batch.outcomes) if outcome.error is None]
        skipped += [ref.name for ref, each in zip(batch.refs, batch.outcomes, strict=True) if each.error]
        names += [batch.refs[row].name for row in good]
        signals += [batch.outcomes[row].signals or b"" for row in good]
        if session and good:
            answer = session.answer(batch.pixels[good])
            assert answer.features is not None
            features.append(answer.features)
            probabilities.append(answer.probabilities)
    return Photos(
        tuple(names),
        tuple(signals),
        np.concatenate(features) if features else None,
        np.concatenate(probabilities) if probabilities else None,
        tuple(skipped),
    )

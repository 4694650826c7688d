"""Entropy, logsumexp and top logit of each answer of a model, computed from its probabilities.

The model ends in softmax, which keeps only the differences of the logits: the logarithms of the probabilities are the
logits minus a constant. Therefore the logits here are centred: their mean over the classes is subtracted. Training
keeps that mean nearly constant, because the gradient of the cross-entropy sums to zero over the classes.
"""

from typing import Final, NamedTuple, Self

import numpy as np

from batchland.models.contract import Probabilities

_MIN_PROBABILITY: Final = np.float32(2.0**-126)  # of np.finfo, which takes 30 ms
"""A smaller probability counts as this one, 1.2e-38. Its logarithm is -87.3."""


class Answers(NamedTuple):
    """Figures of n answers, float32. A row's figures depend on no other row."""

    log_probabilities: Probabilities
    """Natural logarithms, [n, classes]."""
    entropy: Probabilities
    """Entropy of the probabilities in nats, [n]."""
    logsumexp: Probabilities
    """Logarithm of the sum of the exponentials of the centred logits, [n]; its negative is called energy."""
    top_logit: Probabilities
    """The largest centred logit, [n]."""

    @classmethod
    def of(cls, probabilities: Probabilities) -> Self:
        """probabilities: finite, [n, classes]."""
        logs = np.log(np.clip(probabilities, _MIN_PROBABILITY, 1))
        logsumexp = -logs.mean(axis=1)  # ln p = z - logsumexp(z), and the mean of the centred z is 0
        entropy = np.maximum(-(np.exp(logs) * logs).sum(axis=1), 0)
        return cls(logs, entropy, logsumexp, logs.max(axis=1) + logsumexp)

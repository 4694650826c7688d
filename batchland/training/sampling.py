"""Which image is drawn when, and with what augmentation: a function of the seed and the epoch alone."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

with warnings.catch_warnings():  # of its own __about__, at import
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchsampler import ImbalancedDatasetSampler


class Draw(NamedTuple):
    """What a sampler asks a dataset for: an example, and the seed of its augmentation."""

    place: int
    seed: int


class BalancedDraws:
    """torchsampler's ImbalancedDatasetSampler, an epoch's draws of which follow from the seed and the epoch alone."""

    def __init__(self, labels: Sequence[int], seed: int) -> None:
        self._sampler = ImbalancedDatasetSampler(labels, callback_get_label=_as_they_are)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, number: int) -> list[Draw]:
        """As many draws as there are labels, every class equally often on average."""
        seeds = np.random.SeedSequence((self._seed, number))
        with torch.random.fork_rng(devices=[]):  # the sampler draws from torch's global generator
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            places = [int(place) for place in self._sampler]
        augmentation_seeds = np.random.default_rng(seeds).integers(2**63, size=len(places))
        return [Draw(place, int(seed)) for place, seed in zip(places, augmentation_seeds, strict=True)]


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one epoch's draws for a DataLoader, from any step on. Set with `start` before each pass."""

    def __init__(self, draws: BalancedDraws, batch_size: int) -> None:
        self._draws = draws
        self._batch_size = batch_size
        self._batches: list[list[Draw]] = []

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-len(self._draws) // self._batch_size)

    def start(self, epoch: int, step: int) -> None:
        """The next pass is `epoch`, without its first `step` batches."""
        draws = self._draws.epoch(epoch)[step * self._batch_size :]
        self._batches = [draws[at : at + self._batch_size] for at in range(0, len(draws), self._batch_size)]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._batches)


def _as_they_are(labels: Any) -> Any:
    return list(labels)

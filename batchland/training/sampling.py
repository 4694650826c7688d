"""Draw the images of an epoch and the seeds of their augmentation, from the run's seed and the epoch alone."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import RandomSampler, Sampler

with warnings.catch_warnings():  # at import, it warns about its own `__about__` module
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchsampler import ImbalancedDatasetSampler


class Draw(NamedTuple):
    """Index of an example in the dataset, and the seed of its augmentation."""

    example: int
    seed: int


class Draws:
    """The draws of each epoch: the same seed and epoch give the same draws.

    balanced: draw with torchsampler's ImbalancedDatasetSampler, every class equally often on average; otherwise every
    example once, in random order.
    """

    def __init__(self, labels: Sequence[int], seed: int, *, balanced: bool = True) -> None:
        self._sampler: Sampler[int] = (
            ImbalancedDatasetSampler(labels, callback_get_label=list) if balanced else RandomSampler(range(len(labels)))
        )
        self._length = len(labels)
        self._seed = seed

    def __len__(self) -> int:
        return self._length

    def epoch(self, number: int) -> list[Draw]:
        """Draw as many samples as there are labels."""
        seeds = np.random.SeedSequence((self._seed, number))
        with torch.random.fork_rng(devices=[]):  # the sampler draws from torch's global generator
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            indices = [int(index) for index in self._sampler]
        augmentation_seeds = np.random.default_rng(seeds).integers(2**63, size=len(indices))
        return [Draw(index, int(seed)) for index, seed in zip(indices, augmentation_seeds, strict=True)]


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one epoch's draws, for a DataLoader. Call `start` before each pass."""

    def __init__(self, draws: Draws, batch_size: int) -> None:
        self._draws = draws
        self._batch_size = batch_size
        self._batches: list[list[Draw]] = []

    def __len__(self) -> int:
        """Number of batches of a whole epoch."""
        return -(-len(self._draws) // self._batch_size)

    def start(self, epoch: int, step: int) -> None:
        """Set the next pass to `epoch`, without its first `step` batches."""
        draws = self._draws.epoch(epoch)[step * self._batch_size :]
        self._batches = [draws[at : at + self._batch_size] for at in range(0, len(draws), self._batch_size)]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._batches)

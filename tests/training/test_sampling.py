"""Balanced draws, a function of seed and epoch."""

from collections import Counter

import torch

from batchland.training.sampling import Draws, EpochBatches

LABELS = [0] * 3 + [1] * 30


def test_draws_are_balanced_and_reproducible() -> None:
    draws, again, other = (Draws(LABELS, seed) for seed in (1, 1, 2))
    state = torch.get_rng_state()
    epochs = [draws.epoch(number) for number in range(40)]
    assert torch.equal(torch.get_rng_state(), state)
    assert [again.epoch(1), again.epoch(0)] == [epochs[1], epochs[0]]
    assert epochs[0] != epochs[1]
    assert other.epoch(0) != epochs[0]
    assert {len(epoch) for epoch in epochs} == {33}
    shares = Counter(LABELS[draw.example] for epoch in epochs for draw in epoch)
    assert 0.45 < shares[0] / shares.total() < 0.55


def test_unbalanced_draws_have_every_example_once() -> None:
    draws, again = (Draws(LABELS, 1, balanced=False) for _ in range(2))
    epochs = [[draw.example for draw in draws.epoch(number)] for number in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(33))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert again.epoch(2) == draws.epoch(2)


def test_epoch_can_start_at_any_batch() -> None:
    batches = EpochBatches(Draws(LABELS, 1), batch_size=8)
    assert len(batches) == 5
    batches.start(7, 0)
    whole = list(batches)
    assert [len(batch) for batch in whole] == [8, 8, 8, 8, 1]
    assert [draw for batch in whole for draw in batch] == Draws(LABELS, 1).epoch(7)
    for first in range(6):
        batches.start(7, first)
        assert list(batches) == whole[first:]

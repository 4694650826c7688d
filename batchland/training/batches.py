"""Batches for the training loop: augmented images from worker processes, features in memory, validation in order."""

import atexit
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from batchland.training.compute import Compute
from batchland.training.dataset import PhotoDataset
from batchland.training.loop import Batch
from batchland.training.sampling import Draw, Draws, EpochBatches

Loader = DataLoader[tuple[Tensor, int]]


class ImageBatches:
    """Augmented images in batches, uint8 [batch, height, width, 3], made by worker processes."""

    def __init__(self, dataset: PhotoDataset, draws: Draws, batch_size: int, workers: int, compute: Compute) -> None:
        self._batches = EpochBatches(draws, batch_size)
        self._loader = image_loader(dataset, self._batches, workers, compute)
        self._device = compute.device

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at batch `first`."""
        self._batches.start(number, first)
        for inputs, labels in self._loader:
            yield inputs.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


class FeatureBatches:
    """Features [views, photos, features] in batches; each draw takes one of the photo's views."""

    def __init__(self, views: Tensor, labels: Tensor, draws: Draws, batch_size: int) -> None:
        self._views = views
        self._labels = labels
        self._batches = EpochBatches(draws, batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at batch `first`."""
        self._batches.start(number, first)
        for draws in self._batches:
            photos = torch.tensor([draw.example for draw in draws], device=self._views.device)
            views = torch.tensor([draw.seed % len(self._views) for draw in draws], device=self._views.device)
            yield self._views[views, photos], self._labels[photos]


class InOrder:
    """Batches of inputs with their labels, in the same order at every pass."""

    def __init__(self, inputs: Callable[[], Iterable[Tensor]], labels: Tensor, device: torch.device) -> None:
        self._inputs = inputs
        self._labels = labels
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for inputs in self._inputs():
            labels = self._labels[start : start + len(inputs)]
            start += len(inputs)
            yield inputs.to(self._device), labels.to(self._device)


def image_loader(dataset: PhotoDataset, batches: Iterable[Sequence[Draw]], workers: int, compute: Compute) -> Loader:
    """A DataLoader of the images that each list of draws names."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # indices may be anything that the dataset understands
        num_workers=workers,
        generator=torch.Generator(),  # the global one would advance differently with another number of workers
        pin_memory=compute.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # not 3.14's default
    )


def _ignore_signals(worker: int) -> None:  # noqa: ARG001
    """Ctrl-C and a service manager's SIGTERM reach the whole group; the parent finishes its step, then ends workers."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


@atexit.register  # runs before multiprocessing's own handler, which sends SIGTERM and then waits without a limit
def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each killed worker
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()

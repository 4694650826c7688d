"""What a loop is fed: augmented pictures by a DataLoader, features by views, and either in order for validation."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from batchland.training.compute import Compute
from batchland.training.dataset import ImageSet, PhotoDataset
from batchland.training.loop import Batch
from batchland.training.sampling import BalancedDraws, Draw, EpochBatches

Loader = DataLoader[tuple[Tensor, int]]


class PictureBatches:
    """Augmented pictures in balanced batches, uint8 [batch, height, width, 3], made by worker processes."""

    def __init__(
        self, dataset: PhotoDataset, draws: BalancedDraws, batch_size: int, workers: int, compute: Compute
    ) -> None:
        self._batches = EpochBatches(draws, batch_size)
        self._loader = picture_loader(dataset, self._batches, workers, compute)
        self._device = compute.device

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        """Those of an epoch, from number `first` on."""
        self._batches.start(number, first)
        for inputs, labels in self._loader:
            yield inputs.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


class FeatureBatches:
    """Features [views, photos, features] in balanced batches; each draw takes one of the photo's views."""

    def __init__(self, views: Tensor, labels: Tensor, draws: BalancedDraws, batch_size: int) -> None:
        self._views = views
        self._labels = labels
        self._batches = EpochBatches(draws, batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, first: int) -> Iterator[Batch]:
        """Those of an epoch, from number `first` on."""
        self._batches.start(number, first)
        for draws in self._batches:
            places = torch.tensor([draw.place for draw in draws], device=self._views.device)
            views = torch.tensor([draw.seed % len(self._views) for draw in draws], device=self._views.device)
            yield self._views[views, places], self._labels[places]


class InOrder:
    """Inputs as they come with their labels; each pass is the same."""

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


def pictures_in_order(images: ImageSet, batch_size: int, device: torch.device) -> InOrder:
    """Unaugmented pictures, as they are scored."""
    return InOrder(lambda: images.batches(batch_size), images.labels, device)


def picture_loader(dataset: PhotoDataset, batches: Iterable[Sequence[Draw]], workers: int, compute: Compute) -> Loader:
    """Of lists of draws, the pictures."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # indices may be anything that the dataset understands
        num_workers=workers,
        generator=torch.Generator(),  # else it takes numbers from the global one, more or fewer by number of workers
        pin_memory=compute.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_parent,
    )


def _leave_signals_to_the_parent(worker: int) -> None:  # noqa: ARG001
    """Ctrl-C and a service manager's SIGTERM reach the whole group; the parent ends its step and then the workers."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


@atexit.register  # after multiprocessing's own, so it comes before: that one sends SIGTERM, and waits for ever
def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()

"""The batches of names in progress, in an actor: Ray Data itself carries only their numbers to the decoders."""

import asyncio
from collections import Counter

from batchland.images.sources.refs import ImageRef


class BatchQueue:
    """Actor that keeps each batch until the driver has its rows, so that a lost batch is decoded again.

    ahead: number of batches in progress; calls for later ones wait.
    """

    def __init__(self, batches: list[list[ImageRef]], ahead: int) -> None:
        self._batches = dict(enumerate(batches))
        self._ahead = ahead
        self._taken: Counter[int] = Counter()
        self._done = 0
        self._changed = asyncio.Event()

    async def take(self, number: int) -> tuple[list[ImageRef], int]:
        """A batch, and how often it was taken before."""
        while number >= self._done + self._ahead:
            await self._changed.wait()
        self._taken[number] += 1
        return self._batches[number], self._taken[number] - 1

    async def remove(self, number: int) -> None:
        """Drop a batch after the driver has received its rows."""
        del self._batches[number], self._taken[number]
        self._done = max(self._done, number + 1)
        self._changed.set()
        self._changed.clear()

"""The batches of names under way, in an actor: Ray Data itself carries only their numbers to the decoders."""

import asyncio
from collections import Counter

from batchland.source import ImageRef


class Feed:
    """Actor that keeps the batches under way: what is decoded again after a loss is the same once more.

    Calls may overtake each other.
    """

    def __init__(self) -> None:
        self._batches: dict[int, list[ImageRef]] = {}
        self._taken: Counter[int] = Counter()
        self._forgotten = -1
        self._total: int | None = None
        self._news = asyncio.Event()

    async def put(self, number: int, refs: list[ImageRef]) -> None:
        """The driver has listed a batch."""
        self._batches[number] = refs
        self._tell()

    async def end(self, total: int) -> None:
        """There are no more than so many."""
        self._total = total
        self._tell()

    async def forget(self, number: int) -> None:
        """The driver has the rows of a batch."""
        del self._batches[number], self._taken[number]
        self._forgotten = max(self._forgotten, number)

    async def has(self, number: int) -> bool:
        """Wait for a batch. False at the end."""
        while self._total is None or number < self._total:
            if number in self._batches or number <= self._forgotten:
                return True
            await self._news.wait()
        return False

    async def take(self, number: int) -> tuple[list[ImageRef], int]:
        """A batch, and how often it was taken before."""
        self._taken[number] += 1
        return self._batches[number], self._taken[number] - 1

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()

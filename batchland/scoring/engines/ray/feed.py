"""The batches of names under way, in an actor: Ray Data itself carries only their numbers to the decoders."""

import asyncio
from collections import Counter

from batchland.images.sources.refs import ImageRef


class Feed:
    """Actor that keeps batches until their rows are there: what is lost is decoded again from the same names.

    ahead: batches that may be under way; calls for later ones wait.
    """

    def __init__(self, batches: list[list[ImageRef]], ahead: int) -> None:
        self._batches = dict(enumerate(batches))
        self._ahead = ahead
        self._taken: Counter[int] = Counter()
        self._done = 0
        self._news = asyncio.Event()

    async def take(self, number: int) -> tuple[list[ImageRef], int]:
        """A batch, and how often it was taken before."""
        while number >= self._done + self._ahead:
            await self._news.wait()
        self._taken[number] += 1
        return self._batches[number], self._taken[number] - 1

    async def forget(self, number: int) -> None:
        """The driver has the rows of a batch."""
        del self._batches[number], self._taken[number]
        self._done = max(self._done, number + 1)
        self._news.set()
        self._news.clear()

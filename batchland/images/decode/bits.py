"""Read the headers of compressed pictures, which have fields of any number of bits."""

from typing import Literal

from batchland.errors import ImageError


class Bits:
    """The bits of a header, one field after the other.

    order: `big` if a byte's highest bit comes first, `little` if its lowest.
    """

    def __init__(self, content: bytes, order: Literal["big", "little"]) -> None:
        self._whole = int.from_bytes(content, order)
        self._size = 8 * len(content)
        self._big = order == "big"
        self._at = 0

    def take(self, count: int) -> int:
        """The next bits as a number. Raises ImageError (`truncated`)."""
        begin, self._at = self._at, self._at + count
        if self._at > self._size:
            raise ImageError("truncated", "the file ends within its header")
        return self._whole >> (self._size - self._at if self._big else begin) & (1 << count) - 1

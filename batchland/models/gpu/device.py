"""The device of buffers and sessions."""

from typing import Literal, NamedTuple


class Device(NamedTuple):
    """The CPU, or one GPU by its CUDA number."""

    kind: Literal["cpu", "cuda"]
    number: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.number}"

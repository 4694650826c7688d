"""Which images belong to which of N shards: each process can tell without asking the others.

The rule is a contract between machines and between versions of batchland. The image NAME belongs to shard

    int.from_bytes(blake2b(NAME.encode("utf-8"), digest_size=8).digest(), "big") % N

counted from 0. Sources made of containers (tar files, tables) are divided by the containers' names, so that a machine
opens only the containers of its shard.

Every image has a position in the whole listing, the same in all shards: 0, 1, 2, ... In a source of containers it is
the container's index << CONTAINER_SHIFT | the image's index in the container.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batchland.errors import UsageError

CONTAINER_SHIFT: Final = 32
"""Bits of a position that hold the index within a container."""
ROW_GROUP_SIZE: Final = 1024
"""Rows per row group of a shard's files: a merge holds one row group of every shard in memory."""


class Shard(BaseModel):
    """Number `index`, from 0, of `count` shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0)
    count: int = Field(gt=0)

    @model_validator(mode="after")
    def _index_below_count(self) -> "Shard":
        if self.index >= self.count:
            raise ValueError(f"shards are counted from 0: there is no shard {self.index} of {self.count}")
        return self

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `3/16`. Raises UsageError."""
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        index, count = map(int, numbers.groups()) if numbers else (0, 0)
        if index >= count:
            raise UsageError(f"shard {text!r}: is not I/N with I from 0 to N-1, such as 0/16 to 15/16")
        return cls(index=index, count=count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder_name(self) -> str:
        """Name of the folder with this shard's parts and manifest, below the common folder of all shards."""
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def folder(self, out: Path) -> Path:
        """This shard's folder below the common folder `out`."""
        return out / self.folder_name

    def owns(self, name: str) -> bool:
        """Whether the image or container of that name belongs to this shard."""
        return self.owner(name, self.count) == self.index

    @staticmethod
    def owner(name: str, count: int) -> int:
        """Index of the shard, of `count`, that an image or container of that name belongs to."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count

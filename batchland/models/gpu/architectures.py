"""Find the GPU architectures for which onnxruntime's CUDA provider holds machine code."""

import mmap
import struct
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

_MAGIC: Final = struct.pack("<I", 0xBA55ED50)
_HEADER: Final = struct.Struct("<IHHQ")
"""A fat binary's: magic, version, its own size, size of the entries."""
_ENTRY: Final = struct.Struct("<HHIQ12xI")
"""An entry's: kind, version, its own size, size of the code, then the architecture."""
_PTX: Final = 1


class Architectures(NamedTuple):
    """Compute capabilities times ten: 90 for 9.0."""

    code: frozenset[int]
    """With machine code, which runs on the same major version from this minor version on."""
    ptx: frozenset[int]
    """With PTX, which the driver compiles for this capability and all later ones."""

    def support(self, capability: int) -> bool:
        """Whether a GPU of this capability, times ten, can run something here. True if nothing is known."""
        if not self.code and not self.ptx:
            return True
        runs = any(each // 10 == capability // 10 and each <= capability for each in self.code)
        return runs or any(each <= capability for each in self.ptx)

    def __str__(self) -> str:
        return ", ".join(f"{each // 10}.{each % 10}" for each in sorted(self.code))


@lru_cache(1)
def architectures(library: Path) -> Architectures:
    """The architectures in a shared library, found by the headers of its fat binaries; a tenth of a second."""
    found: dict[bool, set[int]] = {True: set(), False: set()}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_MAGIC)
        while at >= 0:
            _, version, header, size = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            if version == 1 and header == _HEADER.size and at + size <= len(data):
                end = at + size
                while at + _ENTRY.size <= end:
                    kind, _, header, length, architecture = _ENTRY.unpack_from(data, at)
                    found[kind == _PTX].add(architecture)
                    at += max(1, header + length)
            at = data.find(_MAGIC, at)
    return Architectures(frozenset(found[False]), frozenset(found[True]))

"""Check the machine: cores, memory, disks."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchland.doctor.check import Check, State
from batchland.system.cores import machine_memory, usable_cores, usable_memory
from batchland.system.files import write_remedy

LITTLE_MEMORY: Final = 2 * 2**30
"""Bytes. Warn below this: scoring with a built-in model in batches of 32 takes about half of it."""
LITTLE_DISK: Final = 2**30
"""Bytes. Warn below this."""


def check_cores() -> Iterator[Check]:
    """Report the usable cores."""
    cores, host = usable_cores(), os.cpu_count() or 1
    yield Check("cores", "ok", f"{cores} usable" + (f" of the machine's {host}" if cores < host else ""))


def check_memory(memory: int | None = None, machine: int | None = None) -> Iterator[Check]:
    """Report the usable memory; warn if it is little. memory, machine: bytes, by default those of this process."""
    memory, machine = memory or usable_memory(), machine or machine_memory()
    found = f"{_gigabytes(memory)} usable" + (f" of the machine's {_gigabytes(machine)}" if memory < machine else "")
    if memory >= LITTLE_MEMORY:
        yield Check("memory", "ok", found)
    else:
        yield Check("memory", "warn", found, "raise the container's limit, or lower batch_size and num_workers")


def check_disk(name: str, folder: Path, least: int = LITTLE_DISK, *, needed: bool = True) -> Iterator[Check]:
    """Check that `folder`, or its nearest existing parent, is writable and has `least` free bytes.

    needed: a folder that cannot be written fails the check; else it is a warning.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"batchland")
        status = os.statvfs(existing)
    except OSError as error:
        state: State = "fail" if needed else "warn"
        yield Check(name, state, f"{existing}: cannot be written ({error.strerror})", write_remedy(error))
        return
    free = status.f_bavail * status.f_frsize
    found = f"{_gigabytes(free)} free at {existing}"
    if free >= least:
        yield Check(name, "ok", found)
    else:
        yield Check(name, "warn", found, "free some space; a run that fills the disk stops and can be resumed")


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"

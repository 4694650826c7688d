"""Cores and memory that this process may use, by CPU affinity and the limits of its control groups."""

import math
import mmap
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where control groups are mounted: version 2 itself, or version 1 with a folder per controller."""
MEMBERSHIP: Final = Path("/proc/self/cgroup")
"""The groups of this process. In a container they are usually the root groups of the mount."""
_OUT_OF_MEMORY: Final = re.compile(
    "can't start new thread|[Ff]ailed to (?:map segment|launch worker)|[Cc]annot allocate memory"
)


@cache
def usable_cores() -> int:
    """Cores that this process may use, counted once."""
    return count_cores()


def count_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP, affinity: int | None = None) -> int:
    """Cores of the CPU affinity, or the lowest CPU quota; at least 1."""
    # macOS has no affinity
    cores = affinity or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quotas = (_cpu_quota(group) for group in _groups(cgroups, "cpu", membership))
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def usable_memory(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Bytes that this process may use before the kernel kills it: the machine's memory, or the lowest limit."""
    limits = (_memory_limit(group) for group in _groups(cgroups, "memory", membership))
    return min([machine_memory(), *(limit for limit in limits if limit is not None)])


def require_memory(size: int) -> None:
    """Raise MemoryError unless `size` bytes can be mapped. Without memory, C++ libraries abort the process."""
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise MemoryError(f"less than {size >> 20} MiB are left to start with") from error


def require_address_space() -> None:
    """Raise MemoryError if the limit of this process (`ulimit -v`) is too low for any work.

    Libraries that meet such a limit while they are loaded crash, abort or interrupt the process.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = (768 << 20) + usable_cores() * (64 << 20)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise MemoryError(f"the limit of address space is {limit >> 20} MiB, and at least {needed >> 20} are needed")


def out_of_memory(error: Exception) -> bool:
    """Whether that is the reason; libraries raise it as various errors."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute linear algebra in one thread. On busy cores several threads of OpenBLAS wait for each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


def machine_memory() -> int:
    """Bytes of the whole machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(cgroups: Path, controller: str, membership: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, innermost first; a limit of any of them counts."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    roots = ("0::/", f"0:{controller}:/")  # too, because in a container the file may have the host's names
    for line in (*roots, *lines):
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        inner = root / group.lstrip("/")
        yield inner
        yield from (folder for folder in inner.parents if folder.is_relative_to(root))


def _cpu_quota(group: Path) -> float | None:
    """The quota in cores, None where there is none."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None


def _memory_limit(group: Path) -> int | None:
    """The limit in bytes, None where there is none."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((group / name).read_text())
        except (OSError, ValueError):  # absent, or "max"
            continue
    return None

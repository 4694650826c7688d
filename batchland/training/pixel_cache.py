"""Decode every photo once: fitted pixels in memory-mapped files, kept between runs within a limit on disk.

The key of an entry covers the images' names and contents and the preprocessing; if one of them changes, a new entry is
made.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np

from batchland.errors import ErrorCode, ImageError, OutputError, UsageError
from batchland.images.preprocess import Pixels, PreprocessSpec, preprocess
from batchland.images.sources.refs import ImageRef, read_image
from batchland.system.cores import usable_cores
from batchland.system.folders import cache_folder
from batchland.system.lock import in_use, locked, shared_lock
from batchland.training.options import DEFAULT_CACHE_LIMIT

_log = logging.getLogger("batchland")

_FORMAT: Final = 1
"""Increase it when the same bytes and spec give other pixels, or the files get another layout."""
_PIXELS: Final = "pixels.npy"
_FAILURES: Final = "failures.json"
_LOCK: Final = ".lock"


class Content(NamedTuple):
    """An image and the sha256 of its content."""

    ref: ImageRef
    digest: bytes


class CachedPixels:
    """One entry: the pixels of a list of images. Not evicted while this object exists; pickled as its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        failures: dict[str, tuple[ErrorCode, str]] = json.loads((folder / _FAILURES).read_text())
        self.failures = {int(row): (code, message) for row, (code, message) in failures.items()}
        """Why an image cannot be decoded, by its row. Its pixels are 0."""
        weakref.finalize(self, os.close, shared_lock(folder / _PIXELS))

    @cached_property
    def array(self) -> Pixels:
        """uint8 [images, height, width, 3], read-only, memory-mapped."""
        return cast("Pixels", np.load(self.folder / _PIXELS, mmap_mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedPixels, (self.folder,)


@dataclass(frozen=True)
class PixelCache:
    """A folder of entries; the least recently used are removed to make room for new ones."""

    folder: Path
    limit: int = DEFAULT_CACHE_LIMIT
    """Bytes that all entries together may take."""

    def pixels(
        self, images: Sequence[Content], spec: PreprocessSpec, on_image: Callable[[int], object]
    ) -> CachedPixels:
        """The fitted pixels of the images, from the cache or decoded into it.

        on_image: called with the number of decoded images. Raises UsageError if the pixels take more than the limit or
        a file changes meanwhile, OutputError if the folder cannot be written.
        """
        entry = self.folder / _key(images, spec)
        try:
            with self._locked():
                if not entry.is_dir():
                    self._make_room(len(images) * int(np.prod(spec.shape)))
                    self._build(entry, images, spec, on_image)
                os.utime(entry)
                return CachedPixels(entry)
        except OSError as error:
            raise OutputError(
                f"{self.folder}: the pixel cache cannot be written ({error.strerror or error})", advice="cache_dir"
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time builds and evicts; a second one waits, then finds the finished entry."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / _LOCK, str(self.folder), wait=math.inf):
            yield

    def _make_room(self, wanted: int) -> None:
        if wanted > self.limit:
            raise UsageError(
                f"the decoded images take {wanted / 1e9:.2f} GB in the pixel cache {self.folder}, more than its limit "
                f"of {self.limit / 1e9:.2f} GB",
                advice="cache_limit",
            )
        entries = sorted(
            (path for path in self.folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in entries}
        taken = sum(sizes.values())
        for path in entries:
            unfinished = path.name.startswith(".")  # of a killed run: this process holds the lock
            if unfinished or (taken + wanted > self.limit and not in_use(path / _PIXELS)):
                _log.info("pixel cache: removing %s, %.2f GB", path, sizes[path] / 1e9)
                shutil.rmtree(path)
                taken -= sizes[path]

    def _build(
        self, entry: Path, images: Sequence[Content], spec: PreprocessSpec, on_image: Callable[[int], object]
    ) -> None:
        building = entry.with_name(f".{entry.name}")
        building.mkdir()
        try:
            failures = _decode_into(building / _PIXELS, images, spec, on_image)
            (building / _FAILURES).write_text(json.dumps(failures))
            building.rename(entry)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def default_folder() -> Path:
    """`pixels` in batchland's cache."""
    return cache_folder() / "pixels"


def _key(images: Sequence[Content], spec: PreprocessSpec) -> str:
    total = hashlib.sha256(json.dumps([_FORMAT, spec.model_dump()]).encode())
    for ref, digest in images:
        total.update(ref.name.encode("utf-8", "surrogateescape") + b"\0" + digest)
    return total.hexdigest()


def _decode_into(
    path: Path, images: Sequence[Content], spec: PreprocessSpec, on_image: Callable[[int], object]
) -> dict[int, tuple[ErrorCode, str]]:
    """Write the .npy file; returns the failures by row."""
    with path.open("xb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *spec.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        size = int(np.prod(spec.shape))
        file.truncate(start + len(images) * size)

        def decode(row: int) -> tuple[ErrorCode, str] | None:
            ref, digest = images[row]
            try:
                data = read_image(ref).data
                pixels = preprocess(data, spec)
            except ImageError as error:
                return error.code, str(error)
            if hashlib.sha256(data).digest() != digest:
                raise UsageError(f"{ref.name}: changed while it was read; train again")
            # Not through a memory map, where a full disk kills the process instead of raising OSError.
            os.pwrite(file.fileno(), pixels.tobytes(), start + row * size)
            return None

        failures: dict[int, tuple[ErrorCode, str]] = {}
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
            for row, failure in enumerate(pool.map(decode, range(len(images)))):
                if failure:
                    failures[row] = failure
                on_image(row + 1)
        os.fsync(file.fileno())
    return failures

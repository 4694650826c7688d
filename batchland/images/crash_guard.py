"""Find the image that killed a run, and keep it from killing the next one.

A decoder that crashes, or uses up all memory, kills the whole process; Python code cannot prevent that. So each thread
notes the image that it is about to load in the folder of the unfinished run. If the run is killed, the noted images are
suspects: the next run loads each of them in a subprocess (subprocess_decode.py). There, harmless images give the same
pixels as always, and the one that crashes becomes a failed row.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from batchland.errors import DeviceError, EngineError
from batchland.images.batch import Decode, Loaded
from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.images.subprocess_decode import SubprocessDecoder
from batchland.system.files import open_existing, replace_file

_NOTES: Final = "in-hand"
_NOTE_BYTES: Final = 4096
"""Bytes of one note: the length of the image's name in two bytes, then the name, cut if too long."""

_log = logging.getLogger("batchland")


class CrashGuard:
    """Context manager. Its `load` works like `load_image`, but decodes suspects in a subprocess. Thread-safe.

    folder: the folder of the unfinished run. timeout: CPU seconds for a suspect. decode: for other images. signals:
    measure the suspects' pictures. process: index of the decoding process that uses this guard; None for the main
    process, which reads and removes the notes of all processes.
    """

    def __init__(
        self,
        folder: Path,
        timeout: float,
        decode: Decode = decode_image,
        *,
        signals: bool = False,
        process: int | None = None,
    ) -> None:
        self._folder = folder
        self._process = process
        self._for_processes = partial(type(self), folder, timeout, decode, signals=signals)
        self._notes_path = _notes_path(folder, process)
        self._suspects_path = folder / "suspects"
        self._isolated = SubprocessDecoder(timeout, signals=signals)
        self._isolation_failed = False
        self._decode = decode
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._slots = count()
        self._notes: int | None = None
        self._suspects: set[bytes] = set()

    def __enter__(self) -> Self:
        with suppress(OSError):  # writing the rows reports the same disk error
            before = self._suspects_path.read_bytes().split(b"\0") if self._suspects_path.exists() else []
            self._suspects = set(filter(None, before))
            if self._process is None:
                self._suspect(self._all_notes(), "the previous run was killed")
                self._remove_notes()
            self._notes = open_existing(self._notes_path, os.O_WRONLY)
            os.ftruncate(self._notes, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._isolated.__exit__(kind, error, trace)
        if not isinstance(error, DeviceError):  # an image in the GPU's decoder may be the cause
            with suppress(OSError):
                self._remove_notes()  # no image has killed this process
        if self._notes is not None:  # a thread that hung may still write a note: send it to /dev/null
            devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(devnull, self._notes, inheritable=False)
            os.close(devnull)

    def __del__(self) -> None:
        if self._notes is not None:
            with suppress(OSError):
                os.close(self._notes)

    def for_process(self, number: int) -> "Callable[[], CrashGuard]":
        """A picklable function that makes a guard in a decoding process."""
        return partial(self._for_processes, process=number)

    def process_died(self, number: int) -> None:
        """Suspect the images that a decoding process was loading."""
        with suppress(OSError):
            self._suspect([_notes_path(self._folder, number)], "a process that decodes images died")

    def _all_notes(self) -> list[Path]:
        """The notes of this process; in the main process, those of all processes."""
        if self._process is not None:
            return [self._notes_path]
        return list(self._folder.glob(f"{_NOTES}*"))

    def _remove_notes(self) -> None:
        for path in self._all_notes():
            path.unlink(missing_ok=True)

    def _suspect(self, notes: Iterable[Path], event: str) -> None:
        noted = {name for path in notes for name in _read_notes(path)}
        if noted:
            _log.warning("%s; %s decoded in a subprocess", event, _in_flight(len(noted)))
            self._suspects |= noted
            self._save()

    def load(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        """See `load_image`. Suspects are decoded on the CPU; the error is `crashed` if the subprocess crashes.

        Raises EngineError if a suspect needs a subprocess and none can be started.
        """
        name = _cut(ref.name)
        if name not in self._suspects:
            self._note([name])
            loaded = load_image(ref, spec, self._decode)
            self._note([b""])
            return loaded
        outcome, pixels = self._isolated.load(ref, spec)
        if pixels is not None:
            self._clear(name)
        return outcome, pixels

    def load_isolated(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        """See `load_image`; decodes in a subprocess, or like `load` if no subprocess can be started."""
        if not self._isolation_failed:
            try:
                return self._isolated.load(ref, spec)
            except EngineError as error:
                self._isolation_failed = True
                _log.warning("slow images are decoded in this process, because %s", error)
        return self.load(ref, spec)

    def _clear(self, name: bytes) -> None:
        """Remove a suspect that loaded well, so that a rerun does not need a subprocess for it again."""
        with self._lock, suppress(OSError):
            self._suspects.discard(name)
            self._save()

    def _save(self) -> None:
        replace_file(self._suspects_path, b"\0".join(sorted(self._suspects)))

    @contextmanager
    def noted(self, refs: Iterable[ImageRef]) -> Iterator[None]:
        """Context in which these images are noted, for another operation of this thread that may kill the process."""
        names = [_cut(ref.name) for ref in refs]
        self._note(names)
        try:
            yield
        except BaseException:
            self._thread.slots = []  # keep these notes while the thread loads other images
            raise
        self._note([b""] * len(names))

    def _note(self, names: Sequence[bytes]) -> None:
        """Write a note in a few microseconds. It survives a crash of the process, not of the machine (no fsync)."""
        if self._notes is None:
            return
        slots: list[int] = self._thread.__dict__.setdefault("slots", [])
        while len(slots) < len(names):
            slots.append(next(self._slots))
        try:  # faster than `suppress`
            for slot, name in zip(slots, names, strict=False):
                os.pwrite(self._notes, len(name).to_bytes(2) + name, slot * _NOTE_BYTES)
        except OSError:
            pass


def note_suspects(folder: Path, names: Iterable[str]) -> None:
    """Let the CrashGuard of that folder decode these images in a subprocess. Raises OSError."""
    replace_file(folder / "suspects", b"\0".join(sorted(_cut(name) for name in names)))


def _in_flight(count: int) -> str:
    return "the image that was being decoded is" if count == 1 else f"the {count} images that were being decoded are"


def _notes_path(folder: Path, process: int | None) -> Path:
    return folder / (_NOTES if process is None else f"{_NOTES}-{process}")


def _cut(name: str) -> bytes:
    return name.encode()[: _NOTE_BYTES - 2]


def _read_notes(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.exists() else b""
    notes = (content[start : start + _NOTE_BYTES] for start in range(0, len(content), _NOTE_BYTES))
    names = (note[2 : 2 + int.from_bytes(note[:2])] for note in notes)
    return [name for name in names if name]

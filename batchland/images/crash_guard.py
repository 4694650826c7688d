"""Find the image that killed a run, and keep it from killing the next one.

A decoder that crashes, or takes all memory until the kernel steps in, takes the whole process with it: no Python code
can prevent that. So each thread notes which image it is about to load, in the folder of the unfinished run. If that run
dies, the images noted there are suspects, and the next run loads each of them in a process of its own (isolation.py):
the innocent give the same pixels as ever, the culprit a failed row. Knows nothing of decoding.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from batchland.errors import DeviceError
from batchland.images.loader import Decode, Loaded, decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.images.subprocess_decode import load_apart
from batchland.system.files import open_existing, replace_file

_NOTE_BYTES: Final = 4096
"""Room of one thread's note: the length of a name in two bytes, then the name, cut if need be."""

_log = logging.getLogger("batchland")


class CrashGuard:
    """Context whose `load` does what `load_image` does, and survives what that may not. For threads to share.

    folder: where an unfinished run keeps its work. timeout: seconds that a suspect may take. decoding: of the others.
    """

    def __init__(self, folder: Path, timeout: float, decoding: Decode = decode_image) -> None:
        self._notes_path = folder / "in-hand"
        self._suspects_path = folder / "suspects"
        self._timeout = timeout
        self._decoding = decoding
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._slots = count()
        self._notes: int | None = None
        self._suspects: set[bytes] = set()

    def __enter__(self) -> Self:
        with suppress(OSError):  # a disk that takes no notes takes no rows either, and is told of there
            before = self._suspects_path.read_bytes().split(b"\0") if self._suspects_path.exists() else []
            noted = _read_notes(self._notes_path)
            self._suspects = {*filter(None, before), *noted}
            if noted:
                _log.warning("the run before was killed; what it had in its decoders is decoded apart this time")
                self._save()
            self._notes = open_existing(self._notes_path, os.O_WRONLY)
            os.ftruncate(self._notes, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, DeviceError):  # which an image in the GPU's decoder may have brought about
            with suppress(OSError):
                self._notes_path.unlink(missing_ok=True)  # this process lives: no image has killed it
        if self._notes is not None:  # a thread that hung may still come back and make a note: into nothing, then
            nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nothing, self._notes, inheritable=False)
            os.close(nothing)

    def __del__(self) -> None:
        if self._notes is not None:
            os.close(self._notes)

    def load(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        """As `load_image`; a suspect whose process dies is `crashed`, and what a suspect gives is always pixels."""
        name = _key(ref)
        if name not in self._suspects:
            self._note([name])
            loaded = load_image(ref, spec, self._decoding)
            self._note([b""])
            return loaded
        outcome, pixels = load_apart(ref, spec, self._timeout)
        if pixels is not None:
            self._clear(name)
        return outcome, pixels

    def _clear(self, name: bytes) -> None:
        """An innocent one: should this run be killed as well, the next need not load it apart again."""
        with self._lock, suppress(OSError):
            self._suspects.discard(name)
            self._save()

    def _save(self) -> None:
        replace_file(self._suspects_path, b"\0".join(sorted(self._suspects)))

    @contextmanager
    def in_hand(self, refs: Iterable[ImageRef]) -> Iterator[None]:
        """While the calling thread does something else with images that they may not survive, either."""
        names = [_key(ref) for ref in refs]
        self._note(names)
        try:
            yield
        except BaseException:
            self._thread.slots = []  # the notes stay, whatever the thread takes in hand next
            raise
        self._note([b""] * len(names))

    def _note(self, names: Sequence[bytes]) -> None:
        """A few microseconds each. What is written outlives the process, and need not outlive the machine."""
        if self._notes is None:
            return
        slots: list[int] = self._thread.__dict__.setdefault("slots", [])
        slots += [next(self._slots) for _ in range(len(names) - len(slots))]
        with suppress(OSError):
            for slot, name in zip(slots, names, strict=False):
                os.pwrite(self._notes, len(name).to_bytes(2) + name, slot * _NOTE_BYTES)


def _key(ref: ImageRef) -> bytes:
    return ref.name.encode()[: _NOTE_BYTES - 2]


def _read_notes(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.exists() else b""
    notes = (content[start : start + _NOTE_BYTES] for start in range(0, len(content), _NOTE_BYTES))
    names = (note[2 : 2 + int.from_bytes(note[:2])] for note in notes)
    return [name for name in names if name]

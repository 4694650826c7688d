"""Keep a copy of each large model as onnxruntime optimises it, to open it again in a third of the time.

A copy is a folder in the user's cache: the optimised graph, its weights in a file that onnxruntime maps into memory,
and an index with their checksums. A copy belongs to one model (by sha256), one version of onnxruntime and one kind of
CPU. It is kept only if its answers are byte for byte those of the model. A copy that is damaged, or that another user
could have written, is not used.
"""

import contextlib
import hashlib
import json
import mmap
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from batchland.models.card import METADATA_KEY
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.ort import CPU, create_session, instruction_sets, ort
from batchland.models.probe_pictures import probe_pictures
from batchland.system.files import remove
from batchland.system.folders import cache_folder
from batchland.system.regular_files import open_regular

_MIN_BYTES: Final = 4 << 20
"""Smaller models open fast enough."""
_MAX_COPIES: Final = 8
_CHUNK_BYTES: Final = 16 << 20
"""Large, because after each chunk this thread waits for Python's lock, which another thread holds while it imports."""
_BLOCK_WORDS: Final = 1 << 17
"""64-bit words of the weights that are added up together. The checksum of the weights depends on it."""
_SETTLED_SECONDS: Final = 2.0
"""A file that changed more recently may change again without another time of change, because its clock is coarse."""
_PICTURES: Final = 4
_GRAPH: Final = "graph.onnx"
_WEIGHTS: Final = "weights.bin"
_INDEX: Final = "index.json"
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Copy(NamedTuple):
    """A copy whose weights are not checked yet."""

    sha256: str
    """sha256 of the model's file."""
    card: str
    """The model's card, JSON."""
    folder: Path
    graph: bytes
    facts: dict[str, object]
    """The content of the index."""


def find_copy(model: Path) -> Copy | None:
    """The copy of the model in that file; None if this user has made none.

    The model's sha256 is computed once. Later, a note in the copy's folder shows that the file has not changed: the
    note's name is a digest of the file's inode, size and times. Nobody can set the time of change (ctime) back.
    """
    try:
        with open_regular(model) as file:
            status = os.fstat(file.fileno())
            if status.st_size < _MIN_BYTES:
                return None
            settled = time.time() - status.st_ctime > _SETTLED_SECONDS
            note = f"file-{_sha256(str(_identity(status)))[:32]}"
            if copy := _noted_copy(note):
                return copy
            with contextlib.suppress(OSError):  # so that the next write through a mapping sets the time of change again
                os.fsync(file.fileno())
            note = f"file-{_sha256(str(_identity(os.fstat(file.fileno()))))[:32]}"
            copy = find_copy_of(_hash(file))
    except OSError:  # opening the model itself will report it
        return None
    if copy and settled:
        with contextlib.suppress(OSError):
            remove(copy.folder / note)
            with open(copy.folder / note, "x", opener=_private) as new:
                new.write(copy.sha256)
    return copy


def _noted_copy(name: str) -> Copy | None:
    for note in _copies().glob(f"*/{name}"):
        with contextlib.suppress(OSError, ValueError):  # damaged or planted
            copy = find_copy_of(_read(note).decode())
            if copy and copy.folder == note.parent:
                return copy
    return None


def find_copy_of(sha256: str) -> Copy | None:
    """The copy of the model with this sha256; None if this user has made none."""
    try:
        folder = _folder(sha256)
        _require_private(os.lstat(folder.parent), directory=True)
        _require_private(os.lstat(folder), directory=True)
        index = json.loads(_read(folder / _INDEX))
        card = str(index["card"])
        if index["card_sha256"] != _sha256(card):
            return None
        return Copy(sha256, card, folder, _read(folder / _GRAPH), index)
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged
        return None


def open_copy(copy: Copy, threads: int | None) -> Any | None:
    """A session of a copy; None if the copy is damaged."""
    try:
        if copy.facts != _index(copy.card, copy.graph, copy.folder / _WEIGHTS):
            return None
        session = create_session(copy.graph, [(CPU, {})], threads, weights=copy.folder)
        os.utime(copy.folder)
    except Exception:  # OSError, and those of onnxruntime, which share no base class but Exception
        return None
    return session if _card(session) == copy.card else None


def open_and_keep_copy(content: bytes, sha256: str, threads: int | None) -> Any:
    """A session of the model. A copy is kept if the model is large and the cache can be written.

    Raises what onnxruntime raises for the model.
    """
    if len(content) < _MIN_BYTES:
        return create_session(content, [(CPU, {})], threads)
    try:
        with _new_folder(_folder(sha256)) as folder:
            session = create_session(content, [(CPU, {})], threads, save_optimised=folder / _GRAPH, weights=folder)
            graph = (folder / _GRAPH).read_bytes()
            (folder / _WEIGHTS).touch()  # onnxruntime writes none if all weights are small
            for name in (_GRAPH, _WEIGHTS):
                (folder / name).chmod(0o600)
            card, expected = _card(session), _answers(session)
            del session  # so that the weights are not in memory twice
            copy = create_session(graph, [(CPU, {})], threads, weights=folder)
            if card and all(map(np.array_equal, _answers(copy), expected)):
                with open(folder / _INDEX, "x", opener=_private) as index:
                    json.dump(_index(card, graph, folder / _WEIGHTS), index)
                return copy
    except Exception:  # noqa: S110 - the cache cannot be written, or onnxruntime cannot save this model
        pass
    return create_session(content, [(CPU, {})], threads)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Changes when somebody replaces the file or writes to it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(file: BinaryIO) -> str:
    total, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        total.update(buffer[:count])
    return total.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _card(session: Any) -> str:
    return str(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""))


def _folder(sha256: str) -> Path:
    key = json.dumps([sha256, ort.__version__, instruction_sets()])
    return _copies() / hashlib.sha256(key.encode()).hexdigest()[:32]


def _copies() -> Path:
    return cache_folder() / "models"


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A private folder that becomes `folder` if there is an index in it at the end. Raises OSError."""
    copies = folder.parent
    copies.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_private(os.lstat(copies), directory=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=copies, ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)
        if Path(temporary, _INDEX).exists():
            with contextlib.suppress(OSError):  # another process may have kept the same copy meanwhile
                remove(folder)
                os.rename(temporary, folder)  # noqa: PTH104 - Path.rename would change the name that is cleaned up
    kept = sorted((path for path in copies.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in kept[:-_MAX_COPIES]:
        with contextlib.suppress(OSError):
            remove(path)


def _index(card: str, graph: bytes, weights: Path) -> dict[str, object]:
    """The values that are checked when a copy is opened: card, graph's sha256, size and checksum of the weights."""
    with _open(weights) as file:
        size = os.fstat(file.fileno()).st_size
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    words = np.frombuffer(content, np.uint64, size // 8)
    # One call, because it does not need Python's lock, and the threads that import and decode do.
    sums = np.add.reduceat(words, range(0, len(words), _BLOCK_WORDS)) if size >= 8 else words
    total = hashlib.sha256(sums.tobytes() + content[len(words) * 8 :])
    return {
        "card": card,
        "card_sha256": _sha256(card),
        "graph": hashlib.sha256(graph).hexdigest(),
        "weights": total.hexdigest(),
        "bytes": size,
    }


def _answers(session: Any) -> list[Any]:
    """Answers for some pictures, together and one alone."""
    pictures = probe_pictures(tuple(session.get_inputs()[0].shape[1:]), _PICTURES)
    return [session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0] for batch in (pictures, pictures[:1])]


def _read(path: Path) -> bytes:
    with _open(path) as file:
        return file.read()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        _require_private(os.fstat(file.fileno()), directory=False)
        yield file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _require_private(status: os.stat_result, *, directory: bool) -> None:
    """Raise PermissionError unless a folder or file is this user's, and only this user may write it."""
    right_kind = stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if not right_kind or status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError

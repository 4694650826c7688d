"""Keep a copy of each large model as onnxruntime optimises it, to open it again in a third of the time.

A copy is a folder in the user's cache: the optimised graph, its weights in a file that onnxruntime maps into memory,
and an index with their checksums. A copy belongs to one model (by sha256), one version of onnxruntime and one kind of
CPU. It is kept only if its answers are byte for byte those of the model. A copy that is damaged, or that another user
could have written, is not used.
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from batchland.models.card import METADATA_KEY
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.ort import CPU, Threads, create_session, instruction_sets, ort
from batchland.models.probe_pictures import probe_pictures
from batchland.system.file_hash import chunks, hash_file
from batchland.system.files import remove
from batchland.system.folders import cache_folder
from batchland.system.regular_files import open_regular

_MIN_BYTES: Final = 4 << 20
"""Smaller models open fast enough."""
_MAX_COPIES: Final = 8
_CHUNK_BYTES: Final = 1 << 20
"""The checksum of the weights depends on it."""
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
    """The copy of the model in that file; None if this user has made none."""
    try:
        with open_regular(model) as file:
            if os.fstat(file.fileno()).st_size < _MIN_BYTES:
                return None
        return find_copy_of(hash_file(model))
    except OSError:  # opening the model itself will report it
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


def open_copy(copy: Copy, threads: Threads) -> Any | None:
    """A session of a copy; None if the copy is damaged."""
    try:
        if copy.facts != _index(copy.card, copy.graph, copy.folder / _WEIGHTS):
            return None
        session = create_session(copy.graph, [(CPU, {})], threads, weights=copy.folder)
        os.utime(copy.folder)
    except Exception:  # OSError, and those of onnxruntime, which share no base class but Exception
        return None
    return session if _card(session) == copy.card else None


def open_and_keep_copy(content: bytes, sha256: str, threads: Threads) -> Any:
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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _card(session: Any) -> str:
    return str(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""))


def _folder(sha256: str) -> Path:
    key = json.dumps([sha256, ort.__version__, instruction_sets()])
    return cache_folder() / "models" / hashlib.sha256(key.encode()).hexdigest()[:32]


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
    total = hashlib.sha256()
    with _open(weights) as file:
        size = 0
        for chunk in chunks(file, _CHUNK_BYTES):
            size += len(chunk)
            whole = len(chunk) // 8 * 8
            total.update(np.frombuffer(chunk[:whole], np.uint64).sum(dtype=np.uint64).tobytes() + chunk[whole:])
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

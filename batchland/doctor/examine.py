"""Examine an installation: what a nightly run needs, whether it is there, and what to do where it is not.

for check in (*examine_installation(), *examine_model(Path("models/transfer.onnx"))):
    print(check.state, check.name, check.found, check.advice)

Everything is tried rather than looked up: providers run a small model, decoders decode, the disk is written to. Nothing
here imports torch, and nothing that is broken may break the examination itself.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, requires, version
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from batchland.errors import BatchlandError
from batchland.system.cores import machine_memory, usable_cores, usable_memory

State = Literal["ok", "warn", "fail"]

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 14)
LITTLE_MEMORY: Final = 2 * 2**30
"""Bytes. A warning below it: scoring with either built-in model, 32 images at a time, takes about half of it."""
LITTLE_DISK: Final = 2**30
"""Bytes. A warning below it."""
_CUDA_LIBRARIES: Final = ("cudart", "cudnn")
_CUDA_WHEELS: Final = ("nvidia-cuda-runtime", "nvidia-cudnn")


class Check(NamedTuple):
    """One line of the findings."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do about it; empty where nothing needs doing."""


def examine_installation() -> Iterator[Check]:
    """Python, packages, what decodes and computes, cores and memory: each check as it is done. Raises nothing."""
    yield from guarded("python", _python)
    yield from guarded("packages", _packages)
    yield from guarded("onnxruntime", _onnxruntime)
    yield from guarded("formats", _formats)
    yield from guarded("cpu", _cpu_provider)
    yield from guarded("cuda", _cuda_provider)
    yield from guarded("cuda libraries", _cuda_libraries)
    yield from guarded("cores", _cores)
    yield from guarded("memory", _memory)


def examine_model(model: Path | None = None, device: str = "auto", folder: Path = Path()) -> Iterator[Check]:
    """The disk below `folder`, and a model on a device; None takes the one that scoring would take. Raises nothing."""
    yield from guarded("disk", check_disk, "disk", folder.absolute())
    yield from guarded("model", check_model, "model", model, device)


def examine_job(path: Path) -> Iterator[Check]:
    """The job file, and what its next run needs: each check as it is done. Raises nothing."""

    def checks() -> Iterator[Check]:
        from batchland.doctor.job import checks_of_job  # which a broken onnxruntime keeps from being imported

        yield from checks_of_job(path)

    yield from guarded("job", checks)


def guarded(name: str, check: Callable[..., Iterator[Check]], *arguments: Any) -> Iterator[Check]:
    """What a check finds; if it breaks, that is what was found."""
    try:
        yield from check(*arguments)
    except BatchlandError as error:
        yield Check(name, "fail", str(error))
    except Exception as error:  # a broken installation breaks in ways of its own; to tell them is the point
        told = str(error).partition("\n")[0]
        yield Check(name, "fail", f"{type(error).__name__}: {told}", "reinstall batchland into a fresh environment")


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        yield Check("python", "ok", found)
    else:
        oldest, newest = (".".join(map(str, number)) for number in (OLDEST_PYTHON, NEWEST_PYTHON))
        yield Check("python", "warn", found, f"batchland is tested with {oldest} to {newest}")


def _packages() -> Iterator[Check]:
    """What batchland's own metadata asks for; the extra `train` is told apart, as scoring does without it."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("batchland") or ()]
    found, problems = [f"batchland {version('batchland')}"], []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is not installed")
            continue
        found.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if problems:
        yield Check("packages", "fail", ", ".join(problems), "pip install --upgrade batchland")
    else:
        yield Check("packages", "ok", ", ".join(found))
    try:
        yield Check("training", "ok", f"torch {version('torch')}, torchvision {version('torchvision')}")
    except PackageNotFoundError:
        yield Check("training", "ok", "not installed; only `batchland train` needs it: pip install 'batchland[train]'")


def _onnxruntime() -> Iterator[Check]:
    """Two wheels share one folder: the last one installed overwrites the other, removing one leaves a torso."""
    wheels = sorted(set(packages_distributions().get("onnxruntime", ())))
    found = ", ".join(f"{wheel} {version(wheel)}" for wheel in wheels)
    keep = wheels[0] if len(wheels) == 1 else "onnxruntime-gpu" if "onnxruntime-gpu" in wheels else "onnxruntime"
    if len(wheels) > 1:
        advice = f"pip uninstall -y {' '.join(wheels)}; then pip install {keep}"
        yield Check("onnxruntime", "fail", f"{found} are installed side by side and break each other", advice)
        return
    try:
        import_module("batchland.models.session")
    except Exception as error:  # ImportError, AttributeError, or what a mixture of two libraries raises
        told = f"{found or 'not installed'}; importing it fails: {error}"
        yield Check("onnxruntime", "fail", told, f"pip install --force-reinstall --no-deps {keep}")
    else:
        yield Check("onnxruntime", "ok", found)


def _formats() -> Iterator[Check]:
    """A small picture of every format, written and read back."""
    from PIL import Image

    from batchland.images.preprocess import FORMATS, PreprocessSpec, decode

    broken = []
    for kind in FORMATS:
        try:
            buffer = BytesIO()
            Image.new("RGB", (16, 16), (200, 30, 90)).save(buffer, kind)
            decode(buffer.getvalue(), PreprocessSpec())
        except Exception as error:  # whatever a build without this format raises
            broken.append(f"{kind} ({error})")
    if broken:
        yield Check("formats", "fail", f"cannot be read: {', '.join(broken)}", "install Pillow from its official wheel")
    else:
        yield Check("formats", "ok", ", ".join(FORMATS))


def _cpu_provider() -> Iterator[Check]:
    from batchland.doctor.probe import run_probe

    session = run_probe("cpu")
    yield Check("cpu", "ok", f"{session.provider} ran a convolution")


def _cuda_provider() -> Iterator[Check]:
    from batchland.doctor.probe import run_probe

    session = run_probe("auto")
    if session.fallback is None:
        yield Check("cuda", "ok", f"{session.provider} ran a convolution on {session.device}")
        yield from check_jpeg_decoder("cuda")
    else:
        yield Check("cuda", "warn", f"not usable: {session.fallback}", "nothing, if the CPU is meant to score")


def check_jpeg_decoder(kind: Literal["cpu", "cuda"]) -> Iterator[Check]:
    """Whether `--decode cuda` could be used, on the first GPU (`cuda`), and by what; `cpu` serves tests."""
    from batchland.images.preprocess import PreprocessSpec
    from batchland.models.gpu.decode_jpegs import open_decoders
    from batchland.models.gpu.device import Device
    from batchland.models.gpu.problems import Unusable

    try:
        decoders = open_decoders([Device(kind)], PreprocessSpec(), 1, 32)
    except Unusable as reason:
        yield Check("jpeg decoder", "ok", f"not usable: {reason}; only --decode cuda needs it")
    else:
        yield Check("jpeg decoder", "ok", decoders.name)


def _cuda_libraries() -> Iterator[Check]:
    """Told, not judged: only a GPU needs them, and the line above says whether they work."""
    names = {dist.name for dist in distributions() if (dist.name or "").startswith(_CUDA_WHEELS)}
    wheels = sorted(f"{name} {version(name)}" for name in names)
    system = sorted(name for library in _CUDA_LIBRARIES if (name := find_library(library)))
    found = ", ".join([*wheels, *system])
    yield Check("cuda libraries", "ok", found or "none; a GPU needs them: pip install 'batchland[cuda]'")


def _cores() -> Iterator[Check]:
    cores, host = usable_cores(), os.cpu_count() or 1
    yield Check("cores", "ok", f"{cores} usable" + (f" of the machine's {host}" if cores < host else ""))


def _memory() -> Iterator[Check]:
    memory, machine = usable_memory(), machine_memory()
    found = f"{_gigabytes(memory)} usable" + (f" of the machine's {_gigabytes(machine)}" if memory < machine else "")
    if memory >= LITTLE_MEMORY:
        yield Check("memory", "ok", found)
    else:
        yield Check("memory", "warn", found, "raise the container's limit, or lower --batch-size and --num-workers")


def check_disk(name: str, folder: Path) -> Iterator[Check]:
    """Whether `folder`, or what of it exists, can be written, and how much is free."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"batchland")
        status = os.statvfs(place)
    except OSError as error:
        advice = "free some space, or give this user the right to write there"
        yield Check(name, "fail", f"{place}: cannot be written ({error.strerror})", advice)
        return
    free = status.f_bavail * status.f_frsize
    found = f"{_gigabytes(free)} free at {place}"
    if free >= LITTLE_DISK:
        yield Check(name, "ok", found)
    else:
        yield Check(name, "warn", found, "free some space; a run that fills the disk stops and can be resumed")


def check_model(name: str, path: Path | None, device: str) -> Iterator[Check]:
    """Whether the model answers on the device."""
    import numpy as np

    from batchland.models.session import open_session
    from batchland.scoring.options import find_model

    session = open_session(find_model(path), device)
    session.predict(np.zeros((1, *session.card.preprocess.shape), np.uint8))
    card = session.card
    found = f"{session.path}: {card.name}, {len(card.classes)} classes, sha256 {session.sha256[:12]}, runs on "
    yield Check(name, "ok", found + session.device)


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"

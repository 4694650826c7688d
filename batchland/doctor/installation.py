"""Check the installation: Python, packages, image formats, onnxruntime on the CPU and on CUDA.

Everything is tried rather than looked up: providers run a small model, decoders decode. Imports no torch.
"""

import platform
import sys
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from importlib import import_module
from importlib.metadata import distributions, packages_distributions, requires, version
from io import BytesIO
from typing import Final, Literal

from batchland.doctor.check import Check, guarded
from batchland.system.packages import installed_version

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 14)
_CUDA_LIBRARIES: Final = ("cudart", "cudnn")
_CUDA_WHEELS: Final = ("nvidia-cuda-runtime", "nvidia-cudnn")


def check_installation() -> Iterator[Check]:
    """Check the installation. Yields each result at once."""
    yield from guarded("python", _python)
    yield from guarded("packages", check_packages)
    yield from guarded("onnxruntime", _onnxruntime)
    yield from guarded("formats", _formats)
    yield from guarded("cpu", _cpu_provider)
    yield from guarded("cuda", _cuda_provider)
    yield from guarded("cuda libraries", _cuda_libraries)


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        yield Check("python", "ok", found)
    else:
        oldest, newest = (".".join(map(str, number)) for number in (OLDEST_PYTHON, NEWEST_PYTHON))
        yield Check("python", "warn", found, f"batchland is tested with {oldest} to {newest}")


def check_packages(requirements: Sequence[str] | None = None) -> Iterator[Check]:
    """Check requirements, by default those in batchland's metadata. torch, used only by training, is checked apart."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requirements or requires("batchland") or ()]
    found, problems = [f"batchland {version('batchland')}"], []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, installed = requirement.name, installed_version(requirement.name)
        if installed is None and name == "onnxruntime-gpu":  # container images for CPUs have the smaller wheel
            name, installed = "onnxruntime", installed_version("onnxruntime")
        if installed is None:
            problems.append(f"{requirement.name} is not installed")
            continue
        found.append(f"{name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{name} {installed} is not {requirement.specifier}")
    if problems:
        yield Check("packages", "fail", ", ".join(problems), "pip install -U batchland")
    else:
        yield Check("packages", "ok", ", ".join(found))
    torch, torchvision = map(installed_version, ("torch", "torchvision"))
    missing = "not installed; only `batchland train` needs it: pip install 'batchland[train]'"
    yield Check("training", "ok", f"torch {torch}, torchvision {torchvision}" if torch and torchvision else missing)


def _onnxruntime() -> Iterator[Check]:
    """Check onnxruntime. Its two wheels share a folder: installing one overwrites files of the other."""
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
        problem = f"{found or 'not installed'}; importing it fails: {error}"
        yield Check("onnxruntime", "fail", problem, f"pip uninstall -y {keep}; then pip install {keep}")
    else:
        yield Check("onnxruntime", "ok", found)


def _formats() -> Iterator[Check]:
    """Write and read a small picture of every format."""
    from PIL import Image

    from batchland.images.preprocess import FORMATS, PreprocessSpec, decode

    broken = []
    for kind in FORMATS:
        try:
            buffer = BytesIO()
            Image.new("RGB", (16, 16), (200, 30, 90)).save(buffer, kind)
            decode(buffer.getvalue(), PreprocessSpec())
        except Exception as error:  # a build without this format may raise anything
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
        yield Check("cuda", "warn", f"not usable: {session.fallback}", "nothing to do if you score on the CPU")


def check_jpeg_decoder(kind: Literal["cpu", "cuda"]) -> Iterator[Check]:
    """Whether the first GPU (`cuda`) can decode JPEGs, and with which library; `cpu` is for tests."""
    from batchland.images.preprocess import PreprocessSpec
    from batchland.models.gpu.decode_jpegs import open_decoders
    from batchland.models.gpu.device import Device
    from batchland.models.gpu.problems import Unusable

    try:
        decoders = open_decoders([Device(kind)], PreprocessSpec(), 1, 32)
    except Unusable as reason:
        yield Check("jpeg decoder", "ok", f'not usable: {reason}; only decode = "cuda" needs it')
    else:
        yield Check("jpeg decoder", "ok", decoders.name)


def _cuda_libraries() -> Iterator[Check]:
    """List the CUDA libraries. The result is always ok: only GPUs need them, and the check `cuda` tests them."""
    names = {dist.name for dist in distributions() if (dist.name or "").startswith(_CUDA_WHEELS)}
    wheels = sorted(f"{name} {version(name)}" for name in names)
    system = sorted(name for library in _CUDA_LIBRARIES if (name := find_library(library)))
    found = ", ".join([*wheels, *system])
    yield Check("cuda libraries", "ok", found or "none; a GPU needs them: pip install 'batchland[cuda]'")

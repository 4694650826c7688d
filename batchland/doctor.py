"""Examine an installation: what a nightly run needs, whether it is there, and what to do where it is not.

for check in examine(model=Path("models/transfer.onnx")):
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
from typing import Final, Literal, NamedTuple

from batchland.cores import machine_memory, usable_cores, usable_memory
from batchland.errors import BatchlandError

State = Literal["ok", "warn", "fail"]

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 14)
LITTLE_MEMORY: Final = 2**30
"""Bytes. A warning below it."""
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


def examine(*, model: Path | None = None, device: str = "auto", folder: Path | None = None) -> Iterator[Check]:
    """Every check, as it is done. Raises nothing: what goes wrong is a check that failed.

    model: the ONNX file; None takes the one that `batchland score` would take. device: what runs shall use; only with
    `cuda` is a missing GPU a failure. folder: where output goes, by default here.
    """
    checks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("onnxruntime", _onnxruntime),
        ("formats", _formats),
        ("cpu", _cpu_provider),
        ("cuda", lambda: _cuda_provider(device)),
        ("cuda libraries", _cuda_libraries),
        ("cores", _cores),
        ("memory", _memory),
        ("disk", lambda: _disk(folder or Path.cwd())),
        ("model", lambda: _model(model)),
    )
    for name, check in checks:
        yield from _guarded(name, check)


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
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
        import_module("batchland.session")
    except Exception as error:  # ImportError, AttributeError, or what a mixture of two libraries raises
        told = f"{found or 'not installed'}; importing it fails: {error}"
        yield Check("onnxruntime", "fail", told, f"pip install --force-reinstall --no-deps {keep}")
    else:
        yield Check("onnxruntime", "ok", found)


def _formats() -> Iterator[Check]:
    """A small picture of every format, written and read back."""
    from PIL import Image

    from batchland.preprocess import FORMATS, PreprocessSpec, decode

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
    _, session = _try_device("cpu")
    yield Check("cpu", "ok", session)


def _cuda_provider(device: str) -> Iterator[Check]:
    wanted = device.startswith("cuda")
    reason, ran = _try_device(device if wanted else "auto")
    if reason is None:
        yield Check("cuda", "ok", ran)
    else:
        yield Check("cuda", "warn", f"not used: {reason}", "nothing, if scoring on the CPU is meant")


def _try_device(device: str) -> tuple[str | None, str]:
    """Run the probe on a device: why `auto` fell back, and which provider ran it. Raises DeviceError."""
    import numpy as np

    from batchland.session import open_session

    with tempfile.TemporaryDirectory(prefix="batchland-doctor-") as folder:
        session = open_session(_write_probe(Path(folder) / "probe.onnx"), device)
        session.predict(np.zeros((2, *session.card.preprocess.shape), np.uint8))
    return session.fallback, f"{session.provider} ran a convolution on {session.device}"


def _write_probe(path: Path) -> Path:
    """The smallest classifier that needs cuDNN: one convolution, pooling, softmax."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from batchland.model_card import METADATA_KEY, ModelCard, class_names
    from batchland.preprocess import PreprocessSpec

    card = ModelCard(
        name="probe",
        architecture="one convolution",
        classes=class_names(["first", "second"]),
        preprocess=PreprocessSpec(height=8, width=8),
        created_at="1970-01-01T00:00:00+00:00",
    )
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "weights"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *card.preprocess.shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(card.classes)])],
        [numpy_helper.from_array(np.full((2, 3, 3, 3), 0.01, np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def _cuda_libraries() -> Iterator[Check]:
    """Told, not judged: only a GPU needs them, and the line above says whether they work."""
    names = [dist.name for dist in distributions() if (dist.name or "").startswith("nvidia-")]
    wheels = sorted(
        f"{name} {version(name)}" for name in names if name.startswith(("nvidia-cuda-runtime", "nvidia-cudnn"))
    )
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


def _disk(folder: Path) -> Iterator[Check]:
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"batchland")
        status = os.statvfs(place)
    except OSError as error:
        advice = "free some space, or give this user the right to write there"
        yield Check("disk", "fail", f"{place}: cannot be written ({error.strerror})", advice)
        return
    free = status.f_bavail * status.f_frsize
    found = f"{_gigabytes(free)} free at {place}"
    if free >= LITTLE_DISK:
        yield Check("disk", "ok", found)
    else:
        yield Check("disk", "warn", found, "free some space; a run that fills the disk stops resumably")


def _model(path: Path | None) -> Iterator[Check]:
    import numpy as np

    from batchland.scoring import find_model
    from batchland.session import open_session

    session = open_session(find_model(path), "cpu")
    session.predict(np.zeros((1, *session.card.preprocess.shape), np.uint8))
    card = session.card
    found = f"{session.path}: {card.name}, {len(card.classes)} classes, sha256 {session.sha256[:12]}"
    yield Check("model", "ok", found)


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"

"""Programs that run on stand-ins for a GPU, each in its own process."""

import json
import os
import site
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from models.gpu.stub.build import SOURCES, build, problem
from models.gpu.stub.programs import loadable
from toys import write_dense_model

REPOSITORY = Path(__file__).parents[4]


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    result: Any
    """What it returned."""
    stderr: str
    trace: list[str]
    """Calls of the stand-ins, without their threads."""


@dataclass(frozen=True)
class Stub:
    """A process with the stand-ins, in which Python does not find NVIDIA's own libraries."""

    libraries: Path | None
    """Where the dynamic loader looks for libraries first."""
    packages: tuple[Path, ...]
    """Folders of Python's path."""
    compiled: Path
    """Python's compiled files, and caches of models, for all tests."""
    folder: Path
    """For the trace."""

    def run(self, program: Callable[..., Any], *arguments: Any, variables: dict[str, object] | None = None) -> Ran:
        """Run a function of programs.py. variables: of its environment; see the C files."""
        trace = self.folder / "trace"
        trace.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries or ""),
            "PYTHONPATH": os.pathsep.join(map(str, (*self.packages, REPOSITORY, REPOSITORY / "tests"))),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.compiled),
            "XDG_CACHE_HOME": str(self.compiled / "cache"),
            "STUB_TRACE": str(trace),
            **{name: str(value) for name, value in (variables or {}).items()},
        }
        code = (
            f"import json; from models.gpu.stub.programs import {program.__name__} as program; "
            f"print(json.dumps(program(*json.loads({json.dumps(json.dumps(arguments, default=str))}))))"
        )
        command = [sys.executable, "-S", "-c", code]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert process.returncode == 0, process.stderr
        lines = trace.read_text().splitlines() if trace.exists() else []
        return Ran(json.loads(process.stdout), process.stderr, [line.partition(" ")[2] for line in lines])


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := problem():
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("libraries"))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all installed packages but `nvidia`."""
    folder = tmp_path_factory.mktemp("packages")
    for installed in site.getsitepackages():
        for path in Path(installed).iterdir():
            if path.name != "nvidia" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def stub(libraries: Path, packages: Path, compiled: Path, tmp_path: Path) -> Stub:
    return Stub(libraries, (packages,), compiled, tmp_path)


@pytest.fixture(scope="session")
def installed(packages: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Libraries that the dynamic loader finds on this machine without the stand-ins."""
    machine = Stub(None, (packages,), compiled, tmp_path_factory.mktemp("machine"))
    found: list[str] = machine.run(loadable, list(SOURCES)).result
    return found


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_dense_model(tmp_path / "dense.onnx")

"""Programs that run on stand-ins for a GPU, each in a process of its own."""

import json
import os
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from models.gpu.stub.build import SOURCES, build, problem
from models.gpu.stub.programs import loadable
from toys import write_dense_model

REPOSITORY = Path(__file__).parents[4]
Servers: TypeAlias = "dict[tuple[object, ...], Server]"


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
    """For the trace and the results."""
    servers: "Servers"
    """For all tests."""

    def run(self, program: Callable[..., Any], *arguments: Any, variables: dict[str, object] | None = None) -> Ran:
        """Run a function of programs.py. variables: of its environment; see the C files."""
        trace, result, errors = (self.folder / name for name in ("trace", "result", "errors"))
        trace.unlink(missing_ok=True)
        given = {name: str(value) for name, value in (variables or {}).items()}
        request = {
            "name": program.__name__,
            "arguments": arguments,
            "variables": given | {"STUB_TRACE": str(trace)},
            "result": str(result),
            "errors": str(errors),
        }
        code = self._server(given.get("LD_PRELOAD")).ask(json.dumps(request, default=str))
        assert code == 0, errors.read_text()
        lines = trace.read_text().splitlines() if trace.exists() else []
        return Ran(json.loads(result.read_text()), errors.read_text(), [line.partition(" ")[2] for line in lines])

    def _server(self, preloaded: str | None) -> "Server":
        """The process that forks for each program. The dynamic loader reads its variables when a process starts."""
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries or ""),
            "LD_PRELOAD": preloaded or "",
            "PYTHONPATH": os.pathsep.join(map(str, (*self.packages, REPOSITORY, REPOSITORY / "tests"))),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.compiled),
            "XDG_CACHE_HOME": str(self.compiled / "cache"),
        }
        key = (self.libraries, self.packages, preloaded)
        if key not in self.servers:
            self.servers[key] = Server(environment)
        return self.servers[key]


class Server:
    """A process of serve.py."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-S", "-m", "models.gpu.stub.serve"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: str) -> int:
        """The exit code of a program."""
        print(request, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    started: Servers = {}
    yield started
    for server in started.values():
        server.end()


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
def stub(libraries: Path, packages: Path, compiled: Path, tmp_path: Path, servers: Servers) -> Stub:
    return Stub(libraries, (packages,), compiled, tmp_path, servers)


@pytest.fixture(scope="session")
def installed(packages: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> list[str]:
    """Libraries that the dynamic loader finds on this machine without the stand-ins."""
    machine = Stub(None, (packages,), compiled, tmp_path_factory.mktemp("machine"), servers)
    found: list[str] = machine.run(loadable, list(SOURCES)).result
    return found


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_dense_model(tmp_path / "dense.onnx")

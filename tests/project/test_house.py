"""The structure of the package: order of the rooms, no import cycles, flags only in cli/, no logic in __init__.py."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from batchland.cli.advice import ADVICE

PACKAGE = Path(__file__).parents[2] / "batchland"
ROOMS = (
    "cli",
    "doctor",
    "demo",
    "trend",
    "nightly",
    "monitoring",
    "report",
    "training",
    "evaluation",
    "data",
    "scoring",
    "embeddings",
    "predictions",
    "models",
    "images",
    "system",
    "errors",
    "_version",
)
"""From top to bottom: a room imports only rooms below it."""
MODULES = sorted(PACKAGE.rglob("*.py"))
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    return ".".join(("batchland", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """The whole syntax tree of a module."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports_of(path: Path) -> Iterator[str]:
    """Modules of the package that one imports, at its top, in functions or for types."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "batchland")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "batchland":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else node.module


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_nothing_else_is_at_the_top_of_the_repository():
    """A file that a test had left there was committed twice."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no clone of the repository, or git is missing")
    names = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert names == {
        ".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Containerfile", "LICENSE", "Makefile",
        "README.md", "RELEASING.md", "SECURITY.md", "batchland", "benchmarks", "compose.yaml", "constraints.txt",
        "cron", "docs", "jobs", "mkdocs.yml", "pyproject.toml", "schemas", "tests", "tools",
    }  # fmt: skip


def test_only_init_main_version_and_errors_are_at_the_top():
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == [
        "__init__.py",
        "__main__.py",
        "_version.py",
        "errors.py",
    ]


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS) - {"errors", "_version"}


def test_rooms_use_only_rooms_below_them():
    order = {room: floor for floor, room in enumerate(ROOMS)}
    upward = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        if path.parent != PACKAGE or path.name == "errors.py"
        for module in imports_of(path)
        if room_of(module) != room_of(name_of(path)) and order.get(room_of(module), -1) < order[room_of(name_of(path))]
    ]
    assert upward == []


def test_there_are_no_import_cycles():
    """Checks imports at the top, in functions and for types, also within a room."""
    graph = {name_of(path): set(imports_of(path)) & NAMES for path in MODULES if path.parent != PACKAGE}
    while free := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in free:
            del graph[name]
    while unused := [name for name in graph if not any(name in needs for needs in graph.values())]:
        for name in unused:
            del graph[name]
    assert {name: sorted(needs & graph.keys()) for name, needs in graph.items()} == {}


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_init_files_hold_a_docstring_and_re_exports(path):
    allowed = (ast.Import, ast.ImportFrom)
    body = ast.parse(path.read_text()).body
    assert isinstance(body[0], ast.Expr), "a docstring"
    if path.parent == PACKAGE:  # re-exports on demand: importing batchland must cost nothing
        return
    assert [ast.unparse(node) for node in body[1:] if not isinstance(node, allowed)] == []


def test_every_advice_of_an_error_is_in_the_cli():
    given = {
        part.value
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "advice"
        for part in ast.walk(keyword.value)
        if isinstance(part, ast.Constant) and part.value is not None
    }
    assert sorted(given) == sorted(ADVICE)


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module, except docstrings."""
    docs = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_only_the_cli_names_flags():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {flag}"
        for path in MODULES
        if room_of(name_of(path)) != "cli"
        for line, text in strings_of(path)
        for flag in FLAG.findall(text)
    ]
    assert found == []

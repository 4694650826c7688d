"""Runs in a folder that other users can write: planted links and files never redirect a write."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from toys import options

from batchland import score
from batchland.cli.main import main
from batchland.errors import BatchlandError


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """The operator's file, which nothing may change."""
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def plant(path: Path, victim: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "symbolic":
        path.symlink_to(victim)
    elif kind == "hard":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim.with_name("absent"))


@pytest.mark.parametrize(("kind", "out"), [("symbolic", "p.parquet"), ("hard", "p")])
@pytest.mark.parametrize(
    "name",
    [
        ".{out}.lock", ".{out}.new", ".{out}.old", "{out}", "p.manifest.json", ".p.manifest.json.new",
        ".{out}.parts", ".{out}.parts/run.json", ".{out}.parts/in-hand", ".{out}.parts/suspects",
        ".{out}.parts/.run.json.new", ".{out}.parts/part-000000.parquet", ".{out}.parts/publishing",
    ],
)  # fmt: skip
def test_a_planted_link_is_not_followed(tmp_path, colour_folders, toy_model, victim, name, out, kind):
    shared = tmp_path / "shared"
    plant(shared / name.format(out=out), victim, kind)
    for overwrite in (False, True):
        code = 0
        try:
            score(colour_folders, shared / out, options(toy_model, overwrite=overwrite))
        except BatchlandError as error:
            code = error.exit_code
        assert code in (0, 2, 74)
        assert victim.read_text() == "precious"
        assert not victim.with_name("absent").exists()


def test_a_folder_of_parts_that_is_a_link_is_refused(tmp_path, colour_folders, toy_model):
    """Else the parts would replace files of the same names in another output."""
    precious = tmp_path / "precious"
    score(colour_folders, precious, options(toy_model))
    before = {path.name: path.read_bytes() for path in precious.iterdir()}
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / ".p.parquet.parts").symlink_to(precious)
    command = ["score", colour_folders, "--out", shared / "p.parquet", "--model", toy_model, "--device", "cpu"]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 74
    assert result.stderr.splitlines()[-1].startswith(
        f"batchland: {shared}/p.parquet: cannot be written (.p.parquet.parts is a link; remove it); "
    )
    assert {path.name: path.read_bytes() for path in precious.iterdir()} == before
    assert os.listdir(shared) == [".p.parquet.parts"]

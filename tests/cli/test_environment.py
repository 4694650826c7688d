"""Commands in hostile surroundings: standard streams that are closed or full, ASCII locales, too little memory."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from commands import batchland


@pytest.fixture
def score(tmp_path: Path, toy_model: Path, colour_folders: Path):
    def run(redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        command = f"exec {sys.executable} -m batchland -q score labelled --model toy.onnx --device cpu --out p.parquet"
        return subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", f"{command} --overwrite {redirect}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | environment,
        )

    return run


def scored_here() -> bytes:
    """The predictions that this process writes."""
    arguments = ("score", "labelled", "--model", "toy.onnx", "--device", "cpu", "--out", "here.parquet")
    assert batchland(*arguments).exit_code == 0
    return Path("here.parquet").read_bytes()


def test_closed_streams_do_not_change_the_output(score, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = score("<&- >&- 2>&-")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "p.parquet").read_bytes() == scored_here()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirect", "message"),
    [
        (
            ">/dev/full",
            "batchland: standard output: cannot be read or written (No space left on device); fix this, then run the "
            "same command again\n",
        ),
        ("| true", ""),  # a reader that has ended, such as `head`
    ],
)
def test_unwritable_stdout_is_a_one_line_error(score, tmp_path, redirect, message):
    result = score(redirect)
    assert (result.returncode, result.stderr) == (74, message)
    assert (tmp_path / "p.parquet").exists()


def test_the_posix_locale_changes_nothing(score, tmp_path, monkeypatch, colour_folders):
    monkeypatch.chdir(tmp_path)
    (colour_folders / "00.Red_Tower" / "é.jpg").write_bytes((colour_folders / "00.Red_Tower" / "0.jpg").read_bytes())
    result = score(LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "p.parquet").read_bytes() == scored_here()
    command = [sys.executable, "-m", "batchland", "predict", "labelled/00.Red_Tower/é.jpg", "--model", "toy.onnx"]
    ascii_only = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | ascii_only)
    assert result.returncode == 0
    assert result.stdout.splitlines()[1] == "  1  Red Tower   >99.9%"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
@pytest.mark.parametrize("megabytes", [100, 330, 600, 800])
def test_too_little_memory_is_a_one_line_error(score, tmp_path, megabytes):
    command = [sys.executable, "-m", "batchland", "-q", "score", "labelled", "--model", "toy.onnx", "--device", "cpu"]
    size = megabytes * 1000 * 1024
    result = subprocess.run(
        [*command, "--out", "p.parquet"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )
    assert result.returncode == 75, result.stderr
    *others, error = result.stderr.splitlines()
    assert error.startswith("batchland: out of memory (")
    assert [line for line in others if ":onnxruntime:" not in line] == []  # which may say first what it cannot load
    assert not (tmp_path / "p.parquet").exists()

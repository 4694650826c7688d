"""Common commands do not import pandas or torch, even if these are installed."""

import subprocess
import sys

import pytest

CODE = """
import sys
from batchland.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, sorted({"pandas", "torch", "matplotlib"} & sys.modules.keys()))
"""


@pytest.fixture
def run(tmp_path, toy_model, colour_folders):
    def call(*arguments: object) -> str:
        command = [sys.executable, "-c", CODE, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()[-1]

    return call


def test_scoring_predicting_and_evaluating_import_neither_pandas_nor_torch(run, tmp_path, toy_model, colour_folders):
    model = ("--model", toy_model, "--device", "cpu")
    job = 'model = "toy.onnx"\nimages = "labelled"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "warn"}\n'
    job += '[evaluation]\nlabels = "labelled"\n'
    (tmp_path / "toy.toml").write_text(job)
    image = next(colour_folders.rglob("*.jpg"))
    for command in (
        ("predict", image, *model),
        ("score", colour_folders, "--out", "p.parquet", *model),
        ("score", colour_folders, "--out", "p.parquet", "--overwrite", *model),
        ("score", colour_folders, "--out", "shards", "--shard", "0/1", *model),
        ("merge", "shards", "--out", "merged.parquet"),
        ("evaluate", "p.parquet", "--labels", colour_folders, "--out", "report"),
        ("evaluate", "merged.parquet", "--labels", colour_folders, "--out", "report2"),
        ("compare", "report", "report2", "--out", "compared"),
        ("run", "toy.toml"),
        ("history", "toy"),
    ):
        assert (command[0], run(*command)) == (command[0], "0 []")

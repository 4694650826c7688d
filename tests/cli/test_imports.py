"""Commands other than `train` do not import pandas or torch, even if these are installed."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
from photo_like import as_jpeg, photo

EACH_IN_A_FORK = """
import json, os, sys
from batchland.cli.main import main
import batchland.nightly.runner, batchland.report.write, jinja2, onnxruntime, pyarrow.parquet, scipy.stats
for arguments in json.load(sys.stdin):
    if os.fork() == 0:
        try:
            main(arguments)
        except SystemExit as end:
            print(end.code, sorted({"pandas", "torch", "matplotlib"} & sys.modules.keys()), flush=True)
        os._exit(0)
    os.wait()
    print("end of", arguments[0], flush=True)
"""


def test_common_commands_import_neither_pandas_nor_torch(tmp_path, toy_model, colour_folders):
    for number, folder in enumerate(colour_folders.iterdir()):  # no copies, for `data split`
        (folder / "photo.jpg").write_bytes(as_jpeg(photo(np.random.default_rng(number), 64)))
    model = ("--model", toy_model, "--device", "cpu")
    job = 'model = "toy.onnx"\nimages = "labelled"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "warn"}\n'
    job += '[evaluation]\nlabels = "labelled"\n'
    (tmp_path / "toy.toml").write_text(job)
    image = next(colour_folders.rglob("0.jpg"))
    commands = (
        ("doctor", *model),
        ("data", "check", colour_folders),
        ("data", "split", colour_folders, "--parts", "train=0.5,val=0.5", "--out", "parts"),
        ("predict", image, *model),
        ("score", colour_folders, "--out", "p.parquet", *model),
        ("score", colour_folders, "--out", "shards", "--shard", "0/1", *model),
        ("merge", "shards", "--out", "merged.parquet"),
        ("evaluate", "p.parquet", "--labels", colour_folders, "--out", "report"),
        ("evaluate", "merged.parquet", "--labels", colour_folders, "--out", "report2"),
        ("compare", "report", "report2", "--out", "compared"),
        ("run", "toy.toml", "--date", "2024-10-01"),
        ("run", "toy.toml", "--date", "2024-10-02"),  # suspicious: the same images
        ("accept", "toy", "--date", "2024-10-02"),
        ("job", "remove-record", "toy", "--date", "2024-10-02"),
        ("trend", "toy", "--out", "trend.html"),
        ("history", "toy"),
    )
    given = json.dumps([[str(each) for each in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_A_FORK], input=given, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    endings = [pair for pair in pairwise(done.stdout.splitlines()) if pair[1].startswith("end of ")]
    assert endings == [("0 []", f"end of {command[0]}") for command in commands], done.stderr


BY_PYARROW = {"cloudpickle", "cython_runtime", "dateutil", "six"}
"""Imported by pyarrow where they are installed."""
BEFORE_THE_FIRST_BATCH = """
import sys, threading
from batchland import __main__
from batchland.scoring.engines import local
score_batch, one_at_a_time = local.score_batch, threading.Lock()

def look(*arguments):
    names = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
    with one_at_a_time:
        print(*sorted(name for name in names if not name.startswith("_")))
    local.score_batch = score_batch
    return score_batch(*arguments)

local.score_batch = look
try:
    __main__.run()
finally:
    print("pyarrow.compute" in sys.modules)
"""


def test_modules_that_are_imported_before_the_first_batch(tmp_path, toy_model, colour_folders):
    """Each costs start-up time: think twice before you add one."""

    def score(*options):
        arguments = ["score", colour_folders, "--model", toy_model, "--device", "cpu", *options]
        command = [sys.executable, "-c", BEFORE_THE_FIRST_BATCH, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()

    found = score("--out", "p.parquet")
    assert set(found[0].split()) - BY_PYARROW - {"sitecustomize"} == {  # Debian's Python has that module
        "PIL", "annotated_types", "batchland", "click", "numpy", "onnxruntime", "platformdirs", "pyarrow", "pydantic",
        "pydantic_core", "simplejpeg", "typing_extensions", "typing_inspection",
    }  # fmt: skip
    assert found[-1] == "False", "pyarrow.compute takes 0.05 s to import"

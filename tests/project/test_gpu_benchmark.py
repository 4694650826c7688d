"""The GPU benchmark, run on a CPU, so that all its code except for the device is tested."""

import json
import os
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
from toys import write_toy_model

from batchland.models.devices import gpu_problem
from benchmarks import gpu
from benchmarks.gpu_ways import WAYS


def run(tmp_path, capsys, *arguments):
    gpu.main(
        [
            "--device", "cpu", "--sizes", "small", "--count", "9", "--seconds", "0.05", "--batch-size", "4", "--work",
            str(tmp_path / "work"), "--out", str(tmp_path / "out"), *arguments,
        ]
    )  # fmt: skip
    result = json.loads((tmp_path / "out" / "gpu-cpu.json").read_text())
    text = (tmp_path / "out" / "gpu-cpu.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    return result, text


def test_the_ways_that_need_no_torch(tmp_path, capsys):
    toy = write_toy_model(tmp_path / "toy.onnx")
    shutil.copy(toy, tmp_path / "toy-fp16.onnx")
    ways = ("decode", "leave_checked", "copies", "fp32", "pipeline_fp32", "agreement")
    result, text = run(tmp_path, capsys, "--models", str(toy), "--rounds", "1", "--ways", *ways)
    (of_model,), (of_size,) = result["models"][str(toy)]["model"], result["models"][str(toy)]["small"]
    assert set(of_model) == {"copies", "fp32"}
    assert set(of_size) == {"decode", "leave_checked", "pipeline_fp32", "agreement"}
    assert not [found for found in (*of_model.values(), *of_size.values()) if "error" in found]
    assert of_model["fp32"]["images_per_second"] > 0
    assert (of_size["agreement"]["images"], of_size["agreement"]["fp32_same_top1"]) == (9, 1.0)
    assert result["command"].startswith("python -m benchmarks.gpu --device cpu --sizes small")
    assert "| M: fp32 | " in text
    assert "### " + str(toy) + ", 500 x 375" in text
    assert text.endswith("Same first class as fp32 on the CPU, of 9 images: fp32 100.00%, fp16 100.00%.\n\n")


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_an_unavailable_variant_reports_its_error(tmp_path):
    toy = write_toy_model(tmp_path / "toy.onnx")
    options = Namespace(device="cuda", batch_size=4, seconds=0.1, limit=60.0)
    found = gpu._run("fp32", {"model": toy, "half": toy}, tmp_path, options)
    assert found["error"].startswith("batchland.errors.DeviceError: device cuda cannot be used here: ")
    assert gpu._of_model("toy", [{"fp32": found}])[4] == f"| M: fp32 |  |  | {found['error']} |"


def test_a_way_that_takes_too_long_is_given_up_and_results_so_far_are_written(tmp_path, capsys, monkeypatch):
    toy = write_toy_model(tmp_path / "toy.onnx")
    shutil.copy(toy, tmp_path / "toy-fp16.onnx")
    written = []
    monkeypatch.setattr(gpu, "_write", lambda result, options: written.append(json.loads(json.dumps(result))))
    gpu.main(
        [
            "--device", "cpu", "--sizes", "small", "--count", "9", "--seconds", "0.05", "--limit", "0.01", "--rounds",
            "1", "--models", str(toy), "--ways", "fp32", "decode", "--work", str(tmp_path / "work"),
        ]
    )  # fmt: skip
    late = {"error": "no result within 0.01 s"}
    assert [each["models"][str(toy)] for each in written] == [
        {"model": [{"fp32": late}], "small": []},
        {"model": [{"fp32": late}], "small": [{"decode": late}]},
        {"model": [{"fp32": late}], "small": [{"decode": late}]},
    ]
    assert "| M: fp32 |  |  | no result within 0.01 s |" in capsys.readouterr().out


SCRIPT = Path(gpu.__file__).with_name("on_gpu.sh")


@pytest.mark.slow
def test_the_script_for_a_gpu_checks_first_and_limits_each_part(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *resnet50-12mp*) sleep 60;; *) echo "$@";; esac\n')
    python.chmod(0o755)
    out = tmp_path / "out"
    run = subprocess.run(
        [SCRIPT, out], env=os.environ | {"PYTHON": str(python), "LIMIT": "14", "COUNT": "30"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    parts = [
        "machine", "usable", "doctor", "correct", "prepare", "resnet50-small", "resnet50-12mp", "scratch-small",
        "resnet50-again",
    ]  # fmt: skip
    assert [
        line.split(",")[0].split(":")[0].removeprefix("== ") for line in run.stdout.splitlines() if line[:2] == "=="
    ][:-1] == parts
    found = {name: (out / f"{name}.txt").read_text() for name in parts}
    assert found["doctor"] == "-m batchland doctor\n"
    assert found["correct"].startswith("-m pytest tests/models/gpu/test_on_gpu.py -rA ")
    assert found["resnet50-small"].startswith("-m benchmarks.gpu --device cuda --rounds 1 --seconds 2 ")
    assert (
        f"--out {out}/resnet50-small --work {out}/work --models transfer --sizes small --count 30"
        in found["resnet50-small"]
    )
    assert found["resnet50-12mp"].startswith("ended after 1")
    assert found["scratch-small"] == "== scratch-small: no time left\n"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing_in_the_script():
    result = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.slow
def test_all_ways(tmp_path, capsys):
    pytest.importorskip("torch")
    result, text = run(tmp_path, capsys, "--models", "scratch", "--rounds", "1")
    found = {way: found for part in result["models"]["scratch"].values() for way, found in part[0].items()}
    assert set(found) == set(WAYS)
    for way in ("pipeline_fp32_decode_cuda", "pipeline_fp16_decode_cuda"):
        assert "decoding JPEGs with cuda needs a GPU" in found.pop(way)["error"]
    assert not [each for each in found.values() if "error" in each]
    assert text.count("| torch") == 3

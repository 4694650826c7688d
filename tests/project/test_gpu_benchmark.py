"""The benchmark of GPUs, run to its end on a CPU: nothing but the device is new to it on a GPU."""

import json
import shutil
from argparse import Namespace

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
    ways = ("decode", "leave", "leave_checked", "copies", "fp32", "pipeline_fp32", "agreement")
    result, text = run(tmp_path, capsys, "--models", str(toy), "--rounds", "1", "--ways", *ways)
    (of_model,), (of_size,) = result["models"][str(toy)]["model"], result["models"][str(toy)]["small"]
    assert set(of_model) == {"copies", "fp32"}
    assert set(of_size) == {"decode", "leave", "leave_checked", "pipeline_fp32", "agreement"}
    assert not [found for found in (*of_model.values(), *of_size.values()) if "error" in found]
    assert of_model["fp32"]["images_per_second"] > 0
    assert (of_size["agreement"]["images"], of_size["agreement"]["fp32_same_top1"]) == (9, 1.0)
    assert result["command"].startswith("python -m benchmarks.gpu --device cpu --sizes small")
    assert "| M: fp32 | " in text
    assert "### " + str(toy) + ", 500 x 375" in text
    assert text.endswith("Same first class as fp32 on the CPU, of 9 images: fp32 100.00%, fp16 100.00%.\n\n")


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_a_way_that_cannot_be_had_says_why(tmp_path):
    toy = write_toy_model(tmp_path / "toy.onnx")
    options = Namespace(device="cuda", batch_size=4, seconds=0.1)
    found = gpu._run("fp32", {"model": toy, "half": toy}, tmp_path, options)
    assert found["error"].startswith("batchland.errors.DeviceError: device cuda cannot be used here: ")
    assert gpu._of_model("toy", [{"fp32": found}])[4] == f"| M: fp32 |  |  | {found['error']} |"


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

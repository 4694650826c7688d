"""Rows computed on the stand-ins are the CPU's with all settings, threads and numbers of GPUs."""

import re

import pyarrow.parquet as pq
import pytest
from models.gpu.stub.programs import differences, feature_differences, opened, scored, scored_by_ray, stopped
from toys import write_dense_model

SIZES = [4, 4, 1, 4, 3, 9, 4, 2, 4, 4]
SLOW = {"STUB_DELAY_US": 1000}
GRAPHS = {"enable_cuda_graph": "1"}


@pytest.mark.parametrize("settings", [{}, GRAPHS, {"prefer_nhwc": "1"}], ids=["plain", "graphs", "nhwc"])
def test_two_runners_and_four_callers_give_the_rows_of_the_cpu(stub, dense, settings):
    ran = stub.run(differences, dense, "cuda", SIZES, 4, 4, settings, variables=SLOW)
    assert ran.result.pop("largest") < 1e-5
    chosen = ran.result.pop("settings")
    assert chosen | settings == chosen
    assert ran.result == {
        "device": "cuda:0", "calls_at_once": 2, "nodes": {"CUDAExecutionProvider": 4}, "cpu_nodes": [],
    }  # fmt: skip


def test_a_session_for_batches_of_any_size_gives_the_rows_of_the_cpu(stub, dense):
    ran = stub.run(differences, dense, "cuda", SIZES, 1, None, {}, variables=SLOW)
    assert ran.result["largest"] < 1e-5


def test_features_are_those_of_the_cpu(stub, tmp_path):
    ran = stub.run(feature_differences, write_dense_model(tmp_path / "dense.onnx", features=5), 4, GRAPHS)
    assert (ran.result["device"], ran.result["cpu_nodes"]) == ("cuda:0", [])
    assert max(ran.result["probabilities"], ran.result["features"]) < 1e-5


@pytest.mark.parametrize("settings", [{}, GRAPHS], ids=["plain", "graphs"])
def test_copies_wait_for_the_work_on_their_buffers(stub, dense, settings):
    """From the trace of one caller: whenever the host copies from or to the GPU, all queued work is done."""
    ran = stub.run(differences, dense, "cuda", [4] * 6, 1, 4, settings, variables=SLOW)
    queued, copies, capturing = 0, 0, False
    for line in ran.trace:
        if line.startswith(("cudaStreamBeginCapture", "cudaStreamEndCapture")):
            capturing = "Begin" in line
        elif line.startswith(("kernel", "cublasSgemm")):
            queued += not capturing
        elif line.startswith("cudaGraphLaunch"):
            queued += int(line.split()[-1])
        elif line.startswith("work"):
            queued -= 1
        elif line.startswith("cudaMemcpy "):
            assert queued == 0, line
            copies += 1
    assert copies >= 3 * 6


def test_each_runner_captures_one_graph_and_replays_it(stub, dense):
    ran = stub.run(differences, dense, "cuda", SIZES, 4, 4, GRAPHS, variables=SLOW)
    assert not [line for line in ran.trace if "FORBIDDEN" in line]
    captures = [line for line in ran.trace if line.startswith("cudaStreamEndCapture")]
    assert all(line.endswith("status 0") for line in captures)
    last = max(index for index, line in enumerate(ran.trace) if line.startswith("cudaStreamEndCapture"))
    after = [re.split(r"[ (]", line)[0] for line in ran.trace[last:]]
    assert not {"kernel", "cublasSgemm", "cudaMalloc"}.intersection(after)
    assert after.count("cudaGraphLaunch") >= len(SIZES)


def test_several_gpus_share_the_batches(stub, dense):
    ran = stub.run(differences, dense, "cuda:all", SIZES, 6, 4, GRAPHS, variables=SLOW | {"STUB_DEVICES": 3})
    assert ran.result["largest"] < 1e-5
    assert (ran.result["device"], ran.result["calls_at_once"]) == ("cuda:0,1,2", 6)
    assert not [line for line in ran.trace if "ILLEGAL" in line]
    for device in range(3):
        assert [line for line in ran.trace if line.startswith("kernel") and line.endswith(f"device {device}")]


def test_a_single_gpu_of_several_is_used(stub, dense):
    variables = {"STUB_DEVICES": 3}
    ran = stub.run(differences, dense, "cuda:2", SIZES, 2, 4, {}, variables=variables)
    assert (ran.result["device"], ran.result["largest"] < 1e-5) == ("cuda:2", True)
    kernels = [line for line in ran.trace if line.startswith("kernel")]
    assert kernels
    assert all(line.endswith("device 2") for line in kernels)
    assert stub.run(opened, dense, "cuda:1,5", variables=variables).result == {
        "error": "device cuda:1,5 cannot be used here: there is no GPU 5, the driver shows 3; `nvidia-smi -L` lists "
        "them"
    }


def test_a_run_gives_the_rows_of_the_cpu(stub, dense, photos, tmp_path):
    variables = SLOW | {"STUB_DEVICES": 2}
    on_gpu = stub.run(scored, photos, tmp_path / "gpu.parquet", dense, "cuda:all", variables=variables).result
    on_cpu = stub.run(scored, photos, tmp_path / "cpu.parquet", dense, "cpu").result
    assert on_gpu == {"device": "cuda:0,1", "failed": 6, "nodes": {"CUDAExecutionProvider": 4}}
    assert on_cpu == {"device": "cpu", "failed": 6, "nodes": None}
    require_same_rows(tmp_path / "gpu.parquet", tmp_path / "cpu.parquet")


def require_same_rows(gpu, cpu):
    for ours, theirs in zip(*(pq.read_table(path).to_pylist() for path in (gpu, cpu)), strict=True):
        for name in ("image", "status", "error_code", "label", "class_index", "width", "height"):
            assert ours[name] == theirs[name]
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [1, 2])
def test_ray_gives_the_rows_of_the_cpu_through_runners_with_pinned_memory(stub, dense, photos, tmp_path, gpus):
    preloaded = ":".join(str(path) for path in stub.libraries.glob("lib*.so*") if path.suffix not in (".c", ".map"))
    ran = stub.run(
        scored_by_ray, photos, tmp_path / "gpu.parquet", dense, gpus,
        variables={"STUB_DEVICES": gpus, "LD_PRELOAD": preloaded},
    )  # fmt: skip
    assert ran.result == {"device": "cuda:0", "failed": 6}
    pinned = [line for line in ran.trace if line.startswith("cudaHostRegister")]
    assert len(pinned) >= 2 * (gpus + 1)  # two runners for each session, one of which only finds out about the device
    assert {line.split()[-1] for line in pinned} == {str(4 * 8 * 8 * 3)}
    stub.run(scored, photos, tmp_path / "cpu.parquet", dense, "cpu")
    require_same_rows(tmp_path / "gpu.parquet", tmp_path / "cpu.parquet")


def test_a_gpu_that_breaks_during_a_run_ends_it_and_a_rerun_completes_it(stub, dense, photos, tmp_path):
    out = tmp_path / "p.parquet"
    assert stub.run(scored, photos, tmp_path / "whole.parquet", dense, "cuda").result["failed"] == 6
    begun = stub.run(scored, photos, out, dense, "cuda", variables={"STUB_BREAK_AT": 40}).result
    assert begun == {
        "error": f"{dense}: inference failed on cuda:0: the GPU failed while computing; run the same command again, it "
        "resumes where it stopped",
        "exit_code": 5,
    }
    assert not out.exists()
    assert stub.run(scored, photos, out, dense, "cuda").result["failed"] == 6
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_gpu_that_stops_computing_without_an_error_is_noticed(stub, dense):
    ran = stub.run(stopped, dense, 40)
    assert ran.result == {
        "right": ran.result["right"],
        "error": "cuda:0: has not computed this batch; check the driver, and the GPU with nvidia-smi -q",
        "kind": "DeviceError",
    }
    assert ran.result["right"] > 0

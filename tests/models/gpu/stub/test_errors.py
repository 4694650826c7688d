"""What is missing or wrong on a machine is said in one sentence; `auto` then uses the CPU, `cuda` never does."""

import re
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from models.gpu.stub.programs import cuda_and_auto, examined, halved, opened, without_memory
from onnx import helper, numpy_helper
from toys import write_toy_model, write_wide_model

CPU = "CPUExecutionProvider"
MISSING = {
    "libcuda.so.1": "no NVIDIA driver on this machine (libcuda.so.1 is missing); run on a machine with a GPU",
    "libcudnn.so.9": "cuDNN is not installed (libcudnn.so.9 is missing); pip install 'batchland[cuda]'",
    **{
        name: f"a CUDA library is not installed ({name} is missing); pip install 'batchland[cuda]'"
        for name in ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10")
    },
}
VARIABLES = {
    "no GPU": (
        {"STUB_DEVICES": 0},
        "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings",
    ),
    "busy": (
        {"STUB_CUINIT": 46},
        "the GPU is busy: another process has exclusive use of it; nvidia-smi shows which process uses it",
    ),
    "updated driver": (
        {"STUB_CUINIT": 803},
        "the kernel's driver and the driver library differ; restart the machine after a driver update",
    ),
    "old driver": (
        {"STUB_DRIVER": 12080},
        "the NVIDIA driver supports CUDA up to 12.8, this onnxruntime needs 13.0; update the driver, or install an "
        "onnxruntime-gpu for CUDA 12",
    ),
    "no code": (
        {"STUB_NO_KERNELS": 1},
        "this onnxruntime has no code for this kind of GPU; install a newer onnxruntime-gpu, or use the CPU",
    ),
    "no memory": ({"STUB_MEM": 1000}, "the GPU's memory is full; nvidia-smi shows which process uses it"),
}


def require(stub, model, reason, variables=None, batch_size=4):
    """Assert that `cuda` ends with the reason, and `auto` uses the CPU and records it; nothing else is printed."""
    ran = stub.run(cuda_and_auto, model, batch_size, variables=variables)
    assert ran.result == [
        {"error": f"device cuda cannot be used here: {reason}"},
        {"device": "cpu", "provider": CPU, "fallback": reason},
    ]
    assert ran.stderr == ""


@pytest.mark.parametrize("library", MISSING)
def test_a_missing_library_is_named(stub, dense, tmp_path, library, installed):
    if library in installed:
        pytest.skip(f"{library} is installed on this machine")
    rest = shutil.copytree(stub.libraries, tmp_path / "rest")
    (rest / library).unlink()
    require(replace(stub, libraries=rest), dense, MISSING[library])


@pytest.mark.parametrize(
    ("name", "batch_size"), [*((name, 4) for name in VARIABLES), ("no code", None), ("no memory", None)]
)
def test_a_gpu_that_cannot_be_used_is_explained(stub, dense, name, batch_size):
    variables, reason = VARIABLES[name]
    require(stub, dense, reason, variables, batch_size)


@pytest.mark.parametrize("batch_size", [4, None], ids=["batches", "any size"])
def test_a_gpu_that_computes_nothing_is_refused(stub, tmp_path, batch_size):
    """The stand-ins do not compute convolutions, and report no error."""
    ran = stub.run(cuda_and_auto, write_convolution(tmp_path / "convolution.onnx"), batch_size)
    cuda, auto = ran.result
    reason = auto.pop("fallback")
    assert cuda == {"error": f"device cuda cannot be used here: {reason}"}
    assert auto == {"device": "cpu", "provider": CPU}
    assert re.fullmatch(
        r"cuda:0 computes wrongly: a probability differs from the CPU's by \S+ \(allowed 0.01\); check the driver, and "
        r"the GPU with nvidia-smi -q",
        reason,
    )


def test_doctor_compares_a_convolution_with_the_cpu(stub):
    (found,) = stub.run(examined).result
    assert found.startswith("warn not usable: cuda:0 computes wrongly: a probability differs from the CPU's by ")


def write_convolution(path):
    """The toy model with an identity convolution before it."""
    model = onnx.load(write_toy_model(path))
    weight = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(weight, "identity"))
    nodes = [
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "identity"], ["convolved"]),
        helper.make_node("Transpose", ["convolved"], ["last"], perm=[0, 2, 3, 1]),
    ]
    model.graph.node[1].input[0] = "last"
    for index, node in enumerate(nodes):
        model.graph.node.insert(1 + index, node)
    onnx.save(model, path)
    return path


def test_libraries_in_another_folder_of_packages_are_found(stub, dense, tmp_path):
    """As with a virtual environment that sees the system's packages, the user's site or `pip install --target`."""
    wheels = tmp_path / "elsewhere"
    for library in stub.libraries.glob("*.so*"):
        folder = wheels / "nvidia" / ("cudnn" if "cudnn" in library.name else "cu13") / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        if library.name != "libcuda.so.1" and library.suffix not in (".c", ".map"):
            (folder / library.name).symlink_to(library)
    driver = tmp_path / "driver"
    driver.mkdir()
    for name in ("libcuda.so.1", "libstubcore.so"):
        (driver / name).symlink_to(stub.libraries / name)
    apart = replace(stub, libraries=driver, packages=(*stub.packages, wheels))
    assert apart.run(opened, dense, "cuda", 4).result["device"] == "cuda:0"
    (wheels / "nvidia" / "__init__.py").touch()
    assert apart.run(opened, dense, "cuda", 4).result["device"] == "cuda:0"
    shutil.rmtree(wheels / "nvidia" / "cudnn")
    require(apart, dense, MISSING["libcudnn.so.9"])


FULL = {
    "device cuda cannot be used here: the GPU's memory is full; nvidia-smi shows which process uses it",
    "device cuda cannot be used here: cuda:0: not enough memory for a single image; nvidia-smi shows which process "
    "uses it",
}


@pytest.mark.parametrize("settings", [{}, {"enable_cuda_graph": "1"}], ids=["plain", "graphs"])
def test_a_failed_allocation_gives_right_rows_or_a_reason(stub, dense, settings):
    found = stub.run(without_memory, dense, 8, settings).result
    assert found["wrong"] == 0
    assert found["worked"] + len(found["errors"]) == found["allocations"] > 8
    assert found["worked"] > found["allocations"] / 2  # most lead to smaller batches or to one runner
    assert FULL.issuperset(found["errors"])


def test_batches_are_halved_until_the_memory_suffices(stub, tmp_path):
    path = write_wide_model(tmp_path / "wide.onnx")
    each = 64 * 224 * 224 * 4  # bytes of activations for one picture
    assert stub.run(halved, path, 64, 40 * each).result == {"batch_size": 32}
    assert stub.run(halved, path, 4, 4 * 2**20).result == {
        "batch_size": 1,
        "error": "cuda:0: not enough memory for a single image; nvidia-smi shows which process uses it",
    }

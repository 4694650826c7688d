"""Device names, and facts about GPUs that are found without creating a session."""

import os
import shutil
import subprocess
import sys

import pytest
from toys import write_toy_model

from batchland.errors import DeviceError
from batchland.models.devices import DeviceRequest, device_name, gpu_problem, parse_device
from batchland.models.ort import CUDA, ort


def test_device_names_are_parsed():
    assert {
        text: parse_device(text) for text in ("auto", "cpu", "cuda", "cuda:2", "cuda:0,1", "cuda:1,1", "cuda:all")
    } == {
        "auto": DeviceRequest("auto", (0,)),
        "cpu": DeviceRequest("cpu", ()),
        "cuda": DeviceRequest("cuda", (0,)),
        "cuda:2": DeviceRequest("cuda", (2,)),
        "cuda:0,1": DeviceRequest("cuda", (0, 1)),
        "cuda:1,1": DeviceRequest("cuda", (1,)),
        "cuda:all": DeviceRequest("cuda", None),
    }
    assert parse_device("tensorrt:1") == DeviceRequest("tensorrt", (1,))
    assert [device_name("cpu", ()), device_name("cuda", (0,)), device_name("tensorrt", (0, 1))] == [
        "cpu", "cuda:0", "tensorrt:0,1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["gpu", "cuda:", "cuda:x", "cpu:1", "cuda:-1", "cuda:0,", "cuda:0,all", "auto:0", "CUDA", "cuda:0 ", ""]
)
def test_an_unknown_device_is_an_error(text):
    with pytest.raises(DeviceError) as caught:
        parse_device(text)
    assert str(caught.value) == (
        f"unknown device {text!r}; use auto, cpu, cuda, cuda:N, cuda:0,1, cuda:all or tensorrt"
    )


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_a_missing_gpu_is_explained_with_a_remedy(capfd):
    for kind in ("cuda", "tensorrt"):
        problem = gpu_problem(kind)
        assert "; " in problem
        assert "\n" not in problem
    assert capfd.readouterr() == ("", "")


DRIVER = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { return atoi(getenv(name)); }
int cuInit(unsigned flags) { return number("FAKE_STATUS"); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_VERSION"); return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake GPU", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuTensorMapEncodeTiled(void) { return 100; }
"""
"""The functions of NVIDIA's driver that batchland calls. CUDA itself does not start with it."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler for a stand-in of the driver")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    library = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return folder


def with_driver(driver, code, status=0, version=13000):
    environment = {"LD_LIBRARY_PATH": str(driver), "FAKE_STATUS": str(status), "FAKE_VERSION": str(version)}
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


needs_cuda = pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="this onnxruntime has no CUDA")
PROBLEM = "from batchland.models.devices import gpu_problem; print(gpu_problem())"


@needs_cuda
@pytest.mark.parametrize(
    ("status", "version", "problem"),
    [
        (100, 13000, "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings"),
        (803, 13000, "the kernel's driver and the driver library differ; restart the machine after a driver update"),
        (0, 12040, "the NVIDIA driver supports CUDA up to 12.4, this onnxruntime needs 13.0; update the driver, or "
         "install an onnxruntime-gpu for CUDA 12"),
    ],
)  # fmt: skip
def test_a_driver_that_does_not_start_or_is_too_old(driver, status, version, problem):
    assert with_driver(driver, PROBLEM, status, version) == problem.replace("13.0", ort.cuda_version) + "\n"


@needs_cuda
def test_facts_about_gpus_from_the_driver(driver):
    code = "from batchland.models.devices import *; print(count_gpus(), gpu_model(1), driver_version())"
    assert with_driver(driver, code) == "2 Fake GPU 13000\n"


@needs_cuda
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_driver_with_which_cuda_does_not_start_is_explained(driver, tmp_path, batch_size):
    """onnxruntime's real provider fails, and its own error is explained; nothing else is printed."""
    model = write_toy_model(tmp_path / "toy.onnx")
    code = f"""
from batchland.errors import DeviceError
from batchland.models.session import open_session
try:
    open_session({str(model)!r}, "cuda", batch_size={batch_size})
except DeviceError as error:
    print(error)
session = open_session({str(model)!r}, "auto", batch_size={batch_size})
print(session.device, session.fallback)
"""
    refusal, fallback = with_driver(driver, code).splitlines()
    reason = fallback.removeprefix("cpu ")
    assert refusal == f"device cuda cannot be used here: {reason}"
    assert "; " in reason
    assert len(reason) < 200

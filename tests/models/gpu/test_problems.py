"""Error texts of onnxruntime, CUDA and the loader, quoted from bug reports, and the sentences made of them."""

import pytest

from batchland.models.gpu.problems import (
    explain,
    explain_known,
    explain_missing_provider,
    explain_start,
    explain_version,
    is_out_of_memory,
)

CUDA_CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:121 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, ERRTYPE, const char*, const "
    "char*, int) [with ERRTYPE = cudaError; bool THRW = true; std::conditional_t<THRW, void, common::Status> = void] "
)
SET_DEVICE = (
    " ; GPU=0 ; hostname=c4327188c000000 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=336 ; expr=cudaSetDevice(info_.device_id); "
)
CREATE = " ; GPU=0 ; hostname=egg ; file=cuda_execution_provider.cc ; line=164 ; expr=cublasCreate(&cublas_handle_);"
PROVIDER = (
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /venv/onnxruntime/capi/libonnxruntime_providers_cuda.so "
    "with error: "
)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Name:'/patch_embed/Conv' Status Message: \n/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, "
    "onnxruntime::WaitNotificationFn) "
)

TEXTS = {
    PROVIDER + "libcublasLt.so.13: cannot open shared object file: No such file or directory\n": (
        "a CUDA library is not installed (libcublasLt.so.13 is missing); pip install 'batchland[cuda]'"
    ),
    "libcurand.so.10: cannot open shared object file: No such file or directory": (
        "a CUDA library is not installed (libcurand.so.10 is missing); pip install 'batchland[cuda]'"
    ),
    PROVIDER + "libcudnn.so.9: cannot open shared object file: No such file or directory": (
        "cuDNN is not installed (libcudnn.so.9 is missing); pip install 'batchland[cuda]'"
    ),
    "libcudnn_adv_infer.so.8: cannot open shared object file: No such file or directory": (
        "cuDNN is not installed (libcudnn_adv_infer.so.8 is missing); pip install 'batchland[cuda]'"
    ),
    "cuDNN is not available. Install cuDNN, update the system library search path, or set enable_cudnn=0 to force "
    "native CUDA paths where available.": "cuDNN is not installed; pip install 'batchland[cuda]'",
    "libnvinfer.so.10: cannot open shared object file: No such file or directory": (
        "TensorRT is not installed (libnvinfer.so.10 is missing); pip install 'tensorrt-cu13==10.*', or use device "
        "cuda"
    ),
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
    "Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
    "LD_LIBRARY_PATH, and that your GPU is supported.\n": (
        "TensorRT does not start; check that it is installed, or use device cuda"
    ),
    "libcuda.so.1: cannot open shared object file: No such file or directory": (
        "no NVIDIA driver on this machine (libcuda.so.1 is missing); run on a machine with a GPU"
    ),
    "/venv/nvidia/cudnn/lib/libcudnn_cnn.so.9: undefined symbol: _ZTIN10cask_cudnn14BaseKernelInfoE, version "
    "libcudnn_cnn.so.9": (
        "the CUDA libraries do not match this onnxruntime; pip install -U 'batchland[cuda]'"
    ),
    CUDA_CALL + "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version" + SET_DEVICE: (
        "the NVIDIA driver is too old for the CUDA of this onnxruntime; update the driver"
    ),
    "provider_options_utils.h:187 Parse Failed to parse provider option \"device_id\": CUDA failure 36: API call is "
    "not supported in the installed CUDA driver ; GPU=-1 ; expr=cudaGetDeviceCount(&num_devices);": (
        "the NVIDIA driver is too old for the CUDA of this onnxruntime; update the driver"
    ),
    CUDA_CALL + "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=egg ; file=conv.cc ; line=9": (
        "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED; see nvidia-smi for the GPU's state"
    ),
    CUDA_CALL + "CUDA failure 101: invalid device ordinal" + SET_DEVICE: (
        "there is no GPU with that number; `nvidia-smi -L` lists them, and CUDA_VISIBLE_DEVICES may hide some"
    ),
    CUDA_CALL + "CUDA failure 100: no CUDA-capable device is detected" + SET_DEVICE: (
        "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings"
    ),
    CUDA_CALL + "CUDA failure 46: all CUDA-capable devices are busy or unavailable" + SET_DEVICE: (
        "the GPU is busy: another process has exclusive use of it; nvidia-smi shows which process uses it"
    ),
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable": (
        "the GPU is busy: another process has exclusive use of it; nvidia-smi shows which process uses it"
    ),
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Slice node. Name:'Slice_12' Status "
    "Message: CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device": (
        "this onnxruntime has no code for this kind of GPU; install a newer onnxruntime-gpu, or use the CPU"
    ),
    "cuDNN error: CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH": (
        "cuDNN's libraries have different versions; reinstall nvidia-cudnn-cu13"
    ),
    CUDA_CALL + "CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0 ; expr=cudnnCreate(&cudnn_handle_);": (
        "cuDNN does not start: it does not match the CUDA in use, or the GPU's memory is full (nvidia-smi shows which "
        "process uses it); pip install -U 'batchland[cuda]'"
    ),
    CUDA_CALL + "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED" + CREATE: (
        "the GPU's memory is full; nvidia-smi shows which process uses it"
    ),
    CUDA_CALL + "CUDA failure 700: an illegal memory access was encountered ; GPU=0": (
        "the GPU failed while computing; run the same command again, it resumes where it stopped"
    ),
    CUDA_CALL + "CUBLAS failure 13: the function failed to launch on the GPU ; GPU=0": (
        "the GPU failed while computing; run the same command again, it resumes where it stopped"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), TEXTS.items(), ids=[text[-60:-20] for text in TEXTS])
def test_known_texts_become_a_sentence_with_a_remedy(text, sentence):
    assert explain(text) == sentence


def test_an_unknown_text_keeps_its_first_line():
    assert explain_known("a new kind of trouble") is None
    assert explain("a new kind of trouble\nwith a trace") == "a new kind of trouble; see nvidia-smi for the GPU's state"


@pytest.mark.parametrize(
    "text",
    [
        ARENA + "Failed to allocate memory for requested buffer of size 939524096",
        ARENA + "Available memory of 0 is smaller than requested bytes of 135383040",
        CUDA_CALL + "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);",
        CUDA_CALL + "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED" + CREATE,
        "CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "Non-zero status code returned while running Conv node. CUDA error cudaErrorMemoryAllocation:out of memory",
        "[TRT] [E] 1: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory) OutOfMemory",
    ],
)  # fmt: skip
def test_texts_that_mean_out_of_memory(text):
    assert is_out_of_memory(text)


@pytest.mark.parametrize(
    "text",
    [
        CUDA_CALL + "CUDA failure 101: invalid device ordinal" + SET_DEVICE,
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images",
        "onnx runtime error 2: not enough space: expected 318080, got 314240",
        CUDA_CALL + "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0",
        "",
    ],
)
def test_texts_that_mean_something_else(text):
    assert not is_out_of_memory(text)


def test_statuses_of_a_driver_that_does_not_start():
    assert explain_start(100) == (
        "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings"
    )
    assert explain_start(803) == (
        "the kernel's driver and the driver library differ; restart the machine after a driver update"
    )
    assert explain_start(12345) == "the NVIDIA driver does not start (cuInit returns 12345); see nvidia-smi"


def test_a_driver_must_support_the_major_version_of_cuda():
    assert explain_version(13000, "13.0") is None
    assert explain_version(13010, "13.2") is None
    assert explain_version(14000, "13.0") is None
    assert explain_version(12040, "") is None
    assert explain_version(12040, "13.0") == (
        "the NVIDIA driver supports CUDA up to 12.4, this onnxruntime needs 13.0; update the driver, or install an "
        "onnxruntime-gpu for CUDA 12"
    )


def test_an_onnxruntime_without_cuda():
    assert explain_missing_provider(("onnxruntime",)) == (
        "the installed onnxruntime has no CUDA provider; install onnxruntime-gpu instead"
    )
    assert explain_missing_provider(("onnxruntime", "onnxruntime-gpu")) == (
        "onnxruntime and onnxruntime-gpu are installed side by side and break each other; pip uninstall -y onnxruntime "
        "onnxruntime-gpu; then pip install onnxruntime-gpu"
    )

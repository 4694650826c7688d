"""What the tests run on stand-ins for a GPU, each function in its own process. They return what JSON can hold."""

import ctypes
import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from batchland.errors import BatchlandError, DeviceError
from batchland.models.card import ModelCard
from batchland.models.devices import count_gpus, gpu_model, gpu_problem
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.create import create_on_gpu, warn_of_int8
from batchland.models.gpu.device import Device
from batchland.models.gpu.settings import settings_for
from batchland.models.ort import CPU, create_session, placement
from batchland.models.session import open_session
from benchmarks.gpu_ways import gpu_uuid

RUNTIME = "libcudart.so.13"


def facts() -> dict[str, Any]:
    """What the driver tells about GPUs, or why there is none."""
    problem = gpu_problem()
    numbers = [] if problem else range(count_gpus())
    names = [gpu_model(number) for number in numbers]
    return {"problem": problem, "names": names, "uuids": [gpu_uuid(number) for number in numbers]}


def opened(path: str, device: str, batch_size: int | None = None) -> dict[str, Any]:
    """The device of a session, and why it is not the one that was asked for; or the error."""
    try:
        session = open_session(path, device, batch_size=batch_size)
    except DeviceError as error:
        return {"error": str(error)}
    with closing(session):
        return {"device": session.device, "provider": session.provider, "fallback": session.fallback}


def loadable(libraries: list[str]) -> list[str]:
    """Those that the dynamic loader finds."""
    found = []
    for library in libraries:
        with suppress(OSError):
            ctypes.CDLL(library)
            found.append(library)
    return found


def cuda_and_auto(path: str, batch_size: int | None) -> list[dict[str, Any]]:
    """`opened` with both devices."""
    return [opened(path, device, batch_size) for device in ("cuda", "auto")]


def examined() -> list[str]:
    """What `doctor` finds about CUDA."""
    from batchland.doctor.examine import examine_installation

    return [f"{check.state} {check.found}" for check in examine_installation() if check.name == "cuda"]


def differences(
    path: str, device: str, sizes: list[int], threads: int, batch_size: int | None, settings: dict[str, str]
) -> dict[str, Any]:
    """Largest difference from the CPU's probabilities, of batches that several threads predict."""
    batches = [noise(open_session(path, "cpu").card, size, seed) for seed, size in enumerate(sizes)]
    opening = open_session(path, device, batch_size=batch_size, gpu_settings=settings)
    with closing(opening) as session, ThreadPoolExecutor(threads) as callers:
        answers = list(callers.map(session.predict, batches))
        expected = [on_cpu(path, batch) for batch in batches]
        largest = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(answers, expected, strict=True))
        return {
            "device": session.device,
            "calls_at_once": session.calls_at_once,
            "largest": largest,
            "nodes": dict(session.nodes),
            "cpu_nodes": list(session.cpu_nodes),
            "settings": dict(session.settings),
        }


def feature_differences(path: str, batch_size: int | None, settings: dict[str, str]) -> dict[str, Any]:
    """Largest differences from the CPU's probabilities and features, and the nodes that are not on the GPU."""
    with closing(open_session(path, "cpu", features=True)) as cpu:
        batches = [noise(cpu.card, size, seed) for seed, size in enumerate((4, 1, 3))]
        expected = [cpu.answer(batch) for batch in batches]
    with closing(open_session(path, "cuda", batch_size=batch_size, gpu_settings=settings, features=True)) as session:
        pairs = list(zip(map(session.answer, batches), expected, strict=True))
        return {
            "device": session.device,
            "cpu_nodes": list(session.cpu_nodes),
            "probabilities": max(float(np.abs(a.probabilities - b.probabilities).max()) for a, b in pairs),
            "features": max(float(np.abs(a.features - b.features).max()) for a, b in pairs),
        }


def placements(paths: list[str], settings: dict[str, str]) -> dict[str, Any]:
    """For each model, the nodes of a GPU's session by provider, and the operators of those on the CPU."""
    logging.basicConfig(format="%(message)s")
    found = {}
    for path in map(Path, paths):
        placed = placement(_on_gpu(path, settings))
        warn_of_int8(path, placed)
        found[path.name] = {
            "nodes": dict(placed.nodes),
            "cpu": sorted({node.partition(" ")[0] for node in placed.on_cpu}),
        }
    return found


def graphs(paths: list[str]) -> dict[str, bool]:
    """For each model, whether three batches run with CUDA graphs."""
    found = {}
    for path in map(Path, paths):
        card = open_session(path, "cpu").card
        session = _on_gpu(path, {"enable_cuda_graph": "1"})
        runner = BatchRunner(session, Device("cuda"), 2, card.preprocess.shape, len(card.classes), graph=True)
        found[path.name] = all(
            runner.predict(noise(card, 2, seed)).shape == (2, len(card.classes)) for seed in range(3)
        )
    return found


def _on_gpu(path: Path, settings: dict[str, str]) -> Any:
    assert gpu_problem() is None
    content = path.read_bytes()
    base = {**settings_for(content).base, **settings}
    return create_on_gpu(path, content, "cuda", path.parent, Device("cuda"), base, half=False)


def halved(path: str, batch_size: int, limit: int) -> dict[str, Any]:
    """The batch size that fits into a limit of onnxruntime's arena, bytes, or the error."""
    card = open_session(path, "cpu").card
    session = _on_gpu(Path(path), {"gpu_mem_limit": str(limit)})
    runner = BatchRunner(session, Device("cuda"), batch_size, card.preprocess.shape, len(card.classes))
    try:
        runner.predict(noise(card, batch_size))
    except DeviceError as error:
        return {"batch_size": runner.batch_size, "error": str(error)}
    return {"batch_size": runner.batch_size}


def without_memory(path: str, batch_size: int, settings: dict[str, str]) -> dict[str, Any]:
    """What happens if each allocation in turn fails, from opening a model to the last of three batches.

    Returns how often the model worked at once, worked with smaller batches, and could not be used, with the reasons;
    and the number of wrong answers.
    """
    core = _core()
    card = open_session(path, "cpu").card
    batches = [noise(card, size, seed) for seed, size in enumerate((batch_size, batch_size, batch_size // 2 + 1))]
    expected = [on_cpu(path, batch) for batch in batches]
    found: dict[str, Any] = {"worked": 0, "wrong": 0, "errors": []}

    def attempt() -> None:
        try:
            with closing(open_session(path, "cuda", batch_size=batch_size, gpu_settings=settings)) as session:
                assert session.device == "cuda:0"
                for batch, answer in zip(batches, expected, strict=True):
                    found["wrong"] += not np.allclose(session.predict(batch), answer, atol=1e-5)
        except BatchlandError as error:
            found["errors"].append(str(error))
        else:
            found["worked"] += 1

    attempt()
    before = core.stub_allocations()
    attempt()
    found["allocations"] = core.stub_allocations() - before
    found["worked"] = 0
    for number in range(1, found["allocations"] + 1):
        os.environ["STUB_FAIL_AT"] = str(core.stub_allocations() + number)
        attempt()
    return found


def stopped(path: str, batches: int) -> dict[str, Any]:
    """How many batches are answered rightly before the GPU computes nothing any more, and the error then."""
    core = _core()
    card = open_session(path, "cpu").card
    with closing(open_session(path, "cuda", batch_size=4)) as session:
        os.environ["STUB_STOP_AT"] = str(core.stub_pieces() + 20)
        for number in range(batches):
            batch = noise(card, 4, number)
            try:
                answer = session.predict(batch)
            except BatchlandError as error:
                return {"right": number, "error": str(error), "kind": type(error).__name__}
            assert np.allclose(answer, on_cpu(path, batch), atol=1e-5), number
    return {"right": batches}


def scored(images: str, out: str, model: str, device: str) -> dict[str, Any]:
    """A run's device, or its error."""
    from batchland import ScoreOptions, score

    chosen = ScoreOptions(model=Path(model), device=device, batch_size=4, part_size=16)
    try:
        manifest = score(images, out, chosen).manifest
    except BatchlandError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    execution = manifest.execution
    return {"device": manifest.device, "failed": manifest.counts.failed, "nodes": execution and dict(execution.nodes)}


def scored_by_ray(images: str, out: str, model: str, gpus: int) -> dict[str, Any]:
    """A run by the Ray engine on a Ray with GPUs."""
    import ray

    from batchland import ScoreOptions, score

    ray.init(num_cpus=2, num_gpus=gpus, include_dashboard=False, log_to_driver=False, _temp_dir=tempfile.mkdtemp())
    try:
        chosen = ScoreOptions(model=Path(model), device="cuda", engine="ray", batch_size=4, part_size=16)
        manifest = score(images, out, chosen).manifest
    finally:
        ray.shutdown()
    return {"device": manifest.device, "failed": manifest.counts.failed}


def calls() -> dict[str, Any]:
    """What programs see that get the order of calls wrong."""
    return {"late copy": _late_copy(), "early read": _early_read(), "capture": _forbidden_during_capture()}


def _late_copy() -> dict[str, list[int]]:
    """What arrives of a pinned buffer that changes right after an asynchronous copy, and of a pageable one."""
    runtime = ctypes.CDLL(RUNTIME)
    stream, device = ctypes.c_void_p(), ctypes.c_void_p()
    assert runtime.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    assert runtime.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(4)) == 0
    found = {}
    for kind in ("pinned", "pageable"):
        host, back = np.zeros(4, np.uint8), np.zeros(4, np.uint8)
        if kind == "pinned":
            assert runtime.cudaHostRegister(host.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(4), 0) == 0
        source = host.ctypes.data_as(ctypes.c_void_p)
        assert runtime.cudaMemcpyAsync(device, source, ctypes.c_size_t(4), 1, stream) == 0
        host[:] = 7
        assert runtime.cudaStreamSynchronize(stream) == 0
        assert runtime.cudaMemcpy(back.ctypes.data_as(ctypes.c_void_p), device, ctypes.c_size_t(4), 2) == 0
        found[kind] = back.tolist()
    return found


def _early_read() -> list[int]:
    """What a synchronous copy reads while another stream has not written yet, then after waiting for it."""
    runtime = ctypes.CDLL(RUNTIME)
    stream, device = ctypes.c_void_p(), ctypes.c_void_p()
    back = np.zeros(1, np.uint8)
    assert runtime.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    assert runtime.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(1)) == 0
    assert runtime.cudaMemset(device, 1, ctypes.c_size_t(1)) == 0
    assert runtime.cudaMemsetAsync(device, 2, ctypes.c_size_t(1), stream) == 0
    found = []
    for _ in range(2):
        assert runtime.cudaMemcpy(back.ctypes.data_as(ctypes.c_void_p), device, ctypes.c_size_t(1), 2) == 0
        found.append(int(back[0]))
        assert runtime.cudaStreamSynchronize(stream) == 0
    return found


def _forbidden_during_capture() -> dict[str, int]:
    """Status of calls during the capture of a graph, and of its end."""
    runtime = ctypes.CDLL(RUNTIME)
    stream, memory, graph = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert runtime.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    assert runtime.cudaStreamBeginCapture(stream, 0) == 0
    allocation = runtime.cudaMalloc(ctypes.byref(memory), ctypes.c_size_t(4))
    return {"cudaMalloc": allocation, "cudaStreamEndCapture": runtime.cudaStreamEndCapture(stream, ctypes.byref(graph))}


def _core() -> ctypes.CDLL:
    core = ctypes.CDLL("libstubcore.so")
    core.stub_allocations.restype = core.stub_pieces.restype = ctypes.c_long
    return core


def noise(card: ModelCard, count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, *card.preprocess.shape), np.uint8)


def on_cpu(path: str, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = create_session(Path(path).read_bytes(), [(CPU, {})])
    answers: np.ndarray[Any, Any] = session.run(None, {"images": pixels})[0]
    return answers

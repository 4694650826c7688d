"""The measurements of a device, each as a process: `python -m benchmarks.gpu_ways WAY OPTIONS`, options as JSON.

Each prints one JSON line. With the device `cpu` everything runs, too, so that nothing but the device is new on a GPU.
"""

import ctypes
import json
import queue
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

Found = dict[str, Any]


class Options(NamedTuple):
    model: str
    """The fp32 file."""
    half: str
    """The same network in fp16."""
    images: str
    device: str
    batch_size: int
    seconds: float
    """That each rate is measured for, at least."""


def decode(options: Options) -> Found:
    """D: images read, decoded and resized by all cores, while nothing else runs."""
    from batchland.system.cores import usable_cores
    from benchmarks.contenders import decode

    images, seconds = decode(Path(options.images), Path(options.model), usable_cores())
    return {"images_per_second": images / seconds}


def decode_cuda(options: Options) -> Found:
    """D on the GPU: JPEGs that lie in memory to the rows of batches there, as `score --decode cuda` decodes them."""
    from batchland.images.encoded_jpegs import keep_encoded
    from batchland.images.sources.folder import list_images
    from batchland.images.sources.refs import read_image
    from batchland.models.gpu.decode_jpegs import open_decoders
    from batchland.models.gpu.runners import RUNNERS_PER_GPU
    from batchland.models.ort import ort
    from batchland.system.cores import usable_cores

    target = _gpu_target(options.device)
    spec = _open(options.model, "cpu").card.preprocess
    count = options.batch_size * RUNNERS_PER_GPU
    left = [
        keep_encoded(read_image(ref).data, spec, checked=False) for ref in islice(list_images(options.images), count)
    ]
    jpegs = [jpeg for jpeg in left if jpeg is not None]
    batches = [dict(enumerate(jpegs[start::RUNNERS_PER_GPU])) for start in range(RUNNERS_PER_GPU)]
    threads = max(1, usable_cores() // RUNNERS_PER_GPU)
    decoders = open_decoders([target] * RUNNERS_PER_GPU, spec, threads, options.batch_size)
    runners: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for decoder, jpegs_of_one in zip(decoders.each, batches, strict=True):
        shape = (len(jpegs_of_one), *spec.shape)
        on_device = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, *target)
        runners.put((decoder, jpegs_of_one, on_device))

    def call() -> None:
        decoder, jpegs_of_one, on_device = runner = runners.get()
        refused = decoder.decode(jpegs_of_one, on_device, int(np.prod(spec.shape)))
        assert not refused
        runners.put(runner)

    with _utilisation(options.device) as used:
        rate = _rate(call, len(jpegs) / RUNNERS_PER_GPU, RUNNERS_PER_GPU, options.seconds)
    return {"images_per_second": rate, "decoder": decoders.name, **used}


def leave(options: Options) -> Found:
    """What the CPU does with a JPEG that a GPU decodes: read it and its header."""
    return _leave(options, checked=False)


def leave_checked(options: Options) -> Found:
    """The same, and look whether it is whole, for decoders that take damaged files for good ones."""
    return _leave(options, checked=True)


def copies(options: Options) -> Found:
    """GB/s of batches from the host to the device, out of ordinary memory and out of pinned."""
    from batchland.models.gpu.cudart import pinned_zeros, use_gpu
    from batchland.models.ort import ort

    target = _gpu_target(options.device)
    if target.kind == "cuda":
        use_gpu(target.number)
    shape = (options.batch_size, *_open(options.model, "cpu").card.preprocess.shape)
    on_device = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, *target)
    found = {}
    for name, host in (("pageable", np.ones(shape, np.uint8)), ("pinned", pinned_zeros(shape))):
        rate = _rate(lambda host=host: on_device.update_inplace(host), 1, 1, options.seconds)
        found[f"{name}_gb_per_second"] = rate * host.nbytes / 1e9
    return found


def fp32(options: Options) -> Found:
    """M: the float32 file as it is scored with."""
    return _session_rate(options.model, options)


def tf32(options: Options) -> Found:
    """M: the same with its products rounded to tf32."""
    return _session_rate(options.model, options, {"use_tf32": "1"})


def fp16(options: Options) -> Found:
    """M: the file in half floats."""
    return _session_rate(options.half, options)


def tensorrt(options: Options) -> Found:
    """M: the file in half floats through TensorRT."""
    device = options.device.replace("cuda", "tensorrt")
    return _session_rate(options.half, options._replace(device=device))


def pipeline_fp32(options: Options) -> Found:
    """`batchland score`, without opening the model."""
    return _pipeline(options.model, options)


def pipeline_fp16(options: Options) -> Found:
    """The same with the file in half floats."""
    return _pipeline(options.half, options)


def pipeline_fp32_decode_cuda(options: Options) -> Found:
    """`batchland score --decode cuda`, without opening the model."""
    return _pipeline(options.model, options, "cuda")


def pipeline_fp16_decode_cuda(options: Options) -> Found:
    """The same with the file in half floats."""
    return _pipeline(options.half, options, "cuda")


def torch_fp32(options: Options) -> Found:
    """torch, eager, channels last, float32: pixels from the host, probabilities back to it."""
    return _torch_rate(options, half=False, compiled=False)


def torch_fp16(options: Options) -> Found:
    """The same with the network in half floats (bfloat16 on a CPU, which has no fast half floats)."""
    return _torch_rate(options, half=True, compiled=False)


def torch_compiled_fp16(options: Options) -> Found:
    """The same through torch.compile."""
    return _torch_rate(options, half=True, compiled=True)


def agreement(options: Options) -> Found:
    """Share of the images with the first class that the float32 file has on the CPU."""
    from batchland.images.loader import BatchLoader
    from batchland.images.sources.folder import list_images

    with closing(_open(options.model, "cpu")) as cpu:
        loader = BatchLoader(list_images(options.images), cpu.card.preprocess, options.batch_size)
        batches = [batch.pixels.copy() for batch in loader]
        wanted = np.concatenate([cpu.predict(pixels) for pixels in batches])
    found: Found = {"images": len(wanted)}
    for name, path in (("fp32", options.model), ("fp16", options.half)):
        with closing(_open(path, options.device, options.batch_size)) as session:
            got = np.concatenate([session.predict(pixels) for pixels in batches])
        found[f"{name}_same_top1"] = float((got.argmax(1) == wanted.argmax(1)).mean())
        found[f"{name}_largest_difference"] = float(np.abs(got - wanted).max())
    return found


WAYS: dict[str, Callable[[Options], Found]] = {
    way.__name__: way
    for way in (
        decode, decode_cuda, leave, leave_checked, copies, fp32, tf32, fp16, tensorrt, torch_fp32, torch_fp16,
        torch_compiled_fp16, pipeline_fp32, pipeline_fp16, pipeline_fp32_decode_cuda, pipeline_fp16_decode_cuda,
        agreement,
    )
}  # fmt: skip
OF_IMAGES = (
    "decode", "decode_cuda", "leave", "leave_checked", "pipeline_fp32", "pipeline_fp16", "pipeline_fp32_decode_cuda",
    "pipeline_fp16_decode_cuda", "agreement",
)  # fmt: skip
"""Ways that depend on the images; the others only on the model."""


def _open(path: str, device: str, batch_size: int | None = None, **settings: str):
    from batchland.models.session import open_session

    return open_session(path, device, batch_size=batch_size, gpu_settings=settings)


def _target(device: str):
    from batchland.models.gpu.device import Device

    kind, _, number = device.partition(":")
    return Device("cpu" if kind == "cpu" else "cuda", int(number or 0))


def _gpu_target(device: str):
    """With NVIDIA's libraries loaded, which what uses the GPU without a session needs, too."""
    from batchland.models.devices import gpu_problem

    target = _target(device)
    if target.kind == "cuda" and (problem := gpu_problem()):
        raise SystemExit(problem)
    return target


def _leave(options: Options, *, checked: bool) -> Found:
    from batchland.images.loader import BatchLoader, keep_jpegs_encoded, load_image
    from batchland.images.sources.folder import list_images

    def load(ref, spec):
        return load_image(ref, spec, partial(keep_jpegs_encoded, checked=checked))

    spec = _open(options.model, "cpu").card.preprocess
    begin = time.perf_counter()
    batches = BatchLoader(list_images(options.images), spec, options.batch_size, load=load, start_small=True)
    images = sum(len(batch.encoded) for batch in batches)
    return {"images_per_second": images / (time.perf_counter() - begin)}


def _rate(call: Callable[[], object], per_call: float, threads: int, seconds: float) -> float:
    """How many a second, `per_call` in each call, called by several threads without pause; warmed up before."""
    for _ in range(3):
        call()
    stop = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        count = 0
        while count == 0 or time.perf_counter() < stop:
            call()
            count += 1
        return count

    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(repeat, range(threads)))
    return calls * per_call / (time.perf_counter() - begin)


def _session_rate(path: str, options: Options, settings: dict[str, str] | None = None) -> Found:
    with closing(_open(path, options.device, options.batch_size, **(settings or {}))) as session:
        pixels = _noise(options, session.card)
        with _utilisation(options.device) as used:
            rate = _rate(lambda: session.predict(pixels), options.batch_size, session.calls_at_once, options.seconds)
        return {
            "images_per_second": rate,
            "provider": session.provider,
            "settings": dict(session.settings),
            "cpu_nodes": list(session.cpu_nodes),
            **used,
        }


def _noise(options: Options, card: Any) -> np.ndarray:
    shape = (options.batch_size, *card.preprocess.shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _pipeline(path: str, options: Options, decode: Literal["cpu", "cuda"] = "cpu") -> Found:
    from batchland import ScoreOptions, score
    from batchland.models.session import open_session

    def opened() -> float:
        begin = time.perf_counter()
        with closing(open_session(path, options.device, batch_size=options.batch_size, decode=decode)):
            return time.perf_counter() - begin

    opened()  # settings are chosen and engines built now
    opening = opened()
    scoring = ScoreOptions(model=Path(path), device=options.device, batch_size=options.batch_size, decode=decode)
    with tempfile.TemporaryDirectory() as folder, _utilisation(options.device) as used:
        begin = time.perf_counter()
        run = score(options.images, Path(folder, "predictions.parquet"), scoring)
        seconds = time.perf_counter() - begin - opening
    found = {"images_per_second": run.manifest.counts.listed / seconds, "opening_seconds": opening, **used}
    if run.manifest.execution and decode == "cuda":
        found["decoded_on_gpu"] = run.manifest.execution.decoded_on_gpu
    return found


def _torch_rate(options: Options, *, half: bool, compiled: bool) -> Found:
    import torch

    from batchland.training.models import build

    card = _open(options.model, "cpu").card
    device = torch.device(str(_target(options.device)))
    model = build(card.architecture, len(card.classes), card.preprocess).eval()
    on_gpu = device.type == "cuda"
    dtype = (torch.float16 if on_gpu else torch.bfloat16) if half else torch.float32
    network = model.network.to(device, dtype, memory_format=torch.channels_last)
    mean, std = (value.to(device) for value in (model.mean, model.std))

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        floats = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
        return network(floats.to(dtype)).float().softmax(1)

    run = torch.compile(answer) if compiled else answer
    host = torch.from_numpy(_noise(options, card))
    host = host.pin_memory() if on_gpu else host

    def call() -> None:
        run(host.to(device, non_blocking=True)).cpu()

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        call()

        def in_inference_mode() -> None:
            with torch.inference_mode():  # which is a thread's own
                call()

        return {"images_per_second": _rate(in_inference_mode, options.batch_size, 2 if on_gpu else 1, options.seconds)}


def gpu_uuid(number: int) -> str:
    """NVML's name of a GPU: its own numbers ignore CUDA_VISIBLE_DEVICES, and may be in another order."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), number) or driver.cuDeviceGetUuid_v2(raw, device):
        raise RuntimeError(f"the driver shows no GPU {number}")
    return f"GPU-{uuid.UUID(bytes=bytes(raw))}"


@contextmanager
def _utilisation(device: str):
    """A dict that holds, afterwards, how busy the GPU was: percent of the time, as NVML sees it. Empty without one."""
    found: Found = {}
    samples: list[int] = []
    stop = threading.Event()
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid(_target(device).number))
    except Exception:  # neither the package nor a driver need be here
        yield found
        return

    def watch() -> None:
        while not stop.wait(0.1):
            samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        if samples:
            found["gpu_percent"] = sum(samples) / len(samples)


if __name__ == "__main__":
    _, way, given = sys.argv
    print(json.dumps(WAYS[way](Options(**json.loads(given)))))

"""Tests on a real GPU: the CPU's answers, computed on the GPU, with little memory, by replayed CUDA graphs."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from toys import batch_model_on_cpu, needs_codec, options, picture, write_wide_model

from batchland import score
from batchland.errors import DeviceError
from batchland.images.encoded_jpegs import keep_encoded
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.models.card import ModelCard, class_names
from batchland.models.devices import count_gpus, gpu_problem
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.create import THREADS
from batchland.models.gpu.cudart import pinned_zeros
from batchland.models.gpu.decode_jpegs import MAX_DRIFT, open_decoders
from batchland.models.gpu.device import Device
from batchland.models.gpu.probe_jpegs import jpeg, photo, probes
from batchland.models.gpu.resize import Picture, Resizer
from batchland.models.gpu.runners import RUNNERS_PER_GPU, open_pool
from batchland.models.gpu.settings import FP16, FP32
from batchland.models.ort import CPU, CUDA, TENSORRT, create_session, ort
from batchland.models.session import open_session

PROBLEM = gpu_problem()
TENSORRT_PROBLEM = PROBLEM or gpu_problem("tensorrt")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=f"no GPU that works here: {PROBLEM}")]

CLASSES = 50
SIDE = 224
BATCH = 32
GPU = "cuda"


@pytest.fixture(scope="module", params=["scratch", "transfer"])
def models(request, tmp_path_factory):
    """Files of one network in fp32 and fp16. Random weights, with the last layer scaled so that classes differ."""
    torch = pytest.importorskip("torch")
    from batchland.training.export import write_onnx
    from batchland.training.models import build
    from batchland.training.precision import half

    torch.manual_seed(0)
    spec = PreprocessSpec(height=SIDE, width=SIDE)
    model = build(request.param, CLASSES, spec).eval()
    with torch.no_grad():
        logits = model.logits(torch.from_numpy(pictures(64)))
        last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight.mul_(3 / logits.std(dim=0).mean())
        last.bias.sub_(model.logits(torch.from_numpy(pictures(64))).mean(dim=0))
    card = ModelCard(
        name=request.param,
        architecture=request.param,
        classes=class_names([f"{number:02}.Class_{number}" for number in range(CLASSES)]),
        preprocess=spec,
        created_at="2026-11-25T00:00:00Z",
    )
    folder = tmp_path_factory.mktemp(request.param)
    write_onnx(model, card, folder / "fp32.onnx")
    write_onnx(half(model), card, folder / "fp16.onnx")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network with convolutions, fp32."""
    pytest.importorskip("torch")
    from benchmarks.models import write_random_model

    path = tmp_path_factory.mktemp("small") / "scratch.onnx"
    write_random_model("scratch", path)
    return path


def pictures(count, seed=0):
    """Patches of colour, which random networks tell apart better than noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(SIDE // 7, axis=1).repeat(SIDE // 7, axis=2))


def answers(path, device, pixels, batch_size=BATCH):
    with closing(open_session(path, device, batch_size=batch_size)) as session:
        starts = range(0, len(pixels), batch_size)
        return np.concatenate([session.predict(pixels[start : start + batch_size]) for start in starts])


def same_top1(ours, theirs, margin=0.0):
    """Share of images with the same first class, among those with a margin above `margin` in `theirs`."""
    best = np.sort(theirs, axis=1)
    clear = best[:, -1] - best[:, -2] > margin
    assert clear.mean() > 0.9
    return (ours.argmax(1) == theirs.argmax(1))[clear].mean()


def test_the_gpu_answers_as_the_cpu_does(models):
    pixels = pictures(1009)  # the last batch is ragged
    cpu = answers(models / "fp32.onnx", "cpu", pixels)
    fp32 = answers(models / "fp32.onnx", GPU, pixels)
    assert same_top1(fp32, cpu) >= 0.999
    assert np.abs(fp32 - cpu).max() < 1e-3
    fp16 = answers(models / "fp16.onnx", GPU, pixels)
    assert same_top1(fp16, cpu, margin=0.01) >= 0.995


def test_the_work_runs_on_the_gpu(models):
    for name in ("fp32.onnx", "fp16.onnx"):
        for batch_size in (None, BATCH):
            with closing(open_session(models / name, GPU, batch_size=batch_size)) as session:
                assert (session.device, session.provider, session.fallback) == ("cuda:0", CUDA, None)
                assert session.nodes[CUDA] > 0.9 * sum(session.nodes.values())
                assert not [node for node in session.cpu_nodes if "Conv" in node or "Gemm" in node]


def test_auto_uses_the_gpu(small):
    with closing(open_session(small, "auto", batch_size=BATCH)) as session:
        assert (session.device, session.fallback) == ("cuda:0", None)
        assert session.settings == FP32.base | session.settings


@pytest.mark.parametrize("name", ["fp32.onnx", "fp16.onnx"])
def test_the_same_settings_give_the_same_bytes(models, name):
    """For both networks: only ResNet50's convolutions are fused with the following operators."""
    pixels = pictures(2 * BATCH + 5)
    np.testing.assert_array_equal(answers(models / name, GPU, pixels), answers(models / name, GPU, pixels))


def test_a_missing_gpu_is_named_in_the_error(small):
    with pytest.raises(DeviceError, match=f"there is no GPU {count_gpus()}, the driver shows {count_gpus()}; "):
        open_session(small, f"cuda:{count_gpus()}")


def on_gpu(path, device, settings):
    providers = [(CUDA, {"device_id": str(device.number), **settings}), (CPU, {})]
    return create_session(path.read_bytes(), providers, THREADS, record_placement=True)


def test_out_of_memory_halves_the_batch(models):
    """onnxruntime's arena with a limit: 256 images of a ResNet50 take several times as much."""
    pixels = pictures(256)
    session = on_gpu(models / "fp32.onnx", Device("cuda"), {"gpu_mem_limit": str(400 * 2**20), "use_tf32": "0"})
    runner = BatchRunner(session, Device("cuda"), 256, (SIDE, SIDE, 3), CLASSES)
    found = runner.predict(pixels)
    assert runner.batch_size < 256
    np.testing.assert_allclose(found, answers(models / "fp32.onnx", "cpu", pixels), atol=1e-3)


def test_too_little_memory_for_one_image_is_an_error_that_names_the_gpu(tmp_path):
    """The model opens in a few kilobytes; the weights of a real one would not fit either."""
    path = write_wide_model(tmp_path / "wide.onnx")
    session = on_gpu(path, Device("cuda"), {"gpu_mem_limit": str(4 * 2**20)})
    runner = BatchRunner(session, Device("cuda"), 4, (SIDE, SIDE, 3), 3)
    with pytest.raises(DeviceError, match="cuda:0: not enough memory for a single image"):
        runner.predict(pictures(4))


@pytest.mark.parametrize("settings", [{}, *FP16.changes], ids=lambda settings: "-".join(settings) or "base")
def test_every_setting_gives_the_same_answers_in_any_order_of_batches(small, settings):
    """A replayed CUDA graph reads the addresses of its capture, so each batch must be copied there."""
    model = batch_model_on_cpu(small, BATCH, partial(on_gpu, small))
    model = model._replace(check=model.check._replace(tolerance=1e-3))
    pool = open_pool(model, [Device("cuda")] * 2, FP32.base | settings).pool
    batches = [pictures(count, seed) for seed, count in enumerate((BATCH, BATCH, 1, BATCH, 7, BATCH, BATCH))]
    with closing(pool), ThreadPoolExecutor(2) as callers:
        for batch, found in zip(batches, callers.map(pool.answer, batches), strict=True):
            np.testing.assert_allclose(found.probabilities, answers(small, "cpu", batch), atol=1e-3)


def test_several_gpus_share_the_batches(small):
    if count_gpus() < 2:
        pytest.skip("this machine has one GPU")
    pixels = pictures(9 * BATCH + 3)
    with closing(open_session(small, "cuda:all", batch_size=BATCH)) as session:
        assert session.device == f"cuda:{','.join(map(str, range(count_gpus())))}"
        assert session.calls_at_once == RUNNERS_PER_GPU * count_gpus()
        batches = np.array_split(pixels, 10)
        with ThreadPoolExecutor(session.calls_at_once) as callers:
            found = np.concatenate(list(callers.map(session.predict, batches)))
        np.testing.assert_allclose(found, answers(small, "cpu", pixels), atol=1e-3)


@pytest.mark.skipif(TENSORRT_PROBLEM is not None, reason=f"no TensorRT that works here: {TENSORRT_PROBLEM}")
def test_tensorrt_answers_as_the_cpu_does(small):
    pixels = pictures(2 * BATCH + 5)
    with closing(open_session(small, "tensorrt", batch_size=BATCH)) as session:
        assert (session.device, session.provider) == ("tensorrt:0", TENSORRT)
        assert session.nodes[TENSORRT] > 0
        assert same_top1(session.predict(pixels), answers(small, "cpu", pixels), margin=0.001) >= 0.999


class PointerAttributes(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("device", ctypes.c_int),
        ("on_device", ctypes.c_void_p),
        ("on_host", ctypes.c_void_p),
        ("reserved", ctypes.c_long * 8),
    )


def test_host_buffers_are_pinned():
    array = pinned_zeros((4, SIDE, SIDE, 3))
    attributes = PointerAttributes()
    runtime = ctypes.CDLL("libcudart.so.13")
    address = ctypes.c_void_p(array.ctypes.data)
    assert runtime.cudaPointerGetAttributes(ctypes.byref(attributes), address) == 0
    assert attributes.type == 1  # cudaMemoryTypeHost


def test_the_manifest_records_the_gpu(small, photos, tmp_path):
    on_cpu = score(photos, tmp_path / "cpu.parquet", options(small, device="cpu")).manifest
    on_gpu = score(photos, tmp_path / "gpu.parquet", options(small, device=GPU)).manifest
    assert on_gpu.counts == on_cpu.counts
    assert (on_gpu.device, on_gpu.provider) == ("cuda:0", CUDA)
    assert on_gpu.execution.nodes[CUDA] > 0


def turned_photo(width, height, seed=0):
    return photo(width, height).rotate(37 * seed, resample=Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec(),
        PreprocessSpec(fit="crop", shorter_side=256),
        PreprocessSpec(fit="crop", shorter_side=256, filter="bicubic"),
    ],
    ids=["squash", "crop", "bicubic"],
)
def test_the_gpu_resizes_as_the_cpu_does(spec, orientation):
    resizers = [Resizer(device, spec) for device in (Device("cpu"), Device("cuda"))]
    for width, height in ((500, 375), (375, 500), (100, 90), (4000, 3000), (224, 224)):
        pixels = np.asarray(turned_photo(width, height)).copy()
        resized = []
        for resizer, device in zip(resizers, (Device("cpu"), Device("cuda")), strict=True):
            stored = ort.OrtValue.ortvalue_from_shape_and_type(pixels.shape, np.uint8, *device)
            stored.update_inplace(pixels)
            batch = ort.OrtValue.ortvalue_from_shape_and_type((2, *spec.shape), np.uint8, *device)
            picture = Picture(stored.data_ptr(), height, width, stored)
            resizer.resize(picture, orientation, batch.data_ptr() + int(np.prod(spec.shape)))
            resized.append(batch.numpy()[1].astype(int))
        assert np.abs(resized[0] - resized[1]).max() <= 2, (width, height)


@needs_codec
@pytest.mark.parametrize("spec", [PreprocessSpec(), PreprocessSpec(fit="crop", shorter_side=256)])
def test_the_gpu_decodes_jpegs_as_the_cpu_does(spec):
    decoders = open_decoders([Device("cuda")] * 2, spec, 4, BATCH)
    good, _ = probes()
    files = good + [jpeg(turned_photo(width, height, seed), **how) for seed, (width, height, how) in enumerate(KINDS)]
    jpegs = dict(enumerate(keep_encoded(data, spec, checked=True) for data in files))
    batch = ort.OrtValue.ortvalue_from_shape_and_type((len(files), *spec.shape), np.uint8, "cuda", 0)
    refused = decoders.each[0].decode(jpegs, batch, int(np.prod(spec.shape)))
    assert len(refused) <= 1  # 4:1:1 is rare, and some decoders refuse it
    rows = batch.numpy()
    for row, data in enumerate(files):
        if row not in refused:
            assert np.abs(rows[row].astype(int) - preprocess(data, spec)).mean() <= MAX_DRIFT, row


KINDS = [
    (500, 375, {}),
    (375, 500, {"subsampling": 1}),
    (501, 333, {"subsampling": 2}),
    (4000, 3000, {}),
    (4000, 3000, {"progressive": True}),
    (17, 9, {}),
    (640, 480, {"restart_marker_rows": 2}),
    (1, 1, {}),
]


@needs_codec
def test_a_run_that_decodes_on_the_gpu_gives_the_same_rows(small, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    good, damaged = probes()
    files = [*good, *damaged, b"", picture(kind="PNG"), picture() + b"more"]
    files += [jpeg(turned_photo(500, 375, seed)) for seed in range(60)]
    for number, data in enumerate(files):
        (folder / f"{number:03}.jpg").write_bytes(data)
    cpu = score(folder, tmp_path / "cpu.parquet", options(small, device=GPU)).manifest
    gpu_run = score(folder, tmp_path / "gpu.parquet", options(small, device=GPU, decode="cuda")).manifest
    assert gpu_run.counts == cpu.counts
    assert gpu_run.execution.decoded_on_gpu >= 64
    theirs, ours = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("cpu", "gpu"))
    for column in ("image", "status", "error_code", "error_message", "width", "height"):
        assert ours.column(column).equals(theirs.column(column)), column
    probabilities = [np.nan_to_num(table.column("probability").to_numpy()) for table in (ours, theirs)]
    np.testing.assert_allclose(*probabilities, atol=0.05)

"""Runners, and opening models on GPUs, with the CPU in place of a GPU."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import batch_model_on_cpu, needs_codec, options, picture, toy_card

import batchland.models.session
import batchland.scoring.manifest as manifest_module
from batchland import score
from batchland.errors import DeviceError, ModelError
from batchland.images.sources.open import open_source
from batchland.models.devices import gpu_problem
from batchland.models.gpu import create as create_module
from batchland.models.gpu import jpeg_decoder, runners
from batchland.models.gpu import open as gpu
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.runners import measure_settings, open_pool
from batchland.models.gpu.settings import FP32
from batchland.models.gpu.tuning import tune
from batchland.models.ort import CPU, CUDA, TENSORRT
from batchland.models.session import OpenModel, Session, open_session
from batchland.predictions.schema import Execution
from batchland.scoring.engines import local as engine

cli_score = import_module("batchland.cli.score")  # which the package's command of that name hides
CARD = toy_card()
PROBLEM = gpu_problem()


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *CARD.preprocess.shape), np.uint8)


def on_several(toy_model, number, batch_size):
    pool = open_pool(batch_model_on_cpu(toy_model, batch_size), [Device("cpu")] * number, {}).pool
    return Session(toy_model, CARD, "sha", "cpu", CPU, None, _session=None, _pool=pool)


@pytest.mark.parametrize("runners", [1, 2, 3])
def test_runners_give_the_answers_of_one_session(toy_model, runners):
    plain = open_session(toy_model, "cpu")
    batches = [noise(count, seed) for seed, count in enumerate((4, 4, 4, 1, 4, 3, 4, 4, 2, 11))]
    with closing(on_several(toy_model, runners, 4)) as session, ThreadPoolExecutor(session.calls_at_once) as callers:
        assert session.calls_at_once == runners
        for batch, answer in zip(batches, callers.map(session.predict, batches), strict=True):
            np.testing.assert_array_equal(answer, plain.predict(batch))


def test_rows_of_a_folder_do_not_depend_on_the_runners(toy_model, photos, tmp_path, monkeypatch):
    (photos / "camera-3").mkdir()
    for number in range(9):  # a whole batch and more without a single picture
        (photos / "camera-3" / f"{number}.jpg").write_bytes(b"no picture")
    score(photos, tmp_path / "one.parquet", options(toy_model, device="cpu"))
    sessions = []

    def open_several(path, device, *, batch_size, **rest):
        """Open a session as `open_session` does on a machine with GPUs."""
        plain = open_session(path, "cpu")
        several = on_several(path, 3, batch_size)
        sessions.append(replace(several, card=plain.card, sha256=plain.sha256))
        return sessions[-1]

    monkeypatch.setattr(engine, "open_session", open_several)
    score(photos, tmp_path / "several.parquet", options(toy_model, device="cpu"))
    one, several = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "several"))
    assert several.equals(one)
    assert (several.num_rows, several.column("error_code").null_count) == (69, 54)
    with pytest.raises(ModelError, match="cannot schedule new futures after shutdown"):  # the run has closed it
        sessions[0].predict(noise(4))


def test_an_error_in_a_runner_names_the_model(toy_model):
    with closing(on_several(toy_model, 2, 4)) as session:
        with pytest.raises(ModelError, match=f"{toy_model}: inference failed on cpu: could not broadcast"):
            session.predict(np.zeros((4, 9, 9, 3), np.uint8))
        assert session.predict(noise(4)).shape == (4, 3)


def test_nodes_and_settings_are_recorded_and_printed(toy_model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(picture())
    manifest = score(tmp_path / "photos", tmp_path / "p.parquet", options(toy_model, device="cpu")).manifest
    assert manifest.execution is None
    nodes = {CUDA: 120, CPU: 4}
    left = ("Shape", "Gather /head/Gather", "Concat", "Cast")
    model = OpenModel(
        toy_model, CARD, "sha", "cuda:0", CUDA, None, nodes=nodes, cpu_nodes=left, settings={"prefer_nhwc": "1"}
    )
    execution = Execution(nodes=nodes, cpu_nodes=left, settings={"prefer_nhwc": "1"})
    assert manifest_module.execution(model, 0) == execution
    assert cli_score._gpu_sentences(manifest) == ""
    assert cli_score._gpu_sentences(manifest.model_copy(update={"execution": execution})) == (
        "The CPU ran 4 of the model's 124 nodes: Shape, Gather /head/Gather, Concat and 1 more. "
    )


def test_tuned_settings_are_not_part_of_the_fingerprint(toy_model, tmp_path):
    """Settings measured on another machine may differ; the shards can still be merged."""
    source = open_source(tmp_path)
    model = OpenModel(toy_model, CARD, "sha", "cuda:0", CUDA, None, settings={"prefer_nhwc": "1"})
    first, second = (
        manifest_module.fingerprint(source, pa.schema([]), options(toy_model), each)
        for each in (model, replace(model, settings={}))
    )
    assert first == second


def test_each_runner_gets_its_own_session_with_the_chosen_settings(toy_model):
    seen = []
    devices = [Device("cpu", 0), Device("cpu", 0), Device("cpu", 0)]
    open_pool(batch_model_on_cpu(toy_model, 4, settings_seen=seen), devices, {"prefer_nhwc": "1"}).pool.close()
    assert seen == [(device, {"prefer_nhwc": "1"}) for device in devices]


def test_settings_are_measured_in_sessions(toy_model):
    seen = []
    trial = partial(measure_settings, batch_model_on_cpu(toy_model, 4, settings_seen=seen), Device("cpu"))
    settings = tune(FP32.base, FP32.changes[:1], trial, FP32.tolerance)
    assert [tried for _, tried in seen] == [FP32.base, {**FP32.base, "prefer_nhwc": "1"}]
    assert settings in [tried for _, tried in seen]


def test_provider_options(tmp_path):
    device, settings = Device("cuda", 1), {"prefer_nhwc": "1"}
    assert create_module._providers("cuda", tmp_path / "engines", device, settings, half=False) == [
        (CUDA, {"device_id": "1", "prefer_nhwc": "1"}),
        (CPU, {}),
    ]
    engines = tmp_path / "engines"
    assert create_module._providers("tensorrt", engines, device, settings, half=True)[0] == (
        TENSORRT,
        {
            "device_id": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
            "trt_fp16_enable": "1",
        },
    )
    assert engines.is_dir()


def test_a_broken_model_is_not_a_device_error(toy_model, monkeypatch):
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 1)
    broken = toy_model.with_name("broken.onnx")
    broken.write_bytes(toy_model.read_bytes()[:200])
    with pytest.raises(ModelError, match="onnxruntime cannot load it") as caught:
        open_session(broken, "cuda")
    assert type(caught.value) is ModelError


def test_a_missing_gpu_is_named_in_the_error(toy_model, monkeypatch):
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 2)
    with pytest.raises(DeviceError) as caught:
        open_session(toy_model, "cuda:0,7")
    assert str(caught.value) == (
        "device cuda:0,7 cannot be used here: there is no GPU 7, the driver shows 2; `nvidia-smi -L` lists them"
    )


@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="this onnxruntime has no CUDA provider")
@pytest.mark.skipif(PROBLEM is None, reason="this machine has a GPU")
def test_a_provider_that_onnxruntime_drops_silently_is_noticed(toy_model, monkeypatch, capfd):
    """If CUDA is offered but cannot start, onnxruntime creates a session without it, and no error."""
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 1)
    with pytest.raises(DeviceError, match=r"^device cuda cannot be used here: .*; "):
        open_session(toy_model, "cuda", batch_size=4)
    session = open_session(toy_model, "auto", batch_size=4)
    assert (session.device, session.provider) == ("cpu", CPU)
    assert session.fallback
    assert capfd.readouterr() == ("", "")


def test_no_memory_for_a_single_image_is_unusable(toy_model):
    class Full:
        """A session on a GPU that another process has filled."""

        def __init__(self, session):
            self.session = session

        def io_binding(self):
            return self.session.io_binding()

        def run_with_iobinding(self, binding, options):
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);")

    model = batch_model_on_cpu(toy_model, 4)
    full = model._replace(create=lambda device, settings: Full(model.create(device, settings)))
    with pytest.raises(Unusable) as caught:
        open_pool(full, [Device("cpu")], {})
    assert str(caught.value) == ("cpu: not enough memory for a single image; nvidia-smi shows which process uses it")


def test_one_runner_is_opened_where_memory_does_not_suffice_for_two(toy_model):
    """A device with memory for one session: after the second is refused, one is opened alone."""
    alive = []

    def create(device, settings):
        if sum(session() is not None for session in alive):
            raise Unusable("the GPU's memory is full; nvidia-smi shows which process uses it")
        session = model.create(device, settings)
        alive.append(weakref.ref(session))
        return session

    device = Device("cpu")
    model = batch_model_on_cpu(toy_model, 4)
    small = model._replace(create=create)
    pool, placed, decoders = runners.open_runners(small, [device], {}, "cpu")
    assert (len(pool), placed.nodes, decoders) == (1, {CPU: 4}, None)
    with closing(pool):
        np.testing.assert_array_equal(
            pool.answer(noise(3)).probabilities, open_session(toy_model, "cpu").predict(noise(3))
        )
        with pytest.raises(Unusable, match="memory is full"):
            runners.open_runners(small, [device], {}, "cpu")


@needs_codec
def test_a_decoder_that_cannot_be_used_is_a_device_error(toy_model, monkeypatch):
    from nvidia import nvimgcodec

    monkeypatch.setattr(jpeg_decoder, "MIN_VERSION", (99, 0))
    with pytest.raises(DeviceError) as caught:
        runners.open_runners(batch_model_on_cpu(toy_model, 4), [Device("cpu")], {}, "cuda")
    assert str(caught.value) == (
        f"the GPU cannot decode JPEGs here: nvImageCodec {nvimgcodec.__version__} is too old; pip install -U "
        f"'batchland[decode-cuda]'"
    )


def test_a_gpu_that_fails_during_tuning_is_unusable(toy_model, monkeypatch):
    monkeypatch.setattr(gpu, "gpu_model", lambda number: "NVIDIA H200")
    monkeypatch.setattr(gpu, "driver_version", lambda: 13000)

    def create(device, settings):
        raise RuntimeError("CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0")

    with pytest.raises(Unusable, match="another process has exclusive use of it"):
        gpu._tuned(batch_model_on_cpu(toy_model, 4, create), Device("cuda"), "sha", FP32)

"""Open models on GPUs, as far as a CPU can show it; test_on_gpu.py needs a GPU."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from toys import needs_codec, on_the_cpu, options, picture, toy_card

import batchland.models.session
import batchland.scoring.manifest as manifest_module
from batchland import score
from batchland.errors import DeviceError, ModelError
from batchland.images.sources.open import open_source
from batchland.models.devices import gpu_problem
from batchland.models.gpu import jpeg_decoder
from batchland.models.gpu import open as gpu
from batchland.models.gpu.bound import Place
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.settings import SINGLE
from batchland.models.gpu.tuning import choose
from batchland.models.ort import CPU, CUDA, TENSORRT, Placement
from batchland.models.session import OpenModel, Session, open_session
from batchland.predictions.schema import Execution
from batchland.scoring.engines import local as engine

cli_score = import_module("batchland.cli.score")  # which the package's command of that name hides
CARD = toy_card()
PROBLEM = gpu_problem()


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *CARD.preprocess.shape), np.uint8)


def on_several(toy_model, runners, batch_size):
    pool = gpu.open_pool(on_the_cpu(toy_model), [Place("cpu")] * runners, CARD, batch_size, {})
    return Session(toy_model, CARD, "sha", "cpu", CPU, None, _session=None, _pool=pool)


@pytest.mark.parametrize("runners", [1, 2, 3])
def test_batches_shared_by_runners_get_what_one_session_gives(toy_model, runners):
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
        """As `open_session` does where there are GPUs."""
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


def test_an_error_of_the_model_is_told_with_its_name(toy_model):
    with closing(on_several(toy_model, 2, 4)) as session:
        with pytest.raises(ModelError, match=f"{toy_model}: inference failed on cpu: could not broadcast"):
            session.predict(np.zeros((4, 9, 9, 3), np.uint8))
        assert session.predict(noise(4)).shape == (4, 3)


def test_what_the_gpu_did_is_recorded_and_told(toy_model, tmp_path):
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
    assert cli_score._on_gpus(manifest) == ""
    assert cli_score._on_gpus(manifest.model_copy(update={"execution": execution})) == (
        "Left to the CPU were 4 of the model's 124 nodes: Shape, Gather /head/Gather, Concat and 1 more. "
    )


def test_shards_of_other_settings_go_together(toy_model, tmp_path):
    """What measurement chose on one machine may differ from another's by the noise of that day."""
    source = open_source(tmp_path)
    model = OpenModel(toy_model, CARD, "sha", "cuda:0", CUDA, None, settings={"prefer_nhwc": "1"})
    first, second = (
        manifest_module.fingerprint(source, options(toy_model), each) for each in (model, replace(model, settings={}))
    )
    assert first == second


def test_each_runner_has_a_session_of_its_own_with_the_chosen_settings(toy_model):
    seen = []
    places = [Place("cpu", 0), Place("cpu", 0), Place("cpu", 0)]
    gpu.open_pool(on_the_cpu(toy_model, seen), places, CARD, 4, {"prefer_nhwc": "1"}).close()
    assert seen == [(place, {"prefer_nhwc": "1"}) for place in places]


def test_settings_are_chosen_by_trying_them(toy_model):
    seen = []
    trial = partial(gpu.attempt, on_the_cpu(toy_model, seen), Place("cpu"), CARD, 4)
    settings = choose(SINGLE.base, SINGLE.changes[:1], trial, SINGLE.tolerance)
    assert [tried for _, tried in seen] == [SINGLE.base, {**SINGLE.base, "prefer_nhwc": "1"}]
    assert settings in [tried for _, tried in seen]


def test_what_onnxruntime_is_asked_for(tmp_path):
    place, settings = Place("cuda", 1), {"prefer_nhwc": "1"}
    assert gpu._providers("cuda", tmp_path / "engines", place, settings, half=False) == [
        (CUDA, {"device_id": "1", "prefer_nhwc": "1"}),
        (CPU, {}),
    ]
    engines = tmp_path / "engines"
    assert gpu._providers("tensorrt", engines, place, settings, half=True)[0] == (
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


def test_a_model_that_no_device_can_load_is_not_the_devices_fault(toy_model, monkeypatch):
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 1)
    broken = toy_model.with_name("broken.onnx")
    broken.write_bytes(toy_model.read_bytes()[:200])
    with pytest.raises(ModelError, match="onnxruntime cannot load it") as caught:
        open_session(broken, "cuda")
    assert type(caught.value) is ModelError


def test_a_gpu_that_is_not_there_is_named(toy_model, monkeypatch):
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 2)
    with pytest.raises(DeviceError) as caught:
        open_session(toy_model, "cuda:0,7")
    assert str(caught.value) == (
        "--device cuda:0,7 cannot run here: there is no GPU 7, the driver shows 2; `nvidia-smi -L` lists them; or use "
        "--device cpu"
    )


@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="this onnxruntime has no CUDA provider")
@pytest.mark.skipif(PROBLEM is None, reason="this machine has a GPU")
def test_onnxruntime_leaves_out_a_gpu_that_does_not_work_and_that_is_noticed(toy_model, monkeypatch, capfd):
    """Its real behaviour where CUDA is offered and cannot start: a session without it, and no error."""
    monkeypatch.setattr(batchland.models.session, "gpu_problem", lambda kind: None)
    monkeypatch.setattr(gpu, "count_gpus", lambda: 1)
    with pytest.raises(DeviceError, match=r"--device cuda cannot run here: .*; or use --device cpu"):
        open_session(toy_model, "cuda", batch_size=4)
    session = open_session(toy_model, "auto", batch_size=4)
    assert (session.device, session.provider) == ("cpu", CPU)
    assert session.fallback
    assert capfd.readouterr() == ("", "")


def test_a_gpu_without_memory_for_one_image_is_unusable(toy_model):
    class Full:
        """A session on a GPU that another process has filled."""

        def __init__(self, session):
            self.session = session

        def io_binding(self):
            return self.session.io_binding()

        def run_with_iobinding(self, binding, options):
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);")

    create = on_the_cpu(toy_model)
    with pytest.raises(Unusable) as caught:
        gpu.open_pool(lambda place, settings: Full(create(place, settings)), [Place("cpu")], CARD, 4, {})
    assert str(caught.value) == (
        "cpu: has not enough memory for a single image; see nvidia-smi for who uses it, or use --device cpu"
    )


def test_where_two_runners_find_no_room_one_does(toy_model):
    """A device with room for one session: the second one is refused, and both are given up for one."""
    alive = []

    def create(place, settings):
        if sum(session() is not None for session in alive):
            raise Unusable("the GPU's memory is full; see nvidia-smi for who uses it")
        session = on_the_cpu(toy_model)(place, settings)
        alive.append(weakref.ref(session))
        return session

    place = Place("cpu")
    pool, decoders = gpu.fill(create, [place], CARD, 4, {}, "cpu")
    assert (len(pool), decoders) == (1, None)
    with closing(pool):
        np.testing.assert_array_equal(pool.predict(noise(3)), open_session(toy_model, "cpu").predict(noise(3)))
        with pytest.raises(Unusable, match="memory is full"):  # now that it is taken
            gpu.fill(create, [place], CARD, 4, {}, "cpu")


@needs_codec
def test_what_keeps_a_gpu_from_decoding_is_told_with_its_remedy(toy_model, monkeypatch):
    monkeypatch.setattr(jpeg_decoder, "OLDEST", (99, 0))
    with pytest.raises(DeviceError) as caught:
        gpu.fill(on_the_cpu(toy_model), [Place("cpu")], CARD, 4, {}, "cuda")
    told = str(caught.value)
    assert told.startswith("--decode cuda cannot be used here: nvImageCodec ")
    assert told.endswith(" is too old; pip install --upgrade 'batchland[decode-cuda]'; or use --decode cpu")


def test_a_gpu_that_fails_while_it_is_tried_is_unusable(toy_model, monkeypatch):
    monkeypatch.setattr(gpu, "gpu_model", lambda number: "NVIDIA H200")
    monkeypatch.setattr(gpu, "driver_version", lambda: 13000)

    def create(place, settings):
        raise RuntimeError("CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0")

    placed = Placement({CUDA: 4})
    with pytest.raises(Unusable, match="another process holds it for itself"):
        gpu._tuned(create, Place("cuda"), CARD, "sha", 4, placed, SINGLE)

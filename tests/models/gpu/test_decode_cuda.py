"""Scoring with decode="cuda", by nvImageCodec on the CPU: the same rows as with decode="cpu"."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import batchland
from PIL import Image
from toys import batch_model_on_cpu, needs_codec, options, picture, toy_card, write_toy_model

from batchland import score
from batchland.errors import DeviceError, UsageError
from batchland.images.preprocess import PreprocessSpec
from batchland.images.signals import SIGNALS
from batchland.models.devices import gpu_problem
from batchland.models.gpu import runners as gpu
from batchland.models.gpu.decode_jpegs import RowDecoders, open_decoders
from batchland.models.gpu.device import Device
from batchland.models.gpu.probe_jpegs import probes
from batchland.models.ort import CUDA
from batchland.models.session import Session, open_session
from batchland.scoring.engines import local as engine

pytestmark = needs_codec
SPEC = PreprocessSpec(height=24, width=32)
CARD = toy_card().model_copy(update={"preprocess": SPEC})


@pytest.fixture
def model(tmp_path):
    return write_toy_model(tmp_path / "toy.onnx", CARD)


@pytest.fixture
def decoded_there(monkeypatch):
    """Open sessions with decoders as on GPUs, but on the CPU. Returns the list of opened sessions."""
    opened = []

    def open_there(path, device, *, batch_size, decode, **rest):
        plain = open_session(path, "cpu")
        if decode == "cpu":
            return plain
        devices = [Device("cpu")] * 2
        decoders = open_decoders(devices, plain.card.preprocess, 1, batch_size)
        runners = gpu.open_pool(batch_model_on_cpu(path, batch_size), devices, {}, decoders)
        session = replace(
            plain,
            _session=None,
            _pool=runners.pool,
            decoder=decoders.name,
            decoder_is_strict=decoders.strict,
            nodes={CUDA: 4},
        )
        opened.append(session)
        return session

    monkeypatch.setattr(engine, "open_session", open_there)
    return opened


@pytest.fixture
def images(tmp_path):
    """JPEGs of all kinds, sizes and orientations, other formats, and damaged files, in mixed order."""
    folder = tmp_path / "images"
    folder.mkdir()
    good, damaged = probes()
    files = [*good, *damaged, b"", b"no picture", picture(kind="PNG"), picture(kind="WEBP"), picture() + b"more"]
    files += [upside(orientation) for orientation in range(1, 9)]
    files += [picture((9 * number, 0, 255 - 9 * number), (40 + number, 30)) for number in range(20)]
    rng = np.random.default_rng(0)
    for number, index in enumerate(rng.permutation(len(files))):
        (folder / f"{number:03}.jpg").write_bytes(files[index])
    return folder


def upside(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    small = np.random.default_rng(1).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(small).resize((90, 60), Image.Resampling.BICUBIC).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def assert_same_rows(ours, theirs, tolerance):
    """Assert the same rows, with probabilities that differ by at most `tolerance`.

    Pictures that are decoded there have no figures of the picture, and those of the answer follow the probabilities.
    """
    drifting = {"probability", "margin", "top_k", *(signal.name for signal in SIGNALS)}
    drifting |= {"entropy", "logsumexp", "top_logit", "log_probabilities"}
    assert ours.num_rows == theirs.num_rows
    for name in set(ours.column_names) - drifting:
        assert ours.column(name).equals(theirs.column(name)), name
    for mine, other in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
        if mine["status"] == "ok":
            assert mine["probability"] == pytest.approx(other["probability"], abs=tolerance)


def test_gives_the_rows_of_decoding_on_the_cpu(images, model, tmp_path, decoded_there):
    score(images, tmp_path / "cpu.parquet", options(model))
    summary = score(images, tmp_path / "gpu.parquet", options(model, decode="cuda"))
    assert len(decoded_there) == 1
    cpu, there = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("cpu", "gpu"))
    assert_same_rows(there, cpu, 0.01)
    manifest = summary.manifest
    assert manifest.counts.failed_by_code == {"corrupt": 5, "empty": 1, "not_an_image": 1, "truncated": 7}
    assert manifest.decoder == decoded_there[0].decoder
    assert manifest.execution.decoded_on_gpu == 6 + 8 + 20  # the CPU decodes the other 17
    assert manifest.config["decode"] == "cuda"


def test_a_strict_decoder_gets_unchecked_files_and_the_cpu_explains_refused_ones(
    images, model, tmp_path, decoded_there, monkeypatch
):
    """Treat nvImageCodec as strict on the CPU. Then it also decodes some damaged files; all else stays the same."""
    monkeypatch.setattr(RowDecoders, "strict", True)
    score(images, tmp_path / "cpu.parquet", options(model))
    score(images, tmp_path / "gpu.parquet", options(model, decode="cuda"))
    assert decoded_there[0].decoder_is_strict
    cpu, there = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("cpu", "gpu"))
    refused = 0
    for mine, other in zip(there, cpu, strict=True):
        if mine["status"] == "failed":
            assert mine == other
            refused += 1
        else:
            assert mine["image"] == other["image"]
            assert other["status"] == "ok" or other["error_code"] in ("truncated", "corrupt")
    assert refused >= 2


class Refusing:
    """Refuses every second JPEG, and every third time the whole batch."""

    name = "refusing"

    def __init__(self, decoder):
        self.decoder = decoder
        self.calls = 0

    def decode(self, encoded, batch, row_bytes):
        self.calls += 1
        rows = list(encoded) if self.calls % 3 == 0 else list(encoded)[::2]
        kept = {row: jpeg for row, jpeg in encoded.items() if row not in rows}
        return [*rows, *self.decoder.decode(kept, batch, row_bytes)]


def test_the_cpu_decodes_refused_files(images, model, tmp_path, decoded_there, monkeypatch):
    real = gpu.open_pool

    def refusing(model, devices, settings, decoders):
        return real(model, devices, settings, decoders._replace(each=tuple(map(Refusing, decoders.each))))

    monkeypatch.setattr(gpu, "open_pool", refusing)
    score(images, tmp_path / "cpu.parquet", options(model))
    manifest = score(images, tmp_path / "gpu.parquet", options(model, decode="cuda")).manifest
    assert_same_rows(pq.read_table(tmp_path / "gpu.parquet"), pq.read_table(tmp_path / "cpu.parquet"), 0.01)
    assert 0 < manifest.execution.decoded_on_gpu < 20


def test_the_decoder_is_part_of_the_fingerprint(images, model, tmp_path, decoded_there):
    runs = [
        score(images, tmp_path / f"{number}.parquet", options(model, decode=decode)).manifest
        for number, decode in enumerate(("cuda", "cuda", "cpu"))
    ]
    first, second, third = ((tmp_path / f"{number}.parquet").read_bytes() for number in range(3))
    assert first == second
    assert third != first
    assert runs[0].run_id == runs[1].run_id != runs[2].run_id


def test_failed_rows_are_not_retried_with_another_decoder(images, model, tmp_path, decoded_there):
    out = tmp_path / "p.parquet"
    score(images, out, options(model, decode="cuda"))
    with pytest.raises(UsageError, match=r"was made with decoder = nvImageCodec .*, not None"):
        score(images, out, options(model, retry_failed=True))
    kept = score(images, out, options(model, decode="cuda", retry_failed=True)).manifest.kept_images
    assert kept == 37


def test_images_that_were_in_a_crashed_decoder_are_decoded_in_a_subprocess(
    images, model, tmp_path, decoded_there, monkeypatch
):
    """A decoder that breaks the GPU: the next run decodes its images in a subprocess and completes."""
    real = Session.answer

    def answer(self, pixels, jpegs):
        if any(jpeg.width == 45 for jpeg in jpegs.encoded.values()):
            raise DeviceError("the GPU failed while computing; run the same command again")
        return real(self, pixels, jpegs)

    monkeypatch.setattr(Session, "answer", answer)
    out = tmp_path / "p.parquet"
    with pytest.raises(DeviceError):
        score(images, out, options(model, decode="cuda"))
    (notes,) = tmp_path.glob(".*/in-hand")
    assert notes.stat().st_size > 0
    manifest = score(images, out, options(model, decode="cuda")).manifest
    assert manifest.counts.failed == 14
    monkeypatch.undo()
    score(images, tmp_path / "cpu.parquet", options(model))
    assert_same_rows(pq.read_table(out), pq.read_table(tmp_path / "cpu.parquet"), 0.01)


def test_the_command_prints_the_decoder(images, model, tmp_path, decoded_there):
    out = tmp_path / "p.parquet"
    command = ["score", str(images), "-o", str(out), "-m", str(model), "--decode", "cuda", "--batch-size", "4"]
    run = batchland(*command)
    assert run.exit_code == 0, run.output
    assert f"JPEGs decoded on the GPU: 34 of 51 images, by {decoded_there[0].decoder}." in run.output


def test_without_a_gpu_it_is_refused(images, model, tmp_path):
    refused = options(model, decode="cuda", device="cpu")
    with pytest.raises(DeviceError) as caught:
        score(images, tmp_path / "p.parquet", refused)
    assert str(caught.value) == (
        "decoding JPEGs with cuda needs a GPU: JPEGs are decoded on the device of the model, and that is cpu"
    )
    problem = gpu_problem()
    if problem is not None:
        with pytest.raises(DeviceError) as caught:
            score(images, tmp_path / "p.parquet", options(model, decode="cuda"))
        assert str(caught.value) == f"decoding JPEGs with cuda needs a GPU: {problem}"
    with pytest.raises(UsageError, match="decode cuda needs engine local"):
        score(images, tmp_path / "p.parquet", options(model, decode="cuda", engine="ray"))
    assert not (tmp_path / "p.parquet").exists()

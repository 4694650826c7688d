"""Decoders of a batch's rows are tested before use, refuse single rows, and decode a bounded number of pixels."""

import logging

import numpy as np
import pytest
from toys import needs_codec

from batchland.images.encoded_jpegs import keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode, preprocess
from batchland.models.gpu import decode_jpegs as decoding
from batchland.models.gpu.decode_jpegs import RowDecoder, is_strict, open_decoders
from batchland.models.gpu.device import Device
from batchland.models.gpu.jpeg_decoder import HARDWARE, KERNELS, JpegDecoder
from batchland.models.gpu.probe_jpegs import probes
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.resize import Picture, Resizer
from batchland.models.ort import ort

pytestmark = needs_codec
SPEC = PreprocessSpec(height=32, width=48)
CPU = Device("cpu")
ROW_BYTES = 32 * 48 * 3
GOOD, DAMAGED = probes()


def encoded(data):
    return keep_encoded(data, SPEC, checked=False)


class Toy:
    """Decodes on the CPU, in stored orientation; subclasses add faults."""

    name = "toy"

    def __init__(self):
        self.asked = []

    def decode(self, jpegs):
        self.asked.append(len(jpegs))
        return [self.picture(jpeg) for jpeg in jpegs]

    def picture(self, jpeg):
        try:
            pixels = decode(jpeg.data, SPEC).pixels
        except Exception:
            return None
        if jpeg.orientation == 6:
            pixels = np.ascontiguousarray(np.rot90(pixels))
        return Picture(pixels.ctypes.data, jpeg.height, jpeg.width, pixels)


class Lenient(Toy):
    name = "lenient toy"

    def picture(self, jpeg):
        return super().picture(jpeg) or super().picture(encoded(GOOD[0]))


class Dark(Toy):
    name = "dark toy"

    def picture(self, jpeg):
        picture = super().picture(jpeg)
        if picture:
            picture.owner[:] = picture.owner * 0.98
        return picture


class Broken(Toy):
    name = "broken toy"

    def decode(self, jpegs):
        raise RuntimeError("CUDA failure 2: out of memory")


def rows(decoder, jpegs, count=5):
    """The batch, at first all 7, after decoding into it, and the refused rows."""
    batch = ort.OrtValue.ortvalue_from_shape_and_type((count, *SPEC.shape), np.uint8)
    batch.update_inplace(np.full((count, *SPEC.shape), 7, np.uint8))
    refused = decoder.decode(jpegs, batch, ROW_BYTES)
    return batch.numpy().copy(), refused


@pytest.mark.parametrize("decoder", [Toy(), JpegDecoder(CPU, (), 1)], ids=lambda decoder: decoder.name)
def test_each_picture_goes_into_its_row_and_other_rows_stay(decoder):
    half = encoded(GOOD[0])._replace(data=GOOD[0][: len(GOOD[0]) // 2])
    jpegs = {4: encoded(GOOD[1]), 0: encoded(GOOD[5]), 3: half}
    found, refused = rows(RowDecoder(decoder, Resizer(CPU, SPEC)), jpegs)
    assert refused == [3]
    assert np.abs(found[4].astype(int) - preprocess(GOOD[1], SPEC)).max() <= 2
    assert np.abs(found[0].astype(int) - preprocess(GOOD[5], SPEC)).max() <= 2  # orientation 6
    assert (found[1:4] == 7).all()


def test_a_broken_decoder_refuses_all_and_warns_once(caplog):
    decoder = RowDecoder(Broken(), Resizer(CPU, SPEC))
    jpegs = {row: encoded(GOOD[0]) for row in (1, 2)}
    with caplog.at_level(logging.WARNING):
        assert [rows(decoder, jpegs)[1] for _ in range(3)] == [[1, 2]] * 3
    assert caplog.messages == ["broken toy fails, the CPU decodes instead: CUDA failure 2: out of memory"]


def test_refusing_a_whole_batch_warns_once_and_single_bad_files_do_not(caplog):
    half = encoded(GOOD[0])._replace(data=GOOD[0][: len(GOOD[0]) // 2])
    decoder = RowDecoder(Toy(), Resizer(CPU, SPEC))
    with caplog.at_level(logging.WARNING):
        assert rows(decoder, {0: half}, 9)[1] == [0]
        assert rows(decoder, dict.fromkeys(range(8), half) | {8: encoded(GOOD[0])}, 9)[1] == list(range(8))
        assert caplog.messages == []
        for _ in range(2):
            assert rows(decoder, dict.fromkeys(range(8), half), 9)[1] == list(range(8))
    assert caplog.messages == ["toy fails, the CPU decodes instead: it refuses every file"]


def test_a_resizer_that_differs_from_the_cpu_is_refused(monkeypatch):
    real = Resizer.resize
    monkeypatch.setattr(Resizer, "resize", lambda self, picture, orientation, at: real(self, picture, 3, at))
    with pytest.raises(Unusable, match=r"^onnxruntime \S+ resizes pictures on cpu differently from the CPU, by up to"):
        open_decoders([CPU], SPEC, 1, 1)


def test_pixels_decoded_at_once_are_bounded(monkeypatch):
    monkeypatch.setattr(decoding, "_MAX_PIXELS", 320 * 240 * 3)
    toy = Toy()
    jpegs = {0: encoded(GOOD[0]), 1: encoded(GOOD[1])} | {row: encoded(GOOD[0]) for row in range(2, 9)}
    found, refused = rows(RowDecoder(toy, Resizer(CPU, SPEC)), jpegs, 9)
    assert toy.asked == [1, 1, 3, 3, 1]  # the second alone exceeds the bound
    assert refused == []
    expected = preprocess(GOOD[0], SPEC)
    for row in (0, *range(2, 9)):
        assert np.abs(found[row].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("toy", "strict"), [(Toy, True), (Lenient, False)])
def test_strictness_is_found_by_damaged_files(toy, strict):
    assert is_strict(RowDecoder(toy(), Resizer(CPU, SPEC)), CPU, SPEC) is strict


def test_a_decoder_that_differs_from_the_cpu_is_refused():
    with pytest.raises(Unusable, match=r"^dark toy decodes differently from the CPU, by \d\.\d levels on average$"):
        is_strict(RowDecoder(Dark(), Resizer(CPU, SPEC)), CPU, SPEC)


def test_a_decoder_that_decodes_nothing_is_refused():
    with pytest.raises(Unusable) as caught:
        is_strict(RowDecoder(Broken(), Resizer(CPU, SPEC)), CPU, SPEC)
    assert str(caught.value) == (
        "broken toy decodes no JPEG on cpu; is nvJPEG installed? pip install 'batchland[decode-cuda]'"
    )


@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec(jpeg_scale="auto"),
        PreprocessSpec(max_pixels=1000),
        PreprocessSpec(fit="crop", shorter_side=256, filter="bicubic"),
    ],
)
def test_nvimagecodec_on_the_cpu_is_accurate_but_not_strict(spec):
    decoders = open_decoders([CPU, CPU], spec, 1, 4)
    assert len(decoders.each) == 2
    assert decoders.each[0] is not decoders.each[1]
    assert not decoders.strict
    assert decoders.name == f"{decoders.each[0].name}; damaged files are found by the CPU"
    assert decoders._replace(strict=True).name == decoders.each[0].name


def test_kernels_are_used_if_the_hardware_engines_differ(monkeypatch):
    opened, toys = [], []

    def make(device, kinds, threads):
        opened.append((device, kinds, threads))
        toys.append(Dark() if HARDWARE in kinds else Toy())
        return toys[-1]

    monkeypatch.setattr(decoding, "JpegDecoder", make)
    assert open_decoders([CPU, CPU], SPEC, 3, 5).strict
    assert toys[-1].asked[0] == 5  # a whole batch first
    assert opened == [(CPU, (HARDWARE, KERNELS), 3)] * 2 + [(CPU, (KERNELS,), 3)] * 2
    monkeypatch.setattr(decoding, "JpegDecoder", lambda *_: Dark())
    with pytest.raises(Unusable, match="dark toy decodes differently"):
        open_decoders([CPU], SPEC, 1, 1)

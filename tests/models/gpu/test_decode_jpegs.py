"""Decoders for a batch's rows: examined before they are used, refusing by row, never too much at a time."""

import logging

import numpy as np
import pytest
from toys import needs_codec

from batchland.images.encoded_jpegs import keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode, preprocess
from batchland.models.gpu import decode_jpegs as decoding
from batchland.models.gpu.bound import Place
from batchland.models.gpu.decode_jpegs import RowDecoder, examine, open_decoders
from batchland.models.gpu.jpeg_decoder import HARDWARE, KERNELS, JpegDecoder
from batchland.models.gpu.probe_jpegs import probes
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.resize import Fitter, Picture
from batchland.models.ort import ort

pytestmark = needs_codec
SPEC = PreprocessSpec(height=32, width=48)
CPU = Place("cpu")
ROW_BYTES = 32 * 48 * 3
GOOD, DAMAGED = probes()


def encoded(data):
    return keep_encoded(data, SPEC, checked=False)


class Toy:
    """Decodes as the CPU does, without orientation; a subclass has its faults."""

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
            picture.keep[:] = picture.keep * 0.98
        return picture


class Broken(Toy):
    name = "broken toy"

    def decode(self, jpegs):
        raise RuntimeError("CUDA failure 2: out of memory")


def rows(decoder, jpegs, count=5):
    """What it writes into a batch of sevens, and what it refuses."""
    batch = ort.OrtValue.ortvalue_from_shape_and_type((count, *SPEC.shape), np.uint8)
    batch.update_inplace(np.full((count, *SPEC.shape), 7, np.uint8))
    refused = decoder.decode(jpegs, batch, ROW_BYTES)
    return batch.numpy().copy(), refused


@pytest.mark.parametrize("decoder", [Toy(), JpegDecoder(CPU, (), 1)], ids=lambda decoder: decoder.name)
def test_each_picture_goes_into_its_row_and_nothing_else_is_touched(decoder):
    half = encoded(GOOD[0])._replace(data=GOOD[0][: len(GOOD[0]) // 2])
    jpegs = {4: encoded(GOOD[1]), 0: encoded(GOOD[5]), 3: half}
    found, refused = rows(RowDecoder(decoder, Fitter(CPU, SPEC)), jpegs)
    assert refused == [3]
    assert np.abs(found[4].astype(int) - preprocess(GOOD[1], SPEC)).max() <= 2
    assert np.abs(found[0].astype(int) - preprocess(GOOD[5], SPEC)).max() <= 2  # orientation 6
    assert (found[1:4] == 7).all()


def test_a_decoder_that_breaks_refuses_all_and_says_so_once(caplog):
    decoder = RowDecoder(Broken(), Fitter(CPU, SPEC))
    jpegs = {row: encoded(GOOD[0]) for row in (1, 2)}
    with caplog.at_level(logging.WARNING):
        assert [rows(decoder, jpegs)[1] for _ in range(3)] == [[1, 2]] * 3
    assert caplog.messages == ["broken toy fails, the CPU decodes instead: CUDA failure 2: out of memory"]


def test_a_decoder_that_refuses_whole_batches_is_told_of_once_and_bad_files_are_not_blamed_on_it(caplog):
    half = encoded(GOOD[0])._replace(data=GOOD[0][: len(GOOD[0]) // 2])
    decoder = RowDecoder(Toy(), Fitter(CPU, SPEC))
    with caplog.at_level(logging.WARNING):
        assert rows(decoder, {0: half}, 9)[1] == [0]
        assert rows(decoder, dict.fromkeys(range(8), half) | {8: encoded(GOOD[0])}, 9)[1] == list(range(8))
        assert caplog.messages == []
        for _ in range(2):
            assert rows(decoder, dict.fromkeys(range(8), half), 9)[1] == list(range(8))
    assert caplog.messages == ["toy fails, the CPU decodes instead: it refuses all that it is given"]


def test_a_graph_that_fits_otherwise_is_not_used_and_the_decoder_not_blamed(monkeypatch):
    real = Fitter.fit
    monkeypatch.setattr(Fitter, "fit", lambda self, picture, orientation, at: real(self, picture, 3, at))
    with pytest.raises(Unusable, match=r"^onnxruntime \S+ fits pictures on cpu otherwise than the CPU, by up to"):
        open_decoders([CPU], SPEC, 1, 1)


def test_no_more_is_decoded_at_a_time_than_finds_room(monkeypatch):
    monkeypatch.setattr(decoding, "_MOST_PIXELS", 320 * 240 * 3)
    toy = Toy()
    jpegs = {0: encoded(GOOD[0]), 1: encoded(GOOD[1])} | {row: encoded(GOOD[0]) for row in range(2, 9)}
    found, refused = rows(RowDecoder(toy, Fitter(CPU, SPEC)), jpegs, 9)
    assert toy.asked == [1, 1, 3, 3, 1]  # the second is larger than all that may be
    assert refused == []
    expected = preprocess(GOOD[0], SPEC)
    for row in (0, *range(2, 9)):
        assert np.abs(found[row].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("toy", "strict"), [(Toy, True), (Lenient, False)])
def test_whether_damage_is_refused_is_found_out(toy, strict):
    assert examine(RowDecoder(toy(), Fitter(CPU, SPEC)), CPU, SPEC) is strict


def test_a_decoder_of_other_pictures_is_not_used():
    with pytest.raises(Unusable, match=r"^dark toy gives other pictures than the CPU, by \d\.\d levels on average$"):
        examine(RowDecoder(Dark(), Fitter(CPU, SPEC)), CPU, SPEC)


def test_a_decoder_that_decodes_nothing_is_not_used():
    with pytest.raises(Unusable) as caught:
        examine(RowDecoder(Broken(), Fitter(CPU, SPEC)), CPU, SPEC)
    assert str(caught.value) == (
        "broken toy decodes no JPEG on cpu; is nvJPEG there? pip install 'batchland[decode-cuda]'"
    )


@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec(jpeg_scale="auto"),
        PreprocessSpec(max_pixels=1000),
        PreprocessSpec(fit="crop", shorter_side=256, filter="bicubic"),
    ],
)
def test_nvimagecodec_on_the_cpu_is_as_good_but_lenient(spec):
    decoders = open_decoders([CPU, CPU], spec, 1, 4)
    assert len(decoders.each) == 2
    assert decoders.each[0] is not decoders.each[1]
    assert not decoders.strict
    assert decoders.name == f"{decoders.each[0].name}; damaged files are found by the CPU"
    assert decoders._replace(strict=True).name == decoders.each[0].name


def test_if_the_engines_decode_otherwise_the_kernels_do(monkeypatch):
    opened, toys = [], []

    def make(place, kinds, threads):
        opened.append((place, kinds, threads))
        toys.append(Dark() if HARDWARE in kinds else Toy())
        return toys[-1]

    monkeypatch.setattr(decoding, "JpegDecoder", make)
    assert open_decoders([CPU, CPU], SPEC, 3, 5).strict
    assert toys[-1].asked[0] == 5  # as many as a batch has, before anything else
    assert opened == [(CPU, (HARDWARE, KERNELS), 3)] * 2 + [(CPU, (KERNELS,), 3)] * 2
    monkeypatch.setattr(decoding, "JpegDecoder", lambda *_: Dark())
    with pytest.raises(Unusable, match="dark toy gives other pictures"):
        open_decoders([CPU], SPEC, 1, 1)

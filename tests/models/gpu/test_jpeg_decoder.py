"""nvImageCodec as it is, decoding on the CPU: the pictures that libjpeg gives, each in its place, and no noise."""

import subprocess
import sys

import numpy as np
import pytest
from toys import needs_codec

from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode
from batchland.models.gpu import jpeg_decoder
from batchland.models.gpu.bound import Place
from batchland.models.gpu.jpeg_decoder import KERNELS, JpegDecoder, load_codec
from batchland.models.gpu.probe_jpegs import probes
from batchland.models.gpu.problems import Unusable

pytestmark = needs_codec
SPEC = PreprocessSpec()
GOOD, DAMAGED = probes()


def encoded(data):
    return keep_encoded(data, SPEC, checked=False)


def pixels_of(picture):
    return np.asarray(picture.keep)


@pytest.fixture(scope="module")
def decoder():
    return JpegDecoder(Place("cpu"), (), 2)


def test_every_kind_gives_libjpegs_pixels_not_upright_yet(decoder):
    upright = [data for data in GOOD if encoded(data).orientation == 1]
    pictures = decoder.decode([encoded(data) for data in upright])
    assert len(upright) == len(GOOD) - 1
    for data, picture in zip(upright, pictures, strict=True):
        expected = decode(data, SPEC).pixels
        assert (picture.height, picture.width, 3) == expected.shape
        np.testing.assert_array_equal(pixels_of(picture), expected)
        assert picture.address == pixels_of(picture).ctypes.data
    (turned,) = decoder.decode([encoded(GOOD[-1])])
    np.testing.assert_array_equal(pixels_of(turned), decode(GOOD[0], SPEC).pixels)


def test_what_cannot_be_decoded_leaves_its_place_empty(decoder, capfd):
    good = encoded(GOOD[0])
    half = Encoded(good.data[: len(good.data) // 2], good.width, good.height, 1)
    header = Encoded(good.data[:100], good.width, good.height, 1)
    junk = Encoded(b"junk", 4, 4, 1)
    pictures = decoder.decode([junk, good, half, header, encoded(GOOD[1]), junk, good])
    assert [picture and (picture.width, picture.height) for picture in pictures] == [
        None, (320, 240), None, None, (1280, 960), None, (320, 240),
    ]  # fmt: skip
    assert decoder.decode([junk]) == [None]
    assert decoder.decode([]) == []
    assert capfd.readouterr().out == ""


def test_a_picture_of_another_size_than_its_header_promised_is_refused(decoder):
    good = encoded(GOOD[0])
    assert decoder.decode([good._replace(width=good.height, height=good.width)]) == [None]


def test_it_is_named(decoder):
    codec = load_codec()
    assert decoder.name == f"nvImageCodec {codec.__version__}, CPU_ONLY"


def test_nothing_is_written_to_the_terminal_when_it_is_loaded():
    """It would tell of libraries for other formats that are not there."""
    code = (
        "from batchland.models.gpu.bound import Place; from batchland.models.gpu.jpeg_decoder import JpegDecoder; "
        "JpegDecoder(Place('cpu'), (), 1)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_without_it_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec")
    with pytest.raises(Unusable) as caught:
        load_codec()
    assert str(caught.value) == "nvImageCodec is not installed; pip install 'batchland[decode-cuda]'"


def test_an_old_one_that_leaves_failures_out_is_not_used(monkeypatch):
    monkeypatch.setattr("nvidia.nvimgcodec.__version__", "0.5.0")
    with pytest.raises(Unusable) as caught:
        load_codec()
    assert str(caught.value) == "nvImageCodec 0.5.0 is too old; pip install --upgrade 'batchland[decode-cuda]'"


def test_a_gpu_that_is_not_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(jpeg_decoder, "Stream", lambda: None)
    with pytest.raises(Unusable, match=r"nvImageCodec does not start: .*; see nvidia-smi for the GPU's state"):
        JpegDecoder(Place("cuda", 99), (KERNELS,), 1)

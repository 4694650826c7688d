"""nvImageCodec on the CPU decodes as libjpeg does, keeps the order of files, and prints nothing."""

import subprocess
import sys

import numpy as np
import pytest
from toys import needs_codec

from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode
from batchland.models.gpu import jpeg_decoder
from batchland.models.gpu.device import Device
from batchland.models.gpu.jpeg_decoder import KERNELS, JpegDecoder, load_codec
from batchland.models.gpu.probe_jpegs import probes
from batchland.models.gpu.problems import Unusable

pytestmark = needs_codec
SPEC = PreprocessSpec()
GOOD, DAMAGED = probes()


def encoded(data):
    return keep_encoded(data, SPEC, checked=False)


def pixels_of(picture):
    return np.asarray(picture.owner)


@pytest.fixture(scope="module")
def decoder():
    return JpegDecoder(Device("cpu"), (), 2)


def test_every_kind_gives_the_pixels_of_libjpeg_in_stored_orientation(decoder):
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


def test_refused_files_are_none_in_their_position(decoder, capfd):
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


def test_a_picture_of_another_size_than_its_header_says_is_refused(decoder):
    good = encoded(GOOD[0])
    assert decoder.decode([good._replace(width=good.height, height=good.width)]) == [None]


def test_its_name_has_version_and_backend(decoder):
    codec = load_codec()
    assert decoder.name == f"nvImageCodec {codec.__version__}, CPU_ONLY"


def test_loading_it_prints_nothing():
    """By default, nvImageCodec prints messages about missing libraries for other formats."""
    code = (
        "from batchland.models.gpu.device import Device; from batchland.models.gpu.jpeg_decoder import JpegDecoder; "
        "JpegDecoder(Device('cpu'), (), 1)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_missing_nvimagecodec_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec")
    with pytest.raises(Unusable) as caught:
        load_codec()
    assert str(caught.value) == "nvImageCodec is not installed; pip install 'batchland[decode-cuda]'"


def test_an_old_version_is_refused(monkeypatch):
    monkeypatch.setattr("nvidia.nvimgcodec.__version__", "0.5.0")
    with pytest.raises(Unusable) as caught:
        load_codec()
    assert str(caught.value) == "nvImageCodec 0.5.0 is too old; pip install -U 'batchland[decode-cuda]'"


def test_a_missing_gpu_makes_it_unusable(monkeypatch):
    monkeypatch.setattr(jpeg_decoder, "Stream", lambda: None)
    with pytest.raises(Unusable, match=r"nvImageCodec does not start: .*; see nvidia-smi for the GPU's state"):
        JpegDecoder(Device("cuda", 99), (KERNELS,), 1)

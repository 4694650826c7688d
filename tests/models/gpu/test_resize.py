"""Resizing as an ONNX graph agrees with preprocess.fit on the upright picture, to two levels of 255."""

import numpy as np
import pytest
from PIL import Image

from batchland.images.preprocess import PreprocessSpec, fit
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import Unusable
from batchland.models.gpu.resize import Picture, Resizer, require_gpu_nodes
from batchland.models.ort import CPU, CUDA, Placement, ort

SPECS = {
    "squash": PreprocessSpec(height=64, width=96),
    "crop": PreprocessSpec(height=64, width=48, fit="crop", shorter_side=80),
    "crop of all": PreprocessSpec(height=64, width=64, fit="crop", shorter_side=64),
    "bicubic": PreprocessSpec(height=64, width=48, fit="crop", shorter_side=70, filter="bicubic"),
}
SIZES = [(100, 75), (30, 40), (301, 400), (64, 96), (96, 64), (200, 1000)]
TURNS = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""Pillow transposition that makes a picture of this EXIF orientation upright."""


def photo(height, width):
    small = np.random.default_rng(height).integers(0, 256, (9, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", SPECS)
def test_resizes_every_size_and_orientation_as_preprocess_does(name, orientation):
    spec, turn = SPECS[name], TURNS[orientation]
    resizer = Resizer(Device("cpu"), spec)
    for height, width in SIZES:
        stored = photo(height, width)
        pixels = np.asarray(stored).copy()
        upright = stored if turn is None else stored.transpose(turn)
        batch = np.full((3, *spec.shape), 7, np.uint8)
        picture = Picture(pixels.ctypes.data, height, width, pixels)
        resizer.resize(picture, orientation, batch[1].ctypes.data)
        drift = np.abs(batch[1].astype(int) - fit(np.asarray(upright), spec))
        assert drift.max() <= 2
        assert drift.mean() < 0.2
        assert (batch[[0, 2]] == 7).all()  # neighbouring rows


def test_operators_on_pixels_must_run_on_the_gpu():
    require_gpu_nodes(Placement({CUDA: 6}))
    require_gpu_nodes(Placement({CUDA: 5, CPU: 1}, ("Unsqueeze node",)))
    with pytest.raises(Unusable) as caught:
        require_gpu_nodes(Placement({CUDA: 4, CPU: 2}, ("Resize node", "Unsqueeze node")))
    assert str(caught.value) == (
        f"onnxruntime {ort.__version__} would run Resize on the CPU; pip install -U onnxruntime-gpu"
    )
    with pytest.raises(Unusable, match="would run Resize, Slice, Transpose on the CPU"):
        require_gpu_nodes(Placement({CPU: 6}))


def test_a_picture_of_the_right_size_is_not_changed():
    spec = SPECS["squash"]
    pixels = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
    out = np.zeros(spec.shape, np.uint8)
    Resizer(Device("cpu"), spec).resize(Picture(pixels.ctypes.data, 64, 96, pixels), 1, out.ctypes.data)
    np.testing.assert_array_equal(out, pixels)

"""Compare a GPU's probabilities with the CPU's on a few drawn pictures: a GPU may compute wrongly without an error."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Probabilities
from batchland.models.gpu.device import Device
from batchland.models.gpu.disk_cache import cached
from batchland.models.gpu.problems import Unusable
from batchland.models.ort import CPU, create_session, ort
from batchland.models.probe_pictures import probe_pictures
from batchland.system.folders import cache_folder

_PICTURES: Final = 4


class CpuCheck(NamedTuple):
    """Pictures and the CPU's probabilities for them."""

    pixels: Pixels
    """uint8 [pictures, height, width, 3]."""
    expected: Probabilities
    """float32 [pictures, classes]."""
    tolerance: float
    """Largest accepted difference of a probability."""

    def batch(self, size: int) -> Pixels:
        """The pictures, repeated as often as `size` images need."""
        return np.resize(self.pixels, (size, *self.pixels.shape[1:]))

    def require(self, device: Device, answers: Probabilities) -> None:
        """Raise Unusable unless `answers` for a `batch` are the CPU's. device: the one that computed them."""
        difference = float(np.abs(answers - np.resize(self.expected, answers.shape)).max())
        if not difference <= self.tolerance:  # `not <=`, so that a difference of NaN does not pass
            raise Unusable(
                f"{device} computes wrongly: a probability differs from the CPU's by {difference:.2g} (allowed "
                f"{self.tolerance:g}); check the driver, and the GPU with nvidia-smi -q"
            )


def cpu_check(content: bytes, sha256: str, shape: tuple[int, int, int], tolerance: float) -> CpuCheck:
    """A check for a model with pictures of this shape. The CPU's answers are computed once and kept on disk."""
    pixels = probe_pictures(shape, _PICTURES)
    key = {"model": sha256, "onnxruntime": ort.__version__, "shape": shape, "pictures": _PICTURES}
    expected = cached(_folder(), key, lambda: _answers(content, pixels).tolist(), _parse)
    return CpuCheck(pixels, expected, tolerance)


def _folder() -> Path:
    return cache_folder() / "cpu-answers"


def _answers(content: bytes, pixels: Pixels) -> Probabilities:
    session = create_session(content, [(CPU, {})])
    answers = [session.run([OUTPUT_NAME], {INPUT_NAME: picture[None]})[0] for picture in pixels]
    return np.concatenate(answers)


def _parse(value: Any) -> Probabilities:
    answers = np.array(value, np.float32)
    if answers.ndim != 2 or len(answers) != _PICTURES:
        raise ValueError("not the answers to these pictures")
    return answers

"""nvImageCodec: decode lists of JPEGs into a GPU's memory.

nvImageCodec can also decode on the CPU into the CPU's memory, which most tests use.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

from batchland.images.encoded_jpegs import Encoded
from batchland.models.gpu.cudart import Stream, keep_freed_memory, use_gpu
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.resize import Picture
from batchland.system.streams import silence_stderr

INSTALL: Final = "pip install 'batchland[decode-cuda]'"
MIN_VERSION: Final = (0, 9)
"""Older versions leave out files that they cannot decode, so that the answers cannot be assigned."""
HARDWARE: Final = "HW_GPU_ONLY"
"""JPEG engines of some GPUs: fast, but only for baseline JPEGs."""
KERNELS: Final = "HYBRID_CPU_GPU"
"""CUDA kernels, with a share of the work on the CPU."""
_ON_CPU: Final = "CPU_ONLY"
_OPTIONS: Final = ":fancy_upsampling=1 nvjpeg_hw_decoder:force_batch_single=1"
"""Interpolate chrominance, as libjpeg does; report errors per image, not per batch."""


class JpegDecoder:
    """A decoder on one device. Not thread-safe.

    backends: nvImageCodec's kinds that may be used on a GPU. threads: for the CPU's share of the work. Raises Unusable.
    """

    def __init__(self, device: Device, backends: Sequence[str], threads: int) -> None:
        on_gpu = device.kind == "cuda"
        if on_gpu:
            use_gpu(device.number)
            keep_freed_memory(device.number)
        self._codec = codec = load_codec()
        kinds = backends if on_gpu else [_ON_CPU]
        self.name = f"nvImageCodec {codec.__version__}, {' and '.join(kinds)}"
        """Version and backends, as recorded in the manifest."""
        self._stream = Stream() if on_gpu else None
        self._params = codec.DecodeParams(
            apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB, sample_format=codec.SampleFormat.I_RGB
        )
        try:
            with silence_stderr():  # it reports missing libraries for other formats
                self._decoder = codec.Decoder(
                    device_id=device.number if on_gpu else codec.NVIMGCODEC_DEVICE_CPU_ONLY,
                    max_num_cpu_threads=threads,
                    backends=[codec.Backend(getattr(codec.BackendKind, kind)) for kind in kinds],
                    options=_OPTIONS,
                )
        except RuntimeError as error:
            raise Unusable(f"nvImageCodec does not start: {explain(str(error))}") from error

    def decode(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        """One picture per JPEG, in order; None for a refused one. Raises RuntimeError if the device is at fault."""
        streams: list[Any] = []
        accepted: list[int] = []
        for index, jpeg in enumerate(jpegs):
            try:
                streams.append(self._codec.CodeStream(jpeg.data))
            except RuntimeError:  # it cannot read the header
                continue
            accepted.append(index)
        pictures: list[Picture | None] = [None] * len(jpegs)
        stream = self._stream.handle if self._stream else 0
        images = self._decoder.decode(streams, params=self._params, cuda_stream=stream)
        if len(images) != len(streams):  # they cannot be assigned
            raise RuntimeError(f"{len(images)} answers to {len(streams)} files")
        if self._stream:
            self._stream.wait()  # the hardware engines ignore the order of streams
        for index, image in zip(accepted, images, strict=True):
            pictures[index] = _picture(image, jpegs[index])
        return pictures


def load_codec() -> Any:
    """nvImageCodec's module. Raises Unusable if it is missing or too old."""
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # refused files are reported by batchland
    try:
        with silence_stderr():
            from nvidia import nvimgcodec as codec
    except ImportError as error:
        raise Unusable(f"nvImageCodec is not installed; {INSTALL}") from error
    version = tuple(int(part) for part in codec.__version__.split(".")[:2])
    if version < MIN_VERSION:
        raise Unusable(f"nvImageCodec {codec.__version__} is too old; {INSTALL.replace('install', 'install -U')}")
    return codec


def _picture(image: Any, jpeg: Encoded) -> Picture | None:
    """The decoded picture, or None if it has another size than its header says."""
    if image is None or image.shape != (jpeg.height, jpeg.width, 3) or image.strides != (3 * jpeg.width, 3, 1):
        return None
    on_gpu = image.buffer_kind.name == "STRIDED_DEVICE"
    interface = image.__cuda_array_interface__ if on_gpu else image.__array_interface__
    return Picture(interface["data"][0], jpeg.height, jpeg.width, image)

"""nvImageCodec: lists of JPEGs to pictures in a GPU's memory. The one place that imports it.

It can decode on the CPU, too, into the CPU's memory, which is how all that is made of it is tested without a GPU.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

from batchland.images.encoded_jpegs import Encoded
from batchland.models.gpu.bound import Place
from batchland.models.gpu.cudart import Stream, keep_freed_memory, use_gpu
from batchland.models.gpu.problems import Unusable, explain
from batchland.models.gpu.resize import Picture
from batchland.system.streams import silence_stderr

INSTALL: Final = "pip install 'batchland[decode-cuda]'"
OLDEST: Final = (0, 9)
"""Older ones leave out what they cannot decode, and what follows would move up into its place."""
HARDWARE: Final = "HW_GPU_ONLY"
"""Engines made for it, on some GPUs: fast, but only for baseline JPEGs."""
KERNELS: Final = "HYBRID_CPU_GPU"
"""The CPU takes a share of the work."""
_ON_CPU: Final = "CPU_ONLY"
_OPTIONS: Final = ":fancy_upsampling=1 nvjpeg_hw_decoder:force_batch_single=1"
"""Chrominance is interpolated, as libjpeg does it; and the engines answer for each image, whatever the batch."""


class JpegDecoder:
    """A decoder at a place. For one thread at a time.

    kinds: which of nvImageCodec's may be used, on a GPU. threads: for the CPU's share of the work. Raises Unusable.
    """

    def __init__(self, place: Place, kinds: Sequence[str], threads: int) -> None:
        on_gpu = place.kind == "cuda"
        if on_gpu:
            use_gpu(place.number)
            keep_freed_memory(place.number)
        self._codec = codec = load_codec()
        self.name = f"nvImageCodec {codec.__version__}, {' and '.join(kinds if on_gpu else [_ON_CPU])}"
        """What decodes, for people."""
        self._stream = Stream() if on_gpu else None
        self._params = codec.DecodeParams(
            apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB, sample_format=codec.SampleFormat.I_RGB
        )
        backends = [codec.Backend(getattr(codec.BackendKind, kind)) for kind in (kinds if on_gpu else [_ON_CPU])]
        try:
            with silence_stderr():  # of libraries for other formats that are not there, mostly
                self._decoder = codec.Decoder(
                    device_id=place.number if on_gpu else codec.NVIMGCODEC_DEVICE_CPU_ONLY,
                    max_num_cpu_threads=threads,
                    backends=backends,
                    options=_OPTIONS,
                )
        except RuntimeError as error:
            raise Unusable(f"nvImageCodec does not start: {explain(str(error))}") from error

    def decode(self, jpegs: Sequence[Encoded]) -> list[Picture | None]:
        """A picture for each, in order, or None for what it refuses. Raises RuntimeError if the device is at fault."""
        streams: list[Any] = []
        places: list[int] = []
        for place, jpeg in enumerate(jpegs):
            try:
                streams.append(self._codec.CodeStream(jpeg.data))
            except RuntimeError:  # it cannot read the header
                continue
            places.append(place)
        pictures: list[Picture | None] = [None] * len(jpegs)
        stream = self._stream.handle if self._stream else 0
        images = self._decoder.decode(streams, params=self._params, cuda_stream=stream)
        if len(images) != len(streams):  # whose is whose, nobody knows
            raise RuntimeError(f"{len(images)} answers to {len(streams)} files")
        if self._stream:
            self._stream.wait()  # by the host: to the engines' batches, an order of streams means nothing
        for place, image in zip(places, images, strict=True):
            pictures[place] = _picture(image, jpegs[place])
        return pictures


def load_codec() -> Any:
    """nvImageCodec's module. Raises Unusable if there is none, or an old one."""
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # what it refuses is ours to tell
    try:
        with silence_stderr():
            from nvidia import nvimgcodec as codec
    except ImportError as error:
        raise Unusable(f"nvImageCodec is not installed; {INSTALL}") from error
    version = tuple(int(part) for part in codec.__version__.split(".")[:2])
    if version < OLDEST:
        raise Unusable(
            f"nvImageCodec {codec.__version__} is too old; {INSTALL.replace('install', 'install --upgrade')}"
        )
    return codec


def _picture(image: Any, jpeg: Encoded) -> Picture | None:
    """What was decoded, if it is what the header has promised."""
    if image is None or image.shape != (jpeg.height, jpeg.width, 3) or image.strides != (3 * jpeg.width, 3, 1):
        return None
    on_gpu = image.buffer_kind.name == "STRIDED_DEVICE"
    interface = image.__cuda_array_interface__ if on_gpu else image.__array_interface__
    return Picture(interface["data"][0], jpeg.height, jpeg.width, image)

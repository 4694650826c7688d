"""Run a session on batches of one fixed shape, through buffers that stay in place, and in halves when memory ends.

For GPUs: a fixed shape lets cuDNN and TensorRT plan once, fixed addresses let a CUDA graph be replayed. Works on the
CPU just the same, which is how it is tested. Knows nothing of threads, of cards, or of how a session is opened.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from batchland.errors import DeviceError
from batchland.images.encoded_jpegs import NO_JPEGS, Encoded, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Probabilities
from batchland.models.gpu.cudart import pinned_zeros, use_gpu
from batchland.models.gpu.problems import is_out_of_memory
from batchland.models.ort import ort

_log = logging.getLogger("batchland")

_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = "-1"
"""Neither capture a CUDA graph nor replay one."""


class Place(NamedTuple):
    """Where buffers lie."""

    kind: str
    """`cpu` or `cuda`."""
    number: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.number}"


class RowDecoder(Protocol):
    """What decodes JPEGs on the device, for one thread at a time."""

    def decode(self, encoded: Mapping[int, Encoded], batch: Any, row_bytes: int) -> list[int]:
        """Write each picture, fitted, into its row of `batch`, an OrtValue; gives the rows that were refused."""


class BoundRunner:
    """A session with its buffers for `batch_size` images of `shape` (height, width, 3) and `classes` probabilities.

    For one thread at a time; with a CUDA graph, always for the same one.
    """

    def __init__(
        self,
        session: Any,
        place: Place,
        batch_size: int,
        shape: tuple[int, int, int],
        classes: int,
        *,
        graph: bool = False,
        decoder: RowDecoder | None = None,
    ) -> None:
        self.batch_size = batch_size
        """Images that the device takes at once: as given, until its memory does not suffice."""
        self._session = session
        self._place = place
        self._shape = shape
        self._classes = classes
        self._graph = graph
        self._decoder = decoder
        self._buffers: _Buffers | None = None

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """Probabilities, float32 [images, classes], of uint8 [images, height, width, 3], however many.

        jpegs: rows whose pixels are not there yet; for a runner with a decoder.

        Where memory does not suffice, goes on with half as many images at once. Raises DeviceError if not even a
        single one finds room, and what else onnxruntime raises.
        """
        while True:
            size = self.batch_size
            try:
                starts = range(0, len(pixels), size)
                return np.concatenate(
                    [self._run(pixels[start : start + size], jpegs.between(start, start + size)) for start in starts]
                )
            except Exception as error:  # onnxruntime's errors share no base class but Exception
                if not is_out_of_memory(str(error)):
                    raise
                self._halve(error)

    def _run(self, pixels: Pixels, jpegs: JpegRows) -> Probabilities:
        if self._buffers is None:
            self._buffers = self._bind()
        host, on_device, output, binding, options = self._buffers
        if len(jpegs.encoded) < self.batch_size:  # else no row comes from the host
            host[: len(pixels)] = pixels
            host[len(pixels) :] = 0
            on_device.update_inplace(host)
        if self._decoder and jpegs.encoded:
            self._decode(self._decoder, jpegs, on_device)
        self._session.run_with_iobinding(binding, options)
        rows: Probabilities = output.numpy()[: len(pixels)].copy()  # on the CPU, numpy() is the buffer itself
        return rows

    def _decode(self, decoder: RowDecoder, jpegs: JpegRows, on_device: Any) -> None:
        """Fill in the rows; the few that the decoder refuses by way of the host."""
        refused = decoder.decode(jpegs.encoded, on_device, int(np.prod(self._shape)))
        if refused:
            filled = on_device.numpy()
            for row in refused:
                decoded = jpegs.decode_on_cpu(row)
                filled[row] = 0 if decoded is None else decoded
            on_device.update_inplace(filled)

    def _bind(self) -> "_Buffers":
        if self._place.kind == "cuda":
            use_gpu(self._place.number)
        shape = (self.batch_size, *self._shape)
        on_device = self._on_device(shape, np.uint8)
        output = self._on_device((self.batch_size, self._classes), np.float32)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, on_device)
        binding.bind_ortvalue_output(OUTPUT_NAME, output)
        options = ort.RunOptions()
        if not self._graph:
            options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        host = np.zeros(shape, np.uint8) if self._place.kind == "cpu" else pinned_zeros(shape)
        return _Buffers(host, on_device, output, binding, options)

    def _on_device(self, shape: tuple[int, ...], kind: type[np.generic]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, self._place.kind, self._place.number)

    def _halve(self, error: Exception) -> None:
        self._buffers = None
        self._graph = False  # it was captured for them; another could be only while no other thread uses the GPU
        size = self.batch_size
        if size == 1:
            raise DeviceError(
                f"{self._place}: has not enough memory for a single image; see nvidia-smi for who uses it, or use "
                f"--device cpu"
            ) from error
        self.batch_size = (size + 1) // 2
        _log.warning("%s: not enough memory for %d images at once; goes on with %d", self._place, size, self.batch_size)


class _Buffers(NamedTuple):
    """What a batch passes through."""

    host: Pixels
    """In memory that a GPU copies at full speed."""
    on_device: Any
    output: Any
    binding: Any
    """Of the session, to the two on the device."""
    options: Any
    """Of a run."""

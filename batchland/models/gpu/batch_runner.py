"""Run an onnxruntime session on batches of one fixed shape, through buffers that keep their addresses.

A fixed shape lets cuDNN and TensorRT plan once; fixed addresses let a CUDA graph be replayed. When the device runs out
of memory, the batch size is halved. The same code runs on the CPU, where most of it is tested.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.errors import DeviceError
from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Answer, Probabilities
from batchland.models.gpu.cudart import pinned_zeros, use_gpu
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import is_out_of_memory
from batchland.models.ort import ort

if TYPE_CHECKING:
    from batchland.models.gpu.decode_jpegs import RowDecoder

_log = logging.getLogger("batchland")

_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = "-1"
"""Neither capture a CUDA graph nor replay one."""
_UNTOUCHED: Final = -1.0
"""Fills the output buffers before a run; no row of an answer has only this value."""


class BatchRunner:
    """A session with buffers for `batch_size` images of `shape` (height, width, 3) and `classes` probabilities.

    further: names and widths of the other outputs to compute. decoder: decodes JPEGs straight into the device's buffer.
    Not thread-safe. With a CUDA graph (`graph`), always call it from the same thread.
    """

    def __init__(
        self,
        session: Any,
        device: Device,
        batch_size: int,
        shape: tuple[int, int, int],
        classes: int,
        further: Mapping[str, int] | None = None,
        *,
        graph: bool = False,
        decoder: "RowDecoder | None" = None,
    ) -> None:
        self.batch_size = batch_size
        """Images that the device computes at once; halved whenever its memory does not suffice."""
        self._session = session
        self._device = device
        self._shape = shape
        self._outputs = {OUTPUT_NAME: classes, **(further or {})}
        self._graph = graph
        self._decoder = decoder
        self._buffers: _Buffers | None = None

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """The probabilities of `answer`."""
        return self.answer(pixels, jpegs).probabilities

    def answer(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Answer:
        """Probabilities and the other outputs of any number of images, uint8 [images, height, width, 3].

        jpegs: rows of `pixels` that are still encoded; needs a decoder.

        Raises DeviceError if the device has no memory for a single image, and whatever else onnxruntime raises.
        """
        while True:
            size = self.batch_size
            try:
                starts = range(0, len(pixels), size)
                parts = [
                    self._run(pixels[start : start + size], jpegs.between(start, start + size)) for start in starts
                ]
                whole = map(np.concatenate, zip(*parts, strict=True))
                return Answer(**dict(zip(self._outputs, whole, strict=True)))
            except Exception as error:  # onnxruntime's errors share no base class but Exception
                if not is_out_of_memory(str(error)):
                    raise
                self._halve(error)

    def _run(self, pixels: Pixels, jpegs: JpegRows) -> list[npt.NDArray[np.float32]]:
        """Rows of each output."""
        if self._buffers is None:
            self._buffers = self._bind()
        host, on_device, outputs, binding, options = self._buffers
        if len(jpegs.encoded) < self.batch_size:  # otherwise no row comes from the host
            host[: len(pixels)] = pixels
            host[len(pixels) :] = 0
            on_device.update_inplace(host)
        if self._decoder and jpegs.encoded:
            self._decode(self._decoder, jpegs, on_device)
        for untouched, output in outputs:
            output.update_inplace(untouched)
        self._session.run_with_iobinding(binding, options)
        # on the CPU, numpy() is the buffer itself
        found = [output.numpy()[: len(pixels)].copy() for _, output in outputs]
        if any((rows == _UNTOUCHED).all(axis=1).any() for rows in found):
            raise DeviceError(
                f"{self._device}: has not computed this batch; check the driver, and the GPU with nvidia-smi -q"
            )
        return found

    def _decode(self, decoder: "RowDecoder", jpegs: JpegRows, on_device: Any) -> None:
        """Decode JPEGs into their rows; those that the decoder refuses are decoded by the CPU and copied."""
        refused = decoder.decode(jpegs.encoded, on_device, int(np.prod(self._shape)))
        if refused:
            filled = on_device.numpy()
            for row in refused:
                decoded = jpegs.decode_on_cpu(row)
                filled[row] = 0 if decoded is None else decoded
            on_device.update_inplace(filled)

    def _bind(self) -> "_Buffers":
        if self._device.kind == "cuda":
            use_gpu(self._device.number)
        shape = (self.batch_size, *self._shape)
        on_device = self._device_buffer(shape, np.uint8)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, on_device)
        outputs = []
        for name, width in self._outputs.items():
            output = self._device_buffer((self.batch_size, width), np.float32)
            binding.bind_ortvalue_output(name, output)
            outputs.append((np.full((self.batch_size, width), _UNTOUCHED, np.float32), output))
        options = ort.RunOptions()
        if not self._graph:
            options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        host = np.zeros(shape, np.uint8) if self._device.kind == "cpu" else pinned_zeros(shape)
        return _Buffers(host, on_device, outputs, binding, options)

    def _device_buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._device)

    def _halve(self, error: Exception) -> None:
        self._buffers = None
        self._graph = False  # a new capture would be safe only while no other thread uses the GPU
        size = self.batch_size
        if size == 1:
            raise DeviceError(
                f"{self._device}: not enough memory for a single image; nvidia-smi shows which process uses it",
                advice="cpu_device",
            ) from error
        self.batch_size = (size + 1) // 2
        _log.warning(
            "%s: not enough memory for %d images at once; continuing with %d", self._device, size, self.batch_size
        )


class _Buffers(NamedTuple):
    """Buffers that all batches reuse, and the session's bindings to them."""

    host: Pixels
    """Pinned, so that a GPU copies it at full speed."""
    on_device: Any
    outputs: list[tuple[npt.NDArray[np.float32], Any]]
    """For each output: the values that are copied to its buffer before each run, so that a stale answer is noticed; and
    the buffer."""
    binding: Any
    options: Any
    """onnxruntime's RunOptions."""

"""Resize and crop decoded pictures on a GPU: preprocess.fit as an ONNX graph, exact to one or two levels of 255.

The same graph runs on the CPU, where tests compare it with preprocess.fit.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from batchland.images.preprocess import PreprocessSpec, resize_geometry
from batchland.models.gpu.device import Device
from batchland.models.gpu.problems import Unusable
from batchland.models.ort import CPU, CUDA, Placement, Provider, create_session, ort, placement

_MODES: Final[dict[str, dict[str, Any]]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # as Pillow's
}
_WORK: Final = ("Resize", "Slice", "Transpose")
_PAST_THE_FIRST: Final = np.iinfo(np.int64).min
"""End of a backward slice that includes the first element."""


class Picture(NamedTuple):
    """RGB uint8 [height, width, 3], contiguous in a device's memory, in its stored orientation."""

    address: int
    height: int
    width: int
    owner: object
    """Keeps the memory alive."""


class Resizer:
    """Resizes and crops pictures in a device's memory as a spec says. Thread-safe.

    Raises Unusable if the device would not do the work.
    """

    def __init__(self, device: Device, spec: PreprocessSpec) -> None:
        self._device = device
        self._spec = spec
        self._sessions = {turned: _session(device, _graph(spec, turned=turned)) for turned in (False, True)}

    def resize(self, picture: Picture, orientation: int, address: int) -> None:
        """Write the picture, upright, as uint8 [spec.height, spec.width, 3] to `address` on the same device.

        orientation: EXIF, 1 to 8.

        Raises what onnxruntime raises.
        """
        turned = orientation >= 5
        session = self._sessions[turned]
        height, width = (picture.width, picture.height) if turned else (picture.height, picture.width)
        across, down, left, top = resize_geometry(width, height, self._spec)
        rows = _slice(top, self._spec.height, down, backwards=orientation in (3, 4, 7, 8))
        columns = _slice(left, self._spec.width, across, backwards=orientation in (2, 3, 6, 7))
        binding = session.io_binding()
        shape = (picture.height, picture.width, 3)
        binding.bind_input("picture", *self._device, np.uint8, shape, picture.address)
        binding.bind_cpu_input("narrowed", np.array([1, 3, height, across], np.int64))
        binding.bind_cpu_input("lowered", np.array([1, 3, across, down], np.int64))
        for name, values in zip(("starts", "ends", "steps"), zip(columns, rows, strict=True), strict=True):
            binding.bind_cpu_input(name, np.array(values, np.int64))
        binding.bind_output("fitted", *self._device, np.uint8, self._spec.shape, address)
        session.run_with_iobinding(binding)


def _session(device: Device, graph: bytes) -> Any:
    providers: list[Provider] = [(CPU, {})]
    if device.kind == "cuda":
        providers.insert(0, (CUDA, {"device_id": str(device.number), "arena_extend_strategy": "kSameAsRequested"}))
    session = create_session(graph, providers, 1, record_placement=True)
    if device.kind == "cuda":
        require_gpu_nodes(placement(session))
    return session


def require_gpu_nodes(placed: Placement) -> None:
    """Raise Unusable if an operator that touches pixels would run on the CPU."""
    on_cpu = [node.partition(" ")[0] for node in placed.on_cpu] if CUDA in placed.nodes else list(_WORK)
    wrong = sorted(set(on_cpu).intersection(_WORK))
    if wrong:
        raise Unusable(
            f"onnxruntime {ort.__version__} would run {', '.join(wrong)} on the CPU; pip install -U onnxruntime-gpu"
        )


def _slice(start: int, count: int, length: int, *, backwards: bool) -> tuple[int, int, int]:
    """Start, end and step that cut `count` elements out of `length`, mirrored first if `backwards`."""
    if not backwards:
        return start, start + count, 1
    last = length - 1 - start
    return last, last - count if last >= count else _PAST_THE_FIRST, -1


def _graph(spec: PreprocessSpec, *, turned: bool) -> bytes:
    """Resize the width, then the height, then crop; channels first, as the CUDA kernels need it.

    One axis at a time, always the last one: given two, the CUDA kernel leaves most of the first one uncomputed when it
    shrinks a picture (onnxruntime up to 1.31, bilinear uint8).
    """
    how = {"antialias": 1, "exclude_outside": 1, **_MODES[spec.filter]}
    nodes = [
        helper.make_node("Transpose", ["picture"], ["planes"], perm=[2, 1, 0] if turned else [2, 0, 1]),
        helper.make_node("Unsqueeze", ["planes", "first"], ["batch"]),
        helper.make_node("Resize", ["batch", "", "", "narrowed"], ["narrow"], **how),
        helper.make_node("Transpose", ["narrow"], ["narrow_lying"], perm=[0, 1, 3, 2]),
        helper.make_node("Resize", ["narrow_lying", "", "", "lowered"], ["resized"], **how),
        helper.make_node("Slice", ["resized", "starts", "ends", "axes", "steps"], ["cut"]),
        helper.make_node("Squeeze", ["cut", "first"], ["fitted_planes"]),
        helper.make_node("Transpose", ["fitted_planes"], ["fitted"], perm=[2, 1, 0]),
    ]
    graph = helper.make_graph(
        nodes,
        "fit",
        [
            helper.make_tensor_value_info("picture", TensorProto.UINT8, ["height", "width", 3]),
            *(helper.make_tensor_value_info(name, TensorProto.INT64, [4]) for name in ("narrowed", "lowered")),
            *(helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in ("starts", "ends", "steps")),
        ],
        [helper.make_tensor_value_info("fitted", TensorProto.UINT8, list(spec.shape))],
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()

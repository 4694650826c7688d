"""Fit a decoded picture where it lies, on a GPU: preprocess.fit as a graph of onnxruntime, to within a level or two.

Works on the CPU just the same, which is how it is held against preprocess.fit.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from batchland.images.preprocess import PreprocessSpec, resize_geometry
from batchland.models.gpu.bound import Place
from batchland.models.gpu.problems import Unusable
from batchland.models.ort import CPU, CUDA, Placement, Provider, Threads, create_session, ort, placement

_MODES: Final[dict[str, dict[str, Any]]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # as Pillow's
}
_WORK: Final = ("Resize", "Slice", "Transpose")
_PAST_THE_FIRST: Final = np.iinfo(np.int64).min
"""Where a slice ends that goes backwards and takes the first element as well."""


class Picture(NamedTuple):
    """RGB uint8 [height, width, 3], not upright yet, in the memory of a device, row after row without gaps."""

    address: int
    height: int
    width: int
    keep: object
    """Holds the memory."""


class Fitter:
    """Fits pictures at a place to a spec. For any number of threads.

    Raises Unusable if it would not be done there.
    """

    def __init__(self, place: Place, spec: PreprocessSpec) -> None:
        self._place = place
        self._spec = spec
        self._sessions = {turned: _session(place, _graph(spec, turned=turned)) for turned in (False, True)}

    def fit(self, picture: Picture, orientation: int, address: int) -> None:
        """Write the picture, upright and fitted, as uint8 [spec.height, spec.width, 3] to `address` at the same place.

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
        binding.bind_input("picture", self._place.kind, self._place.number, np.uint8, shape, picture.address)
        binding.bind_cpu_input("narrowed", np.array([1, 3, height, across], np.int64))
        binding.bind_cpu_input("lowered", np.array([1, 3, across, down], np.int64))
        for name, values in zip(("starts", "ends", "steps"), zip(columns, rows, strict=True), strict=True):
            binding.bind_cpu_input(name, np.array(values, np.int64))
        binding.bind_output("fitted", self._place.kind, self._place.number, np.uint8, self._spec.shape, address)
        session.run_with_iobinding(binding)


def _session(place: Place, graph: bytes) -> Any:
    providers: list[Provider] = [(CPU, {})]
    if place.kind == "cuda":
        providers.insert(0, (CUDA, {"device_id": str(place.number), "arena_extend_strategy": "kSameAsRequested"}))
    session = create_session(graph, providers, Threads(intra_op=1), record_placement=True)
    if place.kind == "cuda":
        require_work(placement(session))
    return session


def require_work(placed: Placement) -> None:
    """Raise Unusable if the CPU would do what touches pixels."""
    left = [node.partition(" ")[0] for node in placed.on_cpu] if CUDA in placed.nodes else list(_WORK)
    idle = sorted(set(left).intersection(_WORK))
    if idle:
        raise Unusable(
            f"onnxruntime {ort.__version__} would leave {', '.join(idle)} of pictures to the CPU; "
            f"pip install --upgrade onnxruntime-gpu"
        )


def _slice(start: int, count: int, length: int, *, backwards: bool) -> tuple[int, int, int]:
    """Start, end and step of a cut out of something of `length` that may have to be mirrored first."""
    if not backwards:
        return start, start + count, 1
    last = length - 1 - start
    return last, last - count if last >= count else _PAST_THE_FIRST, -1


def _graph(spec: PreprocessSpec, *, turned: bool) -> bytes:
    """Resize across, then down, then cut; with the channels first, as CUDA's kernels want it.

    One axis at a time, each time the last one: of two, CUDA's kernel leaves most of the first uncomputed when it makes
    a picture smaller (onnxruntime 1.31 and before, bilinear uint8).
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
    content: bytes = model.SerializeToString()
    return content

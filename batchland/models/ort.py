"""The one door to onnxruntime: what it must be told before its import, and sessions that fail, not fall back.

Knows nothing of cards or of devices' problems.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

# onnxruntime 1.31 collects telemetry, in a database in the user's cache, from its import on. Nobody asked for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

ort.set_default_logger_severity(4)  # what is wrong with a GPU is ours to tell, in a line

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "Placement",
    "Provider",
    "Threads",
    "create_session",
    "first_line",
    "ort",
    "placement",
]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Provider = tuple[str, Mapping[str, str]]
"""An execution provider's name and its options."""


class Threads(NamedTuple):
    """onnxruntime's own threads on the CPU."""

    intra_op: int | None = None
    """How many; None leaves it to onnxruntime."""
    spinning: bool = False
    """Whether they busy-wait: faster when nothing else wants the cores."""


_ITS_CHOICE: Final = Threads()


def create_session(
    content: bytes, providers: Sequence[Provider], threads: Threads = _ITS_CHOICE, *, record_placement: bool = False
) -> ort.InferenceSession:
    """A session on the first of `providers` that takes a node, node by node.

    record_placement: keep what `nodes_by_provider` tells. Raises what onnxruntime raises: its errors share no base
    class but Exception. A provider whose library cannot be loaded is left out without an error, so that the session's
    own list of providers has to be asked; but never does onnxruntime start again on the CPU, which is its default.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the reasons of failures are ours to tell
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads.spinning else "0")
    if threads.intra_op is not None:
        options.intra_op_num_threads = threads.intra_op
    if record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    chosen = [(name, dict(provider_options)) for name, provider_options in providers]
    return ort.InferenceSession(content, options, providers=chosen, enable_fallback=0)


class Placement(NamedTuple):
    """Where a session's nodes run."""

    nodes: Mapping[str, int]
    """How many, by execution provider."""
    on_cpu: tuple[str, ...] = ()
    """Those that a GPU's session leaves to the CPU, by operator and name: `Shape`, `Gather /head/gather`."""


def placement(session: Any) -> Placement:
    """Of a session that was created with `record_placement`, before onnxruntime fuses nodes."""
    counts: Counter[str] = Counter()
    on_cpu = []
    for subgraph in session.get_provider_graph_assignment_info():
        nodes = subgraph.get_nodes()
        counts[subgraph.ep_name] += len(nodes)
        if subgraph.ep_name == CPU:
            on_cpu += [f"{node.op_type} {node.name}".strip() for node in nodes]
    elsewhere = set(counts) - {CPU}
    return Placement(dict(counts), tuple(on_cpu) if elsewhere else ())


def first_line(error: Exception) -> str:
    """An error of onnxruntime's without its trace."""
    return str(error).partition("\n")[0]

"""Import onnxruntime without telemetry, and create sessions that fail instead of falling back to the CPU."""

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

# From its import on, onnxruntime 1.31 collects telemetry in a database in the user's cache.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

ort.set_default_logger_severity(4)  # batchland reports problems of a GPU itself, in one line

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "Placement",
    "Provider",
    "cpuinfo",
    "create_session",
    "has_vnni",
    "instruction_sets",
    "ort",
    "placement",
    "tools_importable",
]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"


@contextmanager
def tools_importable() -> Iterator[None]:
    """Context in which onnxruntime's quantizer and float16 converter can be imported.

    Their modules import each other by bare, very common names, so their folder is on the path here only.
    """
    before = list(sys.path)
    sys.path.append(str(Path(ort.__file__).parent / "transformers"))
    try:
        yield
    finally:
        sys.path[:] = before


@cache
def has_vnni() -> bool:
    """Whether this CPU multiplies 8-bit integers without saturation."""
    return any(flag in cpuinfo() for flag in ("avx512_vnni", "avx_vnni"))


@cache
def instruction_sets() -> str:
    """Those of the CPU; onnxruntime arranges weights for them."""
    flags = next((line for line in cpuinfo().splitlines() if line.startswith(("flags", "Features"))), None)
    if flags is None:  # on macOS; on Linux, platform.processor() would start a process
        flags = platform.processor()
    return f"{platform.machine()} {flags}"


@cache
def cpuinfo() -> str:
    """Linux's description of the CPUs; elsewhere empty."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


Provider = tuple[str, Mapping[str, str]]
"""An execution provider's name and its options."""


def create_session(
    content: bytes,
    providers: Sequence[Provider],
    threads: int | None = None,
    *,
    record_placement: bool = False,
    weights: Path | None = None,
    save_optimised: Path | None = None,
) -> ort.InferenceSession:
    """A session in which each node runs on the first of `providers` that supports it.

    threads: onnxruntime's own on the CPU; None leaves the number to onnxruntime. record_placement: needed for
    `placement`. weights: the folder of external weights; by default there are none. save_optimised: where to write the
    optimised graph, and its weights beside it as `weights.bin`.

    Raises what onnxruntime raises: its errors share no base class but Exception. A provider whose library cannot be
    loaded is left out without an error, so check the session's own list of providers. onnxruntime's automatic fallback
    to the CPU after an error is switched off.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # batchland reports the reasons of failures itself
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path",
        str(weights or os.devnull),  # never the cwd
    )
    if save_optimised is not None:
        options.optimized_model_filepath = str(save_optimised)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if not has_vnni():  # int8 products of 8-bit weights must not saturate; with VNNI it would only make them slower
        options.add_session_config_entry("session.x64quantprecision", "1")
    if all(name == CPU for name, _ in providers):
        # It takes a quarter more memory and gains no time: benchmarks/results/arena.md.
        options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    chosen = [(name, dict(provider_options)) for name, provider_options in providers]
    return ort.InferenceSession(content, options, providers=chosen, enable_fallback=0)


class Placement(NamedTuple):
    """The execution provider of each node of a session."""

    nodes: Mapping[str, int]
    """Number of nodes by execution provider."""
    on_cpu: tuple[str, ...] = ()
    """Nodes of a GPU's session that run on the CPU, by operator and name: `Shape`, `Gather /head/gather`."""


def placement(session: Any) -> Placement:
    """The placement in a session created with `record_placement`, before onnxruntime fuses nodes."""
    counts: Counter[str] = Counter()
    on_cpu = []
    for subgraph in session.get_provider_graph_assignment_info():
        nodes = subgraph.get_nodes()
        counts[subgraph.ep_name] += len(nodes)
        if subgraph.ep_name == CPU:
            on_cpu += [f"{node.op_type} {node.name}".strip() for node in nodes]
    elsewhere = set(counts) - {CPU}
    return Placement(dict(counts), tuple(on_cpu) if elsewhere else ())

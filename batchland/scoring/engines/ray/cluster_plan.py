"""Divide the cores and GPUs of a cluster among decoders and sessions."""

from math import ceil
from typing import Final, NamedTuple

from batchland.models.gpu.runners import RUNNERS_PER_GPU
from batchland.scoring.engines.engine import MAX_CPU_CALLS
from batchland.scoring.options import ScoreOptions

CORES_PER_SESSION: Final = 16
"""On CPUs, or all cores of a smaller node. With more, a second model in memory costs less than waiting for the one."""
SESSION_CPUS: Final = 0.01
"""CPUs that a CPU session reserves, so that Ray places it on a node with cores. With more, sessions that move from a
lost node to others could leave no cores for decoders there, and the run would wait forever."""


class ClusterPlan(NamedTuple):
    """Number of decoders and sessions, and the CPUs and GPUs that each reserves.

    On CPUs, decoders claim half of each core and sessions next to nothing: the threads of both share the cores, as in
    the local engine. With GPUs, decoders claim the cores.
    """

    decoders: int
    """Tasks at once; each decodes a batch."""
    decoder_cpus: float
    sessions: int
    session_cpus: float
    session_gpus: int
    calls: int
    """Batches in a session at once."""
    threads: int
    """onnxruntime's, per call."""

    @classmethod
    def of(cls, cores: list[float], gpus: int, options: ScoreOptions) -> "ClusterPlan":
        """cores: of each node that has any. gpus: of all nodes, 0 to infer on CPUs."""
        total = sum(cores)
        decoders = options.num_workers or max(1, int(total))
        session_cores = min(CORES_PER_SESSION, *cores)
        threads = options.intra_op_threads or ceil(session_cores / MAX_CPU_CALLS)
        if gpus:
            return cls(decoders, min(1.0, total / decoders), gpus, 0.0, 1, RUNNERS_PER_GPU, threads)
        sessions = max(1, int(total / session_cores))
        calls = min(MAX_CPU_CALLS, ceil(session_cores / threads))
        return cls(decoders, min(0.5, total / 2 / decoders), sessions, SESSION_CPUS, 0, calls, threads)

    def ahead(self, prefetch_factor: int) -> int:
        """Most batches in progress."""
        return prefetch_factor * (self.decoders + self.sessions * self.calls)

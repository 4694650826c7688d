"""Share the cores and GPUs of a cluster out. Knows nothing of Ray."""

from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from batchland.scoring.engines.local import MOST_CALLS

if TYPE_CHECKING:
    from batchland.scoring.options import ScoreOptions

CORES_PER_SESSION: Final = 16
"""On CPUs, or a node's cores if it has fewer; beyond, another model in memory costs less than waiting for one."""
SESSION_CPUS: Final = 0.01
"""What a session claims on a CPU: enough to be where there are cores. Were it more, sessions that move from a lost node
to the others might leave nothing for decoders there, and the run would wait for ever."""


class Plan(NamedTuple):
    """Who gets which share.

    On CPUs, decoders have half of each core, and sessions the rest without a claim to it: the threads of both share the
    cores as the local engine's do. With GPUs, decoders have the cores.
    """

    decoders: int
    """Tasks that decode a batch each, at once."""
    decoder_cpus: float
    sessions: int
    session_cpus: float
    session_gpus: int
    calls: int
    """Batches in a session at once."""
    threads: int
    """onnxruntime's, per call."""

    @classmethod
    def of(cls, cores: list[float], gpus: int, options: "ScoreOptions") -> "Plan":
        """cores: of each node that has any. gpus: of all nodes, 0 to infer on CPUs."""
        total = sum(cores)
        decoders = options.num_workers or max(1, int(total))
        session_cores = min(CORES_PER_SESSION, *cores)
        threads = options.intra_op_threads or ceil(session_cores / MOST_CALLS)
        if gpus:
            return cls(decoders, min(1.0, total / decoders), gpus, 0.0, 1, 1, threads)
        sessions = max(1, int(total / session_cores))
        calls = min(MOST_CALLS, ceil(session_cores / threads))
        return cls(decoders, min(0.5, total / 2 / decoders), sessions, SESSION_CPUS, 0, calls, threads)

    def ahead(self, prefetch_factor: int) -> int:
        """Batches under way at most."""
        return prefetch_factor * (self.decoders + self.sessions * self.calls)

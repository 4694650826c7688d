"""Share the cores and GPUs of a cluster out. Knows nothing of Ray."""

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from batchland.scoring import ScoreOptions

THREADS_PER_SESSION: Final = 4
"""On the CPU, unless intra_op_threads says otherwise, or a node has fewer cores."""


class Plan(NamedTuple):
    """Who gets which share of a cluster.

    On CPUs, each core is promised twice, half to a decoder and half to a session's thread, as the local engine's
    threads share them: whichever stage is the slower one takes what it needs. With GPUs, decoders have the cores.
    """

    decoders: int
    decoder_cpus: float
    sessions: int
    session_cpus: float
    session_gpus: int
    threads: int

    @classmethod
    def of(cls, cores: list[float], gpus: int, options: "ScoreOptions") -> "Plan":
        """cores: of each node that has any. gpus: of all nodes, 0 to infer on CPUs."""
        total = sum(cores)
        decoders = options.num_workers or max(1, int(total))
        threads = options.intra_op_threads or max(1, int(min(THREADS_PER_SESSION, *cores)))
        if gpus:
            return cls(decoders, min(1.0, total / decoders), gpus, 0.0, 1, threads)
        sessions = max(1, int(total) // threads)
        return cls(decoders, min(0.5, total / 2 / decoders), sessions, min(threads, *cores) / 2, 0, threads)

    def ahead(self, prefetch_factor: int) -> int:
        """Batches under way at most."""
        return prefetch_factor * (self.decoders + 2 * self.sessions)

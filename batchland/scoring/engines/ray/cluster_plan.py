"""Divide the cores and GPUs of a cluster among workers."""

from typing import Any, Final, NamedTuple

CORES_PER_WORKER: Final = 16
"""On CPUs. A smaller node gives all of its cores. With more cores, a second model costs less than waiting for one."""


class ClusterPlan(NamedTuple):
    """Number of workers, and what each reserves."""

    workers: int
    cores: int
    """Cores of one worker, for decoding threads and calls of the model."""
    cpus: int
    """Reserved in Ray; 0 on a node with GPUs and no CPUs."""
    gpus: int

    @classmethod
    def of(cls, nodes: list[dict[str, float]], *, on_gpus: bool) -> "ClusterPlan":
        """nodes: the resources of each node, as Ray names them. on_gpus: one worker per GPU, else by cores.

        Nodes without CPUs take no workers on CPUs, and nodes without GPUs take none on GPUs.
        """
        if on_gpus:
            with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
            cpus = min(int(node.get("CPU", 0) / int(node["GPU"])) for node in with_gpus)
            return cls(sum(int(node["GPU"]) for node in with_gpus), max(1, cpus), cpus, 1)
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        each = min(CORES_PER_WORKER, *cores)
        return cls(sum(count // each for count in cores), each, each, 0)

    @property
    def resources(self) -> dict[str, Any]:
        """For the options of a Ray actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

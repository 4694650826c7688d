"""The Ray engine: open the model on the cluster, hand out parts, and record which ones the workers have written."""

import hashlib
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import ray

from batchland.errors import BatchlandError, DeviceError, EngineError
from batchland.models.contract import read_model
from batchland.models.session import OpenModel
from batchland.predictions.parts import Entry, PartSpec, PartSummary
from batchland.predictions.schema import WrittenFile
from batchland.scoring.engines.engine import Part, ScoredPart
from batchland.scoring.engines.ray.cluster_plan import ClusterPlan
from batchland.scoring.engines.ray.pool import ActorHandle, WorkerPool, ray_errors
from batchland.scoring.engines.ray.shared_images import TRIED, KnownImage
from batchland.scoring.engines.ray.start import start_ray
from batchland.scoring.engines.ray.worker import PartWorker, StoredContent, WorkerSettings
from batchland.scoring.manifest import versions
from batchland.scoring.options import MAX_CPU_CALLS, ScoreOptions
from batchland.system.paths import resolved

_MAX_LOSSES: Final = 10
"""Workers that may die while they have one part, although each image is decoded in a subprocess."""


class RayEngine:
    """Score with Ray's workers: each of them scores whole parts and writes them.

    A context. It uses a cluster or the Ray that runs on this machine; without these, it starts Ray and ends it.

    Raises ModelError if the model cannot be used, DeviceError if `cuda` was asked for and the cluster has none,
    EngineError if the cluster cannot be reached.
    """

    def __init__(self, model: Path, options: ScoreOptions) -> None:
        kind, _, numbers = options.device.partition(":")
        if numbers:
            raise DeviceError(f"device {options.device}: Ray assigns GPUs to workers by itself; use device {kind}")
        self._path = model
        self._content: bytes | None = read_model(model)
        self._options = options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            here = start_ray(stack, self._options.ray_address, gpus=self._options.device != "cpu")
            self._open(only_here=here)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self, *, only_here: bool) -> None:
        """Open the model in a first worker, to know the device, and plan.

        only_here: all workers are on this machine, and read the model's file.
        """
        options = self._options
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if not any(node.get("CPU", 0) >= 1 for node in nodes):
            raise EngineError("the Ray cluster has no CPUs; see `ray status`")
        gpus = options.device != "cpu" and any(node.get("GPU", 0) >= 1 for node in nodes)
        if options.device not in ("auto", "cpu") and not gpus:
            problem = "the Ray cluster has no GPUs"
            raise DeviceError(f"device {options.device} cannot be used here: {problem}", advice="cpu_device")
        assert self._content is not None, "it is opened once"
        location = resolved(self._path) if only_here else ray.put(self._content)
        content = StoredContent(hashlib.sha256(self._content).hexdigest(), location)
        self._content = None
        opened = self._plan(content, nodes, options.device if gpus else "cpu")
        if gpus and opened.device == "cpu":  # device auto, and no GPU works
            ray.kill(self._first)
            fallback = opened.fallback
            opened = self._plan(content, nodes, "cpu")
        else:
            fallback = "the Ray cluster has no GPUs" if options.device == "auto" and not gpus else opened.fallback
        self.model = replace(opened, fallback=fallback)

    def _plan(self, content: StoredContent, nodes: list[dict[str, float]], device: str) -> OpenModel:
        """Divide the cluster for that device, and open the model in a first worker."""
        plan = ClusterPlan.of(nodes, on_gpus=device != "cpu")
        options = self._options.model_copy(update={"device": device, "model": None, "engine": "local"})
        settings = WorkerSettings(self._path, options, plan.cores, versions())
        ahead = _parts_ahead(self._options, self._options.part_size)
        kind = ray.remote(PartWorker).options(max_restarts=0, max_concurrency=ahead + 4, **plan.resources)

        def create() -> ActorHandle:
            return kind.remote(settings, content)

        self._first = create()
        self._pool = WorkerPool(create, plan.workers, ahead)
        with ray_errors():
            opened = ray.get(self._first.opened.remote())
        if isinstance(opened, BatchlandError):
            raise opened
        assert isinstance(opened, OpenModel)
        return opened

    def score_parts(
        self, parts: Iterable[tuple[int, Iterable[Entry]]], location: Path | str, spec: PartSpec
    ) -> Generator[ScoredPart | None, None, None]:
        """Parts that are scored and written to the output at `location`, in any order; a None about twice a second.

        A bounded number of parts is taken ahead. Raises what the workers' local engines raise, and EngineError if Ray
        fails.
        """
        parts = iter(parts)
        first = list(islice(parts, 1))
        images = [image for _, entries in first for image in islice(entries, TRIED)]
        self._pool.start(lambda worker: worker.join.remote(location, spec, KnownImage.among(images)), self._first)
        todo = (Part(number, entries) for number, entries in chain(first, parts))
        with closing(self._pool.run(todo, lambda worker, part: worker.score.remote(part), _again)) as results:
            yield from results

    @property
    def unfinished(self) -> tuple[int, int]:
        """Images scored in parts that are not finished, and failed ones among them, about a second ago."""
        return self._pool.unfinished

    def stop(self) -> tuple[list[ScoredPart], int]:
        """Let the workers write the rows scored so far, and stop.

        Returns the parts finished since `score_parts` gave the last one, and the number of images in unfinished parts.
        """
        return self._pool.stop()

    def write_files(self, schema: pa.Schema, parts: list[PartSummary]) -> list[WrittenFile]:
        """Write the files of a folder of parts, in order. schema: with the output's metadata."""

        def write(worker: ActorHandle, part: PartSummary) -> Any:
            return worker.write_file.remote(schema, part)

        files = [file for file in self._pool.run(parts, write, lambda part, alive: part) if file is not None]  # noqa: ARG005
        return sorted(files, key=lambda file: file.path)


def _parts_ahead(options: ScoreOptions, part_size: int) -> int:
    """Parts that a worker has at once: the one that it writes, and those that its pipeline reaches into."""
    batches = ceil(part_size / options.batch_size)
    return 2 + ceil((options.prefetch_factor + MAX_CPU_CALLS + 1) / batches)


def _again(part: Part, node_is_alive: bool) -> Part:
    """A part whose worker was lost. If only the process died, one of the images may be the cause."""
    if part.losses >= _MAX_LOSSES:
        first, *_, last = [entry.name for entry in part.entries] * 2
        raise EngineError(
            f"{part.losses + 1} workers in a row were lost over the part from {first} to {last}, with each image "
            f"decoded in a subprocess; finished parts are kept, check that the nodes have enough memory"
        )
    return part._replace(isolated=part.isolated or node_is_alive, losses=part.losses + 1)

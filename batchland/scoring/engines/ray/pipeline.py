"""The Ray data set of a run: batch numbers in, their rows out, in order."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from batchland.images.preprocess import PreprocessSpec
from batchland.scoring.engines.ray.cluster_plan import ClusterPlan
from batchland.scoring.engines.ray.stages import ActorHandle, Scorer, TaskSettings, decode


def dataset(
    queue: ActorHandle, batches: int, settings: TaskSettings, spec: PreprocessSpec, plan: ClusterPlan
) -> ray.data.Dataset:
    """Blocks of one scored batch each, in the order of their numbers."""
    logging.getLogger("ray.data").setLevel(logging.getLogger("ray").level)  # importing ray.data has reset it
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # a block is one batch: blocks are never merged
    context.print_on_execution_start = False
    context.enable_progress_bars = False
    with DataContext.current(context):
        numbers = ray.data.read_datasource(Numbers(batches), override_num_blocks=1, **on_driver_node())
        decoded = numbers.map_batches(
            decode,
            fn_args=(queue, settings, spec),
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(plan.decoders),
            num_cpus=plan.decoder_cpus,
        )
        scored: ray.data.Dataset = decoded.map_batches(
            Scorer,
            fn_constructor_args=(settings,),
            batch_size=1,  # a block has one row; with GPUs, Ray requires a number
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=plan.sessions, max_concurrent_calls_per_actor=plan.calls, enable_true_multi_threading=True
            ),
            num_cpus=plan.session_cpus,
            num_gpus=plan.session_gpus,
        )
    return scored


class Numbers(Datasource):
    """The numbers of a window's batches, from a task that ends at once, so that a lost block can be made again."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown."""
        return None

    def get_read_tasks(self, *args: object, **kwargs: object) -> list[ReadTask]:  # noqa: ARG002
        """One task for all numbers, in order."""
        return [ReadTask(partial(_numbers, self._batches), BlockMetadata(None, None, None))]


def _numbers(batches: int) -> Iterator[pa.Table]:
    return (pa.table({"number": [number]}) for number in range(batches))


def on_driver_node() -> dict[str, Any]:
    """Options of tasks and actors that must not be lost with another node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}

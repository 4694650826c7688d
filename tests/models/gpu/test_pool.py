"""A pool runs each runner in its own thread, all in parallel, and frees a runner after an error."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from batchland.images.encoded_jpegs import NO_JPEGS
from batchland.models.contract import Answer
from batchland.models.gpu.pool import RunnerPool


class Doubler:
    """Doubles numbers and records its threads. With a barrier, it waits for the other runners."""

    def __init__(self, barrier=None):
        self.barrier = barrier
        self.threads = []

    def answer(self, pixels, jpegs=NO_JPEGS):
        self.threads.append(threading.current_thread().name)
        if self.barrier:
            self.barrier.wait()
        if pixels < 0:
            raise ValueError(f"{pixels} is negative")
        return Answer(2 * pixels)


def test_each_runner_keeps_one_thread_for_all_callers():
    runners = [Doubler(), Doubler()]
    with closing(RunnerPool(runners)) as pool, ThreadPoolExecutor(6) as callers:
        assert len(pool) == 2
        assert [each.probabilities for each in callers.map(pool.answer, range(60))] == [
            2 * number for number in range(60)
        ]
    assert sum(len(runner.threads) for runner in runners) == 60
    for index, runner in enumerate(runners):
        assert set(runner.threads) == {f"device-{index}_0"}


def test_runners_work_in_parallel():
    barrier = threading.Barrier(3, timeout=10)
    with closing(RunnerPool([Doubler(barrier) for _ in range(3)])) as pool, ThreadPoolExecutor(3) as callers:
        assert [each.probabilities for each in callers.map(pool.answer, range(6))] == [0, 2, 4, 6, 8, 10]


def test_a_runner_is_free_again_after_an_error():
    with closing(RunnerPool([Doubler()])) as pool:
        for _ in range(3):
            with pytest.raises(ValueError, match="-1 is negative"):
                pool.answer(-1)
        assert pool.answer(4).probabilities == 8


def test_runners_are_warmed_up_one_after_the_other():
    runners = [Doubler(), Doubler(), Doubler()]
    with closing(RunnerPool(runners)) as pool:
        pool.warm_up(1)
        assert [runner.threads for runner in runners] == [["device-0_0"], ["device-1_0"], ["device-2_0"]]
        with pytest.raises(ValueError, match="-1 is negative"):
            pool.warm_up(-1)


def test_threads_end_with_the_pool():
    pool = RunnerPool([Doubler()])
    pool.warm_up(1)
    pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("device-")]

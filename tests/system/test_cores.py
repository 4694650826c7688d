"""Cores and memory as granted: affinity and the limits of control groups."""

import os

import pytest

from batchland.system.cores import count_cores, machine_memory, usable_memory


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert count_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("content", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)])
def test_cgroup_v2(tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert count_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_a_quota_is_rounded_up_and_never_above_the_affinity(tmp_path):
    for quota, cores in ((150_000, 2), (250_000, 3), (9_900_000, 8)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000")
        assert count_cores(tmp_path, affinity=8) == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 8)])
def test_cgroup_v1(tmp_path, quota, cores):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert count_cores(tmp_path, affinity=8) == cores


def test_the_tightest_limit_of_the_groups_around_this_process_counts(tmp_path):
    service = tmp_path / "system.slice" / "batchland.service"
    service.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/system.slice/batchland.service\n")
    (service / "cpu.max").write_text("400000 100000\n")
    (service / "memory.max").write_text("max\n")
    (service.parent / "cpu.max").write_text("max 100000\n")
    (service.parent / "memory.max").write_text(f"{512 * 2**20}\n")
    assert (count_cores(tmp_path, membership, affinity=8), usable_memory(tmp_path, membership)) == (4, 512 * 2**20)
    (service.parent / "cpu.max").write_text("150000 100000\n")
    (service / "memory.max").write_text(f"{256 * 2**20}\n")
    assert (count_cores(tmp_path, membership, affinity=8), usable_memory(tmp_path, membership)) == (2, 256 * 2**20)


def test_memory_of_cgroup_v1_with_one_folder_per_controller(tmp_path):
    membership = tmp_path / "membership"
    membership.write_text("3:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    (tmp_path / "memory" / "docker" / "abc").mkdir(parents=True)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert usable_memory(tmp_path, membership) == machine_memory()
    (tmp_path / "memory" / "docker" / "abc" / "memory.limit_in_bytes").write_text(f"{2**30}\n")
    assert usable_memory(tmp_path, membership) == 2**30


def test_where_no_group_is_mounted_the_machine_counts(tmp_path):
    assert usable_memory(tmp_path, tmp_path / "absent") == machine_memory()

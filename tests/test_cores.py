"""Cores as granted: affinity and container quotas."""

import os

import pytest

from batchland.cores import usable_cores


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("content", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)])
def test_cgroup_v2(tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_a_quota_is_rounded_up_and_never_above_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for quota, cores in ((150_000, 2), (250_000, 3), (9_900_000, 8)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000")
        assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 8)])
def test_cgroup_v1(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores(tmp_path) == cores

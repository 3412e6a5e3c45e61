"""Processors and memory: what the container's limits leave, in both generations of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tandem_runtime.engine.machine import available_memory_bytes, usable_cpus


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("quota", "want"), [("150000 100000", 1), ("50000 100000", 1), ("100000 100000", 1)])
def test_a_quota_counts_whole_processors_and_at_least_one(tmp_path: Path, quota: str, want: int) -> None:
    assert usable_cpus(write(tmp_path, cpu_dot_max=quota)) == want


def test_no_quota_leaves_the_affinity_mask(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert usable_cpus(tmp_path) == allowed
    assert usable_cpus(write(tmp_path, cpu_dot_max="max 100000")) == allowed
    older = write(tmp_path / "v1", **{"cpu/cpu_dot_cfs_quota_us": "-1", "cpu/cpu_dot_cfs_period_us": "100000"})
    assert usable_cpus(older) == allowed


def test_the_smaller_of_machine_and_cgroup_counts_and_page_cache_gives_way(tmp_path: Path) -> None:
    meminfo = write(tmp_path, meminfo="MemTotal: 9000 kB\nMemAvailable:    8000 kB\n") / "meminfo"
    assert available_memory_bytes(tmp_path, meminfo) == 8000 * 1024
    write(tmp_path, memory_dot_max="5000", memory_dot_current="4000", memory_dot_stat="anon 1\ninactive_file 1500\n")
    assert available_memory_bytes(tmp_path, meminfo) == 2500
    write(tmp_path, memory_dot_max="max")
    assert available_memory_bytes(tmp_path, meminfo) == 8000 * 1024

"""What this process may use: processors and memory, as the container's cgroup limits them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")
MEMINFO: Final = Path("/proc/meminfo")
UNLIMITED_BYTES: Final = 1 << 62


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Whole processors under the cgroup quota and the affinity mask; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _read(cgroup / "cpu.max").split()
    if not quota:
        quota = [_read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")]
    try:
        limit = int(quota[0]) / int(quota[1])
    except (ValueError, IndexError, ZeroDivisionError):
        return max(1, allowed)
    return max(1, min(allowed, int(limit))) if limit > 0 else max(1, allowed)


def available_memory_bytes(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that can still be taken: the smaller of the machine's and what the cgroup leaves."""
    left = [_field(meminfo, "MemAvailable:") * 1024 or UNLIMITED_BYTES]
    for folder, limit, used, cache in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        ceiling, taken = _read(folder / limit), _read(folder / used)
        if ceiling.isdigit() and taken.isdigit():
            # A model just fetched sits in the page cache, is counted as used, and gives way.
            left.append(int(ceiling) - int(taken) + _field(folder / "memory.stat", cache))
    return max(0, min(left))


def _field(path: Path, name: str) -> int:
    lines = (line.split() for line in _read(path).splitlines())
    return next((int(words[1]) for words in lines if len(words) > 1 and words[0] == name), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

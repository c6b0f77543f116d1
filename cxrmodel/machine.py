"""What this process may use of the machine: its share of the cores and of the memory.

A container sees all cores of its node, and is stopped whenever its quota is used up; more threads
than it has cores then wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Return how many threads can run at once: by affinity and by the quota of control groups.

    A quota of one and a half cores gives one thread: a second one would halt the first half of the
    time.

    Args:
        root: Of the file system, for tests.
    """
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return max(1, math.floor(min([len(affinity) or os.cpu_count() or 1, *quotas])))


def usable_memory_bytes(root: Path = ROOT) -> int:
    """Return the machine's memory, or the least limit of this process's control groups.

    Args:
        root: Of the file system, for tests.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    files = [group / "memory.max" for group in _groups(root, "")]
    files += [group / "memory.limit_in_bytes" for group in _groups(root, "memory")]
    limits = [text for file in files if (text := _read(file)).isdigit()]
    return min([machine, *map(int, limits)])


def _quotas_v2(root: Path) -> Iterator[float]:
    for group in _groups(root, ""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # no quota is -1
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those that it lies in.

    In a container the path may be that of the host, while the group is mounted at the top. So each
    folder of the path is tried, whether or not it exists.

    Args:
        root: Of the file system.
        controller: Of version 1; empty for version 2, which has one tree for all.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup"
        for folder in (mounted / controller, mounted / controllers) if controller else (mounted,):
            group = folder / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(folder))


def _read(path: Path) -> str:
    """Return the text of a file, empty where it is missing or may not be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""

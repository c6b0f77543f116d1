import os

import pytest

from cxrmodel.machine import usable_cores, usable_memory_bytes

AFFINITY = len(os.sched_getaffinity(0))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write a file system with control groups; the process may run on 64 cores of it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))

    def write(cgroup, **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_a_quota_it_is_the_affinity(machine):
    root = machine("0::/user.slice\n", **{"user.slice/cpu.max": "max 100000\n"})
    assert usable_cores(root) == 64


@pytest.mark.parametrize(("quota", "cores"), [(200_000, 2), (150_000, 1), (50_000, 1)])
def test_a_pods_quota_counts(machine, quota, cores):
    root = machine("0::/\n", **{"cpu.max": f"{quota} 100000\n"})
    assert usable_cores(root) == cores


def test_the_least_of_the_groups_above_counts(machine):
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}
    assert usable_cores(machine("0::/a/b\n", **files)) == 3


def test_the_path_of_the_host_is_looked_into_from_its_top(machine):
    root = machine("0::/kubepods/pod1/c2\n", **{"cpu.max": "400000 100000\n"})
    assert usable_cores(root) == 4


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1(machine, mount):
    files = {f"{mount}/docker/cpu.cfs_quota_us": "200000\n"}
    files |= {f"{mount}/docker/cpu.cfs_period_us": "100000\n", f"{mount}/cpu.cfs_quota_us": "-1\n"}
    files |= {"memory/docker/memory.limit_in_bytes": "1000000\n"}
    root = machine("4:memory:/docker\n3:cpu,cpuacct:/docker\n0::/\n", **files)
    assert (usable_cores(root), usable_memory_bytes(root)) == (2, 1_000_000)


def test_memory_of_version_2(machine):
    root = machine("0::/pod\n", **{"pod/memory.max": "max\n", "memory.max": "2000000\n"})
    assert usable_memory_bytes(root) == 2_000_000


def test_where_no_group_is_told_it_is_the_whole_machine(tmp_path):
    assert usable_cores(tmp_path) == AFFINITY
    assert usable_memory_bytes(tmp_path) > 1 << 28

"""How many threads compute."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest
import torch

from cxrmodel import threads as of_threads
from cxrmodel.threads import beside, is_faster_with_fewer, threads, use_threads

NUMBER = """
import os, sys
from cxrmodel import threads
quota = int(sys.argv[1])
threads.usable_cores = lambda: quota
threads.is_faster_with_fewer = lambda *_: sys.exit("a trial")
import torch
print(threads.use_threads(int(sys.argv[2]) or None), torch.get_num_threads())
"""


@pytest.mark.parametrize(
    ("setting", "asked", "quota", "used"),
    [("2", 0, 1, 1), ("1", 0, 2, 1), ("1", 2, 1, 2), ("2", 0, 8, 2), ("", 0, 1, 1), ("", 3, 2, 3)],
)
def test_threads_follow_setting_quota_and_environment(setting, asked, quota, used):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": setting} if setting else {}
    command = [sys.executable, "-c", NUMBER, str(quota), str(asked)]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [str(used), str(used)]


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(of_threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(of_threads, "_tried", None)
    monkeypatch.setattr(of_threads, "_told", None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("fastest", "tried"), [(4, 1), (2, 2), (1, 2)])
def test_threads_are_halved_while_fewer_are_faster(four_cores, monkeypatch, caplog, fastest, tried):
    trials = []

    def is_faster(fewer, more, work):
        trials.append((fewer, more))
        return more > fastest

    monkeypatch.setattr(of_threads, "is_faster_with_fewer", is_faster)
    with caplog.at_level(logging.INFO):
        assert use_threads() == torch.get_num_threads() == fastest
        assert use_threads() == fastest  # the trial counts for a minute
    assert trials == [(2, 4), (1, 2)][:tried]
    (record,) = caplog.records
    compute = "1 thread computes" if fastest == 1 else f"{fastest} threads compute"
    assert record.getMessage().startswith(f"{compute}, of 4 cores")
    assert ("other processes use the cores" in record.getMessage()) == (fastest < 4)


def slower_with(number):
    """Return work whose time with so many threads is three times that with others."""

    def work():
        time.sleep(0.003 if torch.get_num_threads() == number else 0.001)

    return work


def test_the_faster_of_two_numbers_is_told():
    before = torch.get_num_threads()
    assert is_faster_with_fewer(1, 2, slower_with(2))
    assert not is_faster_with_fewer(1, 2, slower_with(1))
    assert not is_faster_with_fewer(1, 2, slower_with(3)), "equal: the larger number stays"
    assert torch.get_num_threads() == before


def test_a_number_of_threads_holds_for_a_block():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before


def test_work_beside_runs_on_one_thread_less_and_gives_its_result():
    before = torch.get_num_threads()
    with threads(4):
        with beside(lambda: 7) as found:
            assert torch.get_num_threads() == 3
            assert found.result(timeout=60) == 7
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == before


def test_what_fails_beside_is_told_where_the_result_is_asked_for():
    def fail():
        raise ValueError("no map")

    with beside(fail) as found, pytest.raises(ValueError, match="no map"):
        found.result(timeout=60)

import logging
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from cxrmodel.progress import Progress, silent
from cxrmodel.training import speed
from cxrmodel.training.speed import BusyMachine, ProgressMeter, typical_speed


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    return made


def test_a_meter_tells_working_from_waiting(clock):
    told = []
    meter = ProgressMeter("vae", 3, "steps", told.append)

    def slow_reader():
        for batch in range(3):
            clock.now += 1.0
            yield batch

    began = meter.read()
    for _ in meter.waiting(slow_reader()):
        clock.now += 3.0
        meter.count(8)
    rates = meter.read().rates_since(began)
    assert rates == {"images_per_s": 2.0, "loader_wait": 0.25}
    meter.tell(3, {"l1": 0.5})
    assert told == [Progress("vae", 3, 3, "steps", {**rates, "l1": 0.5})]
    assert not meter.is_due()
    clock.now += 1.0
    assert meter.is_due()


def test_without_images_there_is_no_speed(clock):
    meter = ProgressMeter("vae", 3, "steps", silent)
    began = meter.read()
    clock.now += 5.0
    assert meter.read().rates_since(began) == {}


def test_the_typical_speed_is_of_the_epochs_that_were_measured():
    history = [
        {"images_per_s": 1.0, "loader_wait": 0.5},
        {},  # it was interrupted after its last step
        {"images_per_s": 3.0, "loader_wait": 0.1},
        {"images_per_s": 2.0, "loader_wait": 0.2},
    ]
    assert typical_speed(history) == {"images_per_s": 2.0, "loader_wait": 0.2}
    assert typical_speed([{}]) == {"images_per_s": None, "loader_wait": None}


def test_a_busy_machine_is_warned_of_once(monkeypatch, caplog):
    waited = iter([0.0, 0.1, 1.2, 2.3])
    monkeypatch.setattr(speed, "_waited_s", lambda: next(waited))
    times = iter([0.0, 3.0, 6.0, 9.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    machine = BusyMachine()
    with caplog.at_level(logging.WARNING):
        machine.look()
        assert not caplog.records  # 3 % of the time
        machine.look()
        machine.look()
    (record,) = caplog.records
    assert "waits for one 37 % of the time" in record.getMessage()
    assert "runtime.num_threads" in record.getMessage()


@pytest.mark.skipif(not speed.SCHEDULER.exists(), reason="the kernel's own")
def test_the_kernel_tells_how_long_a_thread_waits_for_a_core():
    found = []

    def work():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread alone
        before = speed._waited_s()
        rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
        rival.kill()
        rival.wait()
        found.append(speed._waited_s() - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] > 0.1

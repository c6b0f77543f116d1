import pytest

from cxrmodel.training import speed
from cxrmodel.training.speed import SpeedMeter, typical_speed


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
    meter = SpeedMeter()

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


def test_without_images_there_is_no_speed(clock):
    meter = SpeedMeter()
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

"""The simulation of drift: few alarms without it, and many with it."""

import numpy as np
import pytest

from benchmarks.drift import Pool, scenarios, simulate
from cxrmodel.inference.bundle import read_bundle
from cxrmodel.monitoring.quantities import quantities_of
from tests.monitoring.scored import images, write_bundle

NUM_WINDOWS = 16


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    """Images of which the altered ones differ a little."""
    bundle = read_bundle(write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", 100))
    clean = images(1400, seed=11)
    clean = clean.assign(image=[f"{row}.png" for row in clean.index], source="")
    abnormal = np.random.default_rng(12).random(len(clean)) < 0.3
    clean = clean.assign(abnormal=abnormal.astype(float))
    clean["p_Mass"] = np.random.default_rng(13).normal(abnormal * 1.5)
    inverted = clean.assign(status="inverted")
    scores = list(clean.filter(regex=r"^(mu_|p_|l1|sharpness|distance)"))
    inverted[scores] = np.nan
    tables = {
        "clean": clean,
        "gamma 1.3": clean.assign(mu_00=clean["mu_00"] + 0.6),
        "blurred": clean.assign(sharpness=0.8 * clean["sharpness"]),
        "inverted": inverted,
    }
    return Pool(tables, quantities_of(bundle), window=300, reference=700)


def test_of_clean_windows_few_alarm_and_of_altered_ones_many(pool):
    found = simulate(pool, NUM_WINDOWS)
    assert list(found) == list(scenarios(pool))
    clean = found.pop("clean")
    assert clean <= 0.25  # of 16 windows more than 4: once in 1,000 such tests
    assert {name: share for name, share in found.items() if share < 0.9} == {}


def test_where_nothing_is_known_of_people_their_views_tell_nothing(pool):
    only = ("AP +20 points", "blurred")
    found = simulate(pool, 10, people=False, only=only)
    assert found["blurred"] == 1
    assert found["AP +20 points"] <= 0.4

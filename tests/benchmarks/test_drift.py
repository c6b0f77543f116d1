"""The simulation of drift: few alarms without it, and many with it."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift import Pool, divide, scenarios, simulate
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


def test_patients_are_dealt_whole(tmp_path):
    rows = [(f"{row:03d}.png", row // 2) for row in range(40)]
    table = pd.DataFrame(rows, columns=["Image Index", "Patient ID"])
    table.to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    parts = divide(tmp_path)
    assert list(parts["image"]) == list(table["Image Index"])
    assert parts["split"].value_counts().to_dict() == {"train": 18, "val": 6, "test": 16}
    assert len(set(zip(table["Patient ID"], parts["split"], strict=True))) == 20
